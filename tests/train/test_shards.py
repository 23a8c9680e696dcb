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
from op_checks import some

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist import nn
from tinygrad_mnist.train import accuracy, evaluate, inference, predict
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


# Losses that are no plain means ---------------------------------------------------------------------------------------
def pair(x: Any, labels: Any, weights: Any, net: Any) -> Any:
    counts = weights[labels]
    if not counts.any():
        return tg.Tensor(np.nan), 0.0  # the mean of nothing
    return (tg.nll_loss(tg.log_softmax(net(x)), labels, reduction="none") * counts).sum() / counts.sum(), counts.sum()


LOSSES: dict[str, Any] = {
    "class weights": lambda x, t, w, net: tg.cross_entropy(net(x), t, weight=w),
    "with smoothing": lambda x, t, w, net: tg.cross_entropy(net(x), t, 0.3, weight=w),
    "ignored": lambda x, t, w, net: tg.cross_entropy(net(x), t, ignore_index=1),
    "ignored and weights": lambda x, t, w, net: tg.nll_loss(net(x).log_softmax(), t, weight=w, ignore_index=1),
    "a sum": lambda x, t, w, net: tg.cross_entropy(net(x), t, reduction="sum"),
    "a sum with weights": lambda x, t, w, net: tg.cross_entropy(net(x), np.eye(3)[t], weight=w, reduction="sum"),
    "rows with weights": lambda x, t, w, net: tg.cross_entropy(net(x), np.eye(3)[t], weight=w),
    "squares": lambda x, t, w, net: tg.mse_loss(net(x), np.eye(3)[t]),
    "a sum of squares": lambda x, t, w, net: tg.mse_loss(net(x), np.eye(3)[t], reduction="sum"),
    "pixels": lambda x, t, w, net: tg.cross_entropy(
        net(x).reshape(-1, 3, 1) * [1.0, 2.0], np.stack([t, t], 1), weight=w
    ),
    "a pair": pair,
}


@pytest.mark.parametrize("name", LOSSES)
@some
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))
def test_shards_are_combined_by_their_weights(name: str, n: int, size: int, seed: int, threads: int) -> None:
    model, (x, labels) = Classifier(), batch(n, seed)
    labels[0], draws = 0, rng(seed)
    weights = np.where(draws.random(3) < 0.3, 0, draws.uniform(0.1, 5, 3))
    weights[0] = 2.0
    params = nn.parameters(model)

    def loss_fn(x: Any, labels: Any, rng: Any) -> Any:
        return LOSSES[name](x, labels, weights, model.net)

    whole = LOSSES[name](x, labels, weights, model.net)
    whole = whole[0] if isinstance(whole, tuple) else whole
    results = [
        parallel.value_and_grad(loss_fn, params, x, labels, shard_size=size, threads=count) for count in (1, threads)
    ]
    assert_identical(*results)
    assert abs(results[0][0] - whole.item()) < 1e-12 * n
    for found, expected in zip(results[0][1].values(), tg.grad(whole, list(params.values())), strict=True):
        np.testing.assert_allclose(found, expected.data, rtol=0, atol=1e-12 * n)


def test_what_cannot_be_combined_is_refused() -> None:
    model, (x, labels) = Classifier(), batch(10)
    weights, params, state = np.array([1.0, 2.0, 3.0]), nn.parameters(model), tg.nn.Buffer(np.zeros(1))

    def run(loss_fn: Any, **how: Any) -> Any:
        def called(x: Any, t: Any, rng: Any) -> Any:
            state.data = state.data + 1
            return loss_fn(model.net(x), t)

        state.data = np.zeros(1)
        return parallel.value_and_grad(called, params, x, labels, **{"shard_size": 4, **how})

    def penalized(scores: Any, t: Any) -> Any:
        return tg.cross_entropy(scores, t, weight=weights) + 0.1 * (scores * scores).mean()

    for wrong in (penalized, lambda scores, t: tg.mse_loss(scores, scores * 0, reduction="sum") / 4):
        with pytest.raises(
            ValueError, match=r"part of what loss_fn has returned.*\(mean loss, weight\).*shard_size=len"
        ):
            run(wrong)
        assert state.data == 0
        assert run(wrong, shard_size=10)[0] == wrong(model.net(x), labels).item()
    with pytest.raises(ValueError, match="of one shard is a mean, that of another a sum"):
        run(lambda scores, t: tg.cross_entropy(scores, t, reduction="mean" if len(t) == 4 else "sum"))
    with pytest.raises(ValueError, match="the weights of all shards add up to 0"):
        run(lambda scores, t: tg.cross_entropy(scores, t * 0, ignore_index=0))
    with pytest.raises(ValueError, match="cross_entropy: the weights of all targets add up to 0"):
        run(lambda scores, t: tg.cross_entropy(scores, t * 0, ignore_index=0), shard_size=10)
    for weight in (-1.0, np.nan, "3"):
        with pytest.raises((TypeError, ValueError), match="weight that loss_fn has returned|numbers"):
            run(lambda scores, t, weight=weight: (scores.mean(), weight))
    with pytest.raises(ValueError, match="has returned 3 values"):
        run(lambda scores, t: (scores.mean(), 1, 2))
    with pytest.raises(ValueError, match=r"weight.detach\(\)"):
        run(lambda scores, t: (scores.mean(), scores.sum()))
    assert state.data == 0


def test_a_sum_that_is_only_looked_at_changes_nothing() -> None:
    model, (x, labels) = Classifier(), batch(10)
    seen = []

    def watched(x: Any, t: Any, rng: Any) -> Any:
        scores = model.net(x)
        seen.append(tg.cross_entropy(scores, t, reduction="sum").item())
        return tg.cross_entropy(scores, t)

    results = [
        parallel.value_and_grad(fn, nn.parameters(model), x, labels, shard_size=4) for fn in (watched, model.loss)
    ]
    assert_identical(*results)
    assert len(seen) == 3 and abs(sum(seen) - 10 * results[0][0]) < 1e-12


@pytest.mark.parametrize("how", [{"weight": [1.0, 2.0, 3.0]}, {"reduction": "sum"}, {"ignore_index": 1}])
def test_training_and_evaluation_take_such_losses(how: dict[str, Any]) -> None:
    x, labels = batch(20)
    loss, finals = partial(tg.cross_entropy, **how), []
    for size in (20, 6):
        model = nn.Linear(4, 3, rng=rng(0), dtype=np.float64)
        settings_ = {"loss": loss, "epochs": 2, "batch_size": 10, "rng": rng(3), "shard_size": size}
        optimizer = tg.optim.SGD(nn.parameters(model), lr=0.01)
        finals.append([step.loss for step in tg.training.fit(model, optimizer, x, labels, **settings_)])
        measured = evaluate(model, x, labels, loss=loss).loss
        assert measured == pytest.approx(loss(model(x), labels).item(), rel=1e-12)
        assert evaluate(model, x, labels, loss=lambda scores, t: (loss(scores, t), 1.0)).loss == measured
    np.testing.assert_allclose(finals[0], finals[1], rtol=1e-9)


# Threads and seeds ----------------------------------------------------------------------------------------------------
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
    for loss_fn in (lambda x, rng: w * 1, lambda x, rng: (w * 1, len(x))):
        with pytest.raises(ValueError, match=r"loss_fn has returned has shape \(2,\); return a Tensor with one value"):
            parallel.value_and_grad(loss_fn, {"w": w}, np.ones(4), shard_size=2, threads=threads)


@pytest.mark.parametrize("result", [None, 2.0, np.float64(2), np.zeros(()), (2.0, 4)])
def test_a_loss_that_is_no_tensor_is_refused(result: Any) -> None:
    w = tg.Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(TypeError, match="loss_fn has returned is a .*; return a Tensor with one value"):
        parallel.value_and_grad(lambda x, rng: result, {"w": w}, np.ones(4), shard_size=2)


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
    with mock.patch.object(inference, "map_shards", partial(parallel.map_shards, shard_size=7)):
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
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_predictions_of_shifted_images_add_up(shape: tuple[int, ...], channels: int, by: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, height, width = shape
    images = rng.integers(0, 256, (n, max(channels, 1), height, width), np.uint8)
    model = Weighted(images.shape[1:], rng)
    total = model(images).data
    if by:
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        total = sum(
            model(padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]).data
            for down, right in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
        )
    given_images = images if channels else images[:, 0]
    with mock.patch.object(inference, "map_shards", partial(parallel.map_shards, shard_size=4)):
        np.testing.assert_array_equal(predict(model, given_images, shifts=by), total.argmax(axis=1))
        labels = rng.integers(0, 3, len(images))
        share = accuracy(model, given_images, labels, shifts=by)
    assert share == np.mean(total.argmax(axis=1) == labels)


@pytest.mark.parametrize("shape", [(4, 9), (4, 2, 9), (4, 1, 9, 2)])
def test_only_images_that_are_larger_can_be_shifted(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"predict: shifts is 2, images have shape .*\(N, H, W\)"):
        accuracy(tg.Tensor, np.zeros(shape), np.zeros(4, int), shifts=2)
