"""Shards on threads.

The gradients of one graph, the same bits for any number of threads, and errors that are raised in the caller.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist import nn
from tinygrad_mnist.train import accuracy, evaluate, evaluation, predict
from tinygrad_mnist.train import shards as parallel


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Classifier:
    """Two layers with dropout between them: (N, 4) -> (N, 3)."""

    def __init__(self, dtype: Any = np.float64) -> None:
        self.net = nn.Sequential(
            nn.Linear(4, 6, rng=rng(0), dtype=dtype),
            nn.ReLU(),
            nn.Dropout(0.4),
            nn.Linear(6, 3, rng=rng(1), dtype=dtype),
        )
        self.unused = tg.Tensor(np.ones(2, dtype), requires_grad=True)

    def loss(self, x: Any, labels: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        return tg.cross_entropy(self.net(x, rng), labels)


def batch(n: int, seed: int = 0, dtype: Any = np.float64) -> tuple[Any, Any]:
    return rng(seed).normal(size=(n, 4)).astype(dtype), rng(seed + 1).integers(0, 3, n)


def assert_identical(first: Any, second: Any) -> None:
    assert first[0] == second[0] and list(first[1]) == list(second[1])
    for name, g in first[1].items():
        np.testing.assert_array_equal(g, second[1][name], strict=True)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))
def test_shards_add_up_to_the_gradients_of_one_graph(n: int, shard_size: int, seed: int, threads: int) -> None:
    model, (x, labels) = Classifier(), batch(n, seed)
    params = nn.parameters(model)
    loss, grads = parallel.value_and_grad(model.loss, params, x, labels, shard_size=shard_size, threads=threads)
    unsharded = model.loss(x, labels)
    assert isinstance(loss, float) and abs(loss - unsharded.item()) < 1e-13
    assert list(grads) == list(params) and all(p.grad is None for p in params.values())
    for g, p, expected in zip(grads.values(), params.values(), tg.grad(unsharded, list(params.values())), strict=True):
        assert (
            isinstance(g, np.ndarray) and g.dtype == p.dtype and g.shape == p.shape and not np.shares_memory(g, p.data)
        )
        np.testing.assert_allclose(g, expected.data, rtol=0, atol=1e-13)


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 45),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_the_number_of_threads_changes_no_bit(n: int, shard_size: int, seed: int, dtype: Any, training: bool) -> None:
    model, arrays = Classifier(dtype), batch(n, seed, dtype)
    results = []
    for threads in (1, 2, 4, None):
        draws = rng(seed) if training else None
        result = parallel.value_and_grad(
            model.loss, nn.parameters(model), *arrays, rng=draws, shard_size=shard_size, threads=threads
        )
        results.append((result, None if draws is None else draws.bit_generator.state))
    for result, state in results[1:]:
        assert_identical(results[0][0], result)
        assert state == results[0][1]
    assert all(g.dtype == dtype for g in results[0][0][1].values())


def test_the_network_too_is_the_same_for_any_number_of_threads() -> None:
    model = DeepConvNet(rng=rng(0))
    images, labels = tg.data.synthetic_digits(33, rng=rng(1))
    results = [
        parallel.value_and_grad(
            model.loss, nn.parameters(model), images, labels, rng=rng(2), shard_size=10, threads=threads
        )
        for threads in (1, 2, 4)
    ]
    assert_identical(results[0], results[1])
    assert_identical(results[0], results[2])


def test_the_seed_decides_and_each_batch_and_shard_draws_anew() -> None:
    model, arrays = Classifier(), batch(30)

    def losses(seed: int) -> list[float]:
        draws = rng(seed)
        return [
            parallel.value_and_grad(model.loss, nn.parameters(model), *arrays, rng=draws, shard_size=7)[0]
            for _ in range(3)
        ]

    assert losses(1) == losses(1)
    assert len({*losses(1), *losses(2)}) == 6
    seen = []

    def loss(x: Any, labels: Any, rng: Any) -> tg.Tensor:
        seen.append(rng.random())
        return model.loss(x, labels, rng)

    for _ in range(2):
        parallel.value_and_grad(loss, nn.parameters(model), *arrays, rng=rng(len(seen)), shard_size=4, threads=2)
    assert len(set(seen)) == len(seen) == 16


@given(st.integers(1, 10_000) | st.sampled_from([500, 1000, 10_000]))
def test_default_shards_are_even_and_neither_small_nor_large(n: int) -> None:
    size = parallel.default_shard_size(n)
    shards = [min(size, n - start) for start in range(0, n, size)]
    assert sum(shards) == n and size <= 144 and (n < 80 or size >= 40)
    for threads in (2, 4) if n >= 250 else (2,) if n >= 80 else ():
        waiting = [sum(shards[i::threads]) for i in range(threads)]  # images of each thread
        assert max(waiting) - n / threads <= max(0.025 * n, threads), "threads have equally many, or nearly"
    assert size % 16 == 0 or n not in (500, 1000, 10_000)


@pytest.mark.parametrize("threads", [1, 2])
def test_shards_are_given_as_cut(threads: int) -> None:
    x, y = np.arange(11.0), np.arange(22).reshape(11, 2)
    shards = list(parallel.map_shards(lambda *job: job, x, y, shard_size=4, threads=threads))
    assert [number for number, *_ in shards] == [0, 1, 2]
    assert [len(a) for _, a, _ in shards] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([a for _, a, _ in shards]), x)
    np.testing.assert_array_equal(np.concatenate([b for *_, b in shards]), y)
    generators = []
    w = tg.Tensor(np.ones(()), requires_grad=True)
    loss, grads = parallel.value_and_grad(
        lambda x, rng: generators.append(rng) or (x * w).mean(), {"w": w}, list(x), shard_size=4, threads=threads
    )
    assert loss == pytest.approx(5) and grads["w"] == pytest.approx(5)  # the short last shard weighs less
    assert generators == [None] * 3


class ShardError(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("failing", [0, 3, 9])
def test_exceptions_are_raised_and_no_thread_stays(threads: int, failing: int) -> None:
    w, before = tg.Tensor(1.0, requires_grad=True), threading.active_count()
    error = ShardError("in a shard")

    def loss(x: Any, rng: Any) -> tg.Tensor:
        if failing in x:
            raise error
        return (x * w).mean()

    with pytest.raises(ShardError) as caught:
        parallel.value_and_grad(loss, {"w": w}, np.arange(10.0), shard_size=1, threads=threads)
    assert caught.value is error
    assert threading.active_count() == before
    assert parallel.value_and_grad(lambda x, rng: (x * w).mean(), {"w": w}, np.ones(4), threads=threads)[0] == 1
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("arrays", "how", "message"),
    [
        ([np.zeros((3, 2)), np.zeros(4)], {}, r"equally long.*\(3, 2\).*\(4,\)"),
        ([np.zeros((0, 2)), np.zeros(0)], {}, r"not empty.*\(0, 2\)"),
        ([], {}, "not empty"),
        ([np.zeros(3)], {"shard_size": 0}, "shard_size is 0"),
        ([np.zeros(3)], {"shard_size": -5}, "shard_size is -5"),
        ([np.zeros(3)], {"threads": 0}, "threads is 0"),
        ([np.zeros(3)], {"threads": -1}, "threads is -1"),
    ],
)
def test_batches_that_cannot_be_cut_are_refused(arrays: Any, how: Any, message: str) -> None:
    w = tg.Tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        parallel.value_and_grad(lambda *a: w * 1, {"w": w}, *arrays, **how)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_loss_of_several_numbers_is_refused(threads: int) -> None:
    w = tg.Tensor(np.ones(2), requires_grad=True)
    with pytest.raises((ValueError, RuntimeError), match=r"\(2,\)"):
        parallel.value_and_grad(lambda x, rng: w * 1, {"w": w}, np.ones(4), shard_size=2, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_surrounding_no_grad_makes_no_difference(threads: int) -> None:
    model, arrays = Classifier(), batch(8)
    expected = parallel.value_and_grad(model.loss, nn.parameters(model), *arrays, shard_size=4, threads=1)
    with tg.no_grad():
        assert_identical(
            parallel.value_and_grad(model.loss, nn.parameters(model), *arrays, shard_size=4, threads=threads), expected
        )


@pytest.mark.parametrize("function", [evaluate, accuracy])
@pytest.mark.parametrize(("n", "labels"), [(3, [1]), (3, 1), (0, []), (2, [[0, 1], [1, 0]])])
def test_labels_that_do_not_fit_are_refused(function: Any, n: int, labels: Any) -> None:
    with pytest.raises(ValueError, match=rf"{function.__name__}: {n} images, and labels of shape"):
        function(Classifier().net, np.ones((n, 4)), np.array(labels))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one thread")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_is_raised_and_later_shards_are_not_started(threads: int) -> None:
    started: list[int] = []

    def slow(number: int, x: Any) -> int:
        started.append(number)
        if number == 3:
            signal.raise_signal(signal.SIGINT)  # handled in the main thread, as a Ctrl-C is
        time.sleep(0.05)
        return number

    before = threading.active_count()
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background inherits that it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            list(parallel.map_shards(slow, np.arange(40), shard_size=1, threads=threads))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(started) < 20 and threading.active_count() == before


@given(st.integers(0, 40), st.sampled_from([1, 2, 4, None]))
def test_predictions_and_evaluations_are_those_of_the_whole(n: int, threads: int | None) -> None:
    model, (x, labels) = Classifier(), batch(n + 1)
    logits = model.net(x).data
    with mock.patch.object(evaluation, "map_shards", partial(parallel.map_shards, shard_size=7)):
        np.testing.assert_array_equal(predict(model.net, x[:n], threads), logits[:n].argmax(axis=1))
        loss, share = evaluate(model.net, x, labels, threads)
        assert share == accuracy(model.net, x, labels, threads) == np.mean(logits.argmax(axis=1) == labels)
    assert loss == pytest.approx(tg.cross_entropy(logits, labels).item(), rel=1e-12)


class Weighted:
    """Logits that are weighted sums of the pixels of an image."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.weight = rng.normal(size=(math.prod(shape), 3))

    def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
        return tg.matmul(np.asarray(images, float).reshape(len(images), -1), self.weight)


@given(
    st.tuples(st.integers(1, 9), st.integers(2, 6), st.integers(2, 6)),
    st.booleans(),
    st.integers(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_predictions_of_shifted_images_add_up(shape: tuple[int, ...], channel: bool, by: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, model = rng.integers(0, 256, shape, dtype=np.uint8), Weighted(shape[1:], rng)
    total = model(images).data
    if by:
        n, height, width = shape
        padded = np.zeros((n, height + 2, width + 2), np.uint8)
        padded[:, 1:-1, 1:-1] = images
        total = sum(
            model(padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]).data
            for down, right in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
        )
    given_images = images[:, None] if channel else images
    with mock.patch.object(evaluation, "map_shards", partial(parallel.map_shards, shard_size=4)):
        np.testing.assert_array_equal(predict(model, given_images, shifts=by), total.argmax(axis=1))
        labels = rng.integers(0, 3, len(images))
        share = accuracy(model, given_images, labels, shifts=by)
    assert share == np.mean(total.argmax(axis=1) == labels)


@pytest.mark.parametrize("shape", [(4, 9), (4, 2, 9), (4, 1, 9, 2)])
def test_only_images_that_are_larger_can_be_shifted(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"predict: shifts is 2, images have shape .*\(N, H, W\)"):
        accuracy(tg.Tensor, np.zeros(shape), np.zeros(4, int), shifts=2)
