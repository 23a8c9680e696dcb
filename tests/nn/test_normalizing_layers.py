"""Layers that normalize: running statistics, shards, and training of a small network that has them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist import nn, parallel
from tinygrad_mnist.train import Trainer, accuracy, predict

RNG = np.random.default_rng(0)
some = settings(max_examples=max(settings().max_examples // 3, 8))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def layer_for(shape: tuple[int, ...], **how: Any) -> Any:
    return (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1], **how)


shapes = st.sampled_from([(5, 3), (2, 1), (4, 2, 3), (3, 4, 2, 5), (2, 3, 1, 1)])
floats = st.sampled_from([np.float32, np.float64])


# Statistics -----------------------------------------------------------------------------------------------------------
@some
@given(shapes, floats, st.sampled_from([0.1, 0.75, 0.0, 1.0, None]), st.booleans(), st.integers(1, 4))
def test_running_statistics_follow_their_formula(
    shape: Any, dtype: Any, momentum: float | None, affine: bool, steps: int
) -> None:
    layer, axes = layer_for(shape, momentum=momentum, affine=affine, dtype=dtype, eps=0.01), (0, *range(2, len(shape)))
    draws, mean, variance = rng(steps), np.zeros(shape[1]), np.ones(shape[1])
    sides = (-1, *[1] * (len(shape) - 2))
    for parameter in nn.parameters(layer).values():
        parameter.data = draws.uniform(0.5, 2, shape[1]).astype(dtype)
    w, b = (layer.weight.data.reshape(sides), layer.bias.data.reshape(sides)) if affine else (1, 0)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for step in range(1, steps + 1):
        x = (draws.normal(size=shape) + 3).astype(dtype)
        share = 1 / step if momentum is None else momentum
        mean = (1 - share) * mean + share * x.mean(axes, dtype=float)
        variance = (1 - share) * variance + share * x.var(axes, dtype=float, ddof=1)
        out = layer(x, draws)
        expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.01) * w + b
        np.testing.assert_allclose(out.data, expected, rtol=10 * tolerance, atol=100 * tolerance)
        assert out.dtype == dtype and layer.num_batches_tracked.item() == step
    for buffer, running in ((layer.running_mean, mean), (layer.running_var, variance)):
        assert buffer.dtype == dtype
        np.testing.assert_allclose(buffer.data, running, rtol=tolerance, atol=tolerance)
    x, before = draws.normal(size=shape).astype(dtype), nn.state_dict(layer)
    out = (x - mean.reshape(sides)) / np.sqrt(variance.reshape(sides) + 0.01) * w + b
    np.testing.assert_allclose(layer(x).data, out, rtol=10 * tolerance, atol=100 * tolerance)
    for name, value in nn.state_dict(layer).items():
        np.testing.assert_array_equal(value, before[name], strict=True)


@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 3), (3, 4, 2, 5)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_torch_keeps_the_same_statistics(shape: Any, momentum: float | None) -> None:
    torch = pytest.importorskip("torch")
    kind = torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d
    ours, theirs = layer_for(shape, momentum=momentum, dtype=np.float64), kind(shape[1], momentum=momentum).double()
    for _ in range(3):
        x = rng().normal(size=shape)
        np.testing.assert_allclose(ours(x, rng()).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-12)
    theirs.eval()
    np.testing.assert_allclose(ours(x).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-12)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    for name, value in nn.state_dict(ours).items():
        np.testing.assert_allclose(value, state.pop(name), rtol=1e-12)
    assert not state


def test_a_layer_that_has_seen_no_generator_refuses() -> None:
    x = np.ones((4, 2), np.float32)
    layer = nn.BatchNorm1d(2)
    for model in (layer, nn.Sequential(nn.Linear(2, 2), layer)):
        with pytest.raises(RuntimeError, match=r"BatchNorm1d: there are no running statistics.*layer\(x, rng=rng\)"):
            model(x)
    trained = nn.BatchNorm1d(2)
    trained(x, rng())
    nn.load_state_dict(layer, nn.state_dict(trained))
    np.testing.assert_array_equal(layer(x).data, trained(x).data)
    for other in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        np.testing.assert_array_equal(other(x).data, trained(x).data)


@pytest.mark.parametrize("wrong", [False, True, 0, np.random.RandomState(0)])
def test_only_a_generator_is_training(wrong: Any) -> None:
    layer = nn.BatchNorm1d(2)
    layer(np.eye(2), rng())
    before = nn.state_dict(layer)
    with pytest.raises(TypeError, match=r"BatchNorm1d: rng is .*; pass np.random.default_rng\(seed\) in training"):
        layer(np.eye(2), wrong)
    for name, value in nn.state_dict(layer).items():
        np.testing.assert_array_equal(before[name], value)


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (nn.BatchNorm2d(3), np.ones((4, 3)), r"BatchNorm2d: x has shape \(4, 3\); .* \(N, C, H, W\) with C = 3"),
        (nn.BatchNorm2d(3), np.ones((4, 2, 5, 5)), r"BatchNorm2d: x has shape \(4, 2, 5, 5\)"),
        (nn.BatchNorm1d(3), np.ones((4, 3, 2, 2)), r"BatchNorm1d: x has shape \(4, 3, 2, 2\); .* or \(N, C, L\)"),
        (nn.BatchNorm1d(3), np.ones((1, 3)), r"BatchNorm1d: x of shape \(1, 3\) has fewer than two values"),
        (nn.BatchNorm2d(3), np.ones((1, 3, 1, 1)), r"BatchNorm2d: x of shape \(1, 3, 1, 1\) has fewer than two"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(layer: Any, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(x, rng())
    assert layer.num_batches_tracked.item() == 0 and not layer.running_mean.data.any()


def test_num_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="GroupNorm: num_groups is 4; it must divide num_channels, 6"):
        nn.GroupNorm(4, 6)


def test_other_layers_are_their_functions() -> None:
    x, draws = RNG.normal(size=(3, 4, 2, 5)).astype(np.float32), rng(1)
    for layer, function, names in (
        (nn.LayerNorm((2, 5), eps=0.1), lambda w, b: tg.layer_norm(x, (2, 5), w, b, 0.1), ["weight", "bias"]),
        (nn.LayerNorm(5, bias=False), lambda w, b: tg.layer_norm(x, 5, w, b), ["weight"]),
        (nn.LayerNorm(5, elementwise_affine=False), lambda w, b: tg.layer_norm(x, 5, w, b), []),
        (nn.GroupNorm(2, 4, eps=0.1), lambda w, b: tg.group_norm(x, 2, w, b, 0.1), ["weight", "bias"]),
        (nn.GroupNorm(2, 4, affine=False), lambda w, b: tg.group_norm(x, 2, w, b), []),
    ):
        assert list(nn.parameters(layer)) == names
        np.testing.assert_allclose(layer(x).data, function(None, None).data, rtol=1e-6)  # ones and zeros
        for parameter in nn.parameters(layer).values():
            parameter.data = draws.normal(size=parameter.shape).astype(np.float32)
        for generator in (None, rng()):
            out = layer(x, generator)
            np.testing.assert_array_equal(out.data, function(layer.weight, layer.bias).data, strict=True)
    assert list(nn.state_dict(nn.BatchNorm2d(2, affine=False))) == [
        "running_mean",
        "running_var",
        "num_batches_tracked",
    ]


# Shards ---------------------------------------------------------------------------------------------------------------
X = RNG.normal(2, 3, (23, 3, 4, 4)).astype(np.float32)
TARGET = RNG.normal(size=X.shape).astype(np.float32)


def step(shard_size: int, threads: int, momentum: float | None = 0.1) -> tuple[Any, dict[str, Any], nn.BatchNorm2d]:
    layer = nn.BatchNorm2d(3, momentum=momentum)

    def loss(x: Any, target: Any, rng: Any) -> tg.Tensor:
        return (layer(x, rng) * target).sum() / len(x)

    loss_, grads = parallel.value_and_grad(
        loss, nn.parameters(layer), X, TARGET, rng=rng(), shard_size=shard_size, threads=threads
    )
    return loss_, grads, layer


@some
@given(st.sampled_from([1, 2, 5, 8, 11, 22, 23, 30]), st.sampled_from([0.1, None]))
def test_a_shard_sees_its_own_statistics_and_threads_change_no_bit(shard_size: int, momentum: float | None) -> None:
    pieces = [slice(i, min(i + shard_size, 23)) for i in range(0, 23, shard_size)]
    results = []
    for threads in (1, 2, 4):
        loss, grads, layer = step(shard_size, threads, momentum)
        state = nn.state_dict(layer)
        results.append((loss, *(a.tobytes() for a in [*grads.values(), *state.values()])))
    assert len(set(results)) == 1
    assert state["num_batches_tracked"] == 1
    share, expected = 0.1 if momentum else 1.0, {"running_mean": 0.0, "running_var": 0.0}
    gradient = np.zeros(3)
    for piece in pieces:
        x, weight = X[piece].astype(float), (piece.stop - piece.start) / 23
        expected["running_mean"] = expected["running_mean"] + weight * share * x.mean((0, 2, 3))
        new = (1 - share) + share * x.var((0, 2, 3), ddof=1)
        expected["running_var"] = expected["running_var"] + weight * new
        y = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        gradient += (y * TARGET[piece]).sum((0, 2, 3)) / 23
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=1e-5)
    np.testing.assert_allclose(grads["weight"], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_shard_has_the_exact_statistics_of_the_batch(threads: int) -> None:
    _, grads, sharded = step(len(X), threads)
    layer = nn.BatchNorm2d(3)
    loss = (layer(X, rng()) * TARGET).sum() / len(X)
    expected = tg.grad(loss, [*nn.parameters(layer).values()])
    for name, value in nn.state_dict(layer).items():
        np.testing.assert_array_equal(nn.state_dict(sharded)[name], value, strict=True)
    for found, true in zip(grads.values(), expected, strict=True):
        np.testing.assert_allclose(found, true.data, rtol=1e-6)


# A network with batch normalization -----------------------------------------------------------------------------------
IMAGES = RNG.normal(size=(60, 1, 8, 8)).astype(np.float32)
LABELS = (IMAGES[:, 0, :4].mean((1, 2)) > 0).astype(int)


def network(seed: int = 0) -> nn.Sequential:
    draws = rng(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=draws), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2, rng=draws)
    )


def trainer(model: Any, threads: int = 1, **how: Any) -> Trainer:
    optimizer = tg.optim.Adam(nn.parameters(model), lr=0.03, groups={"*.bias": {"lr": 0.1}})
    how = {"epochs": 4, "batch_size": 20, "shard_size": 7, "rng": rng(1), "clip_norm": 0.5, **how}
    return Trainer(model, optimizer, IMAGES, LABELS, threads=threads, **how)


def run(training: Trainer, most: int = 1000) -> list[float]:
    steps: Iterator[Any] = training.steps()
    return [step.loss for _, step in zip(range(most), steps, strict=False)]


@pytest.mark.parametrize("average", [None, 0.9])
def test_training_goes_on_to_the_bit_and_threads_change_nothing(average: float | None) -> None:
    first = network()
    whole = trainer(first, average=average)
    losses = run(whole)
    model, other = network(), network(5)
    begun = trainer(model, threads=2, average=average)
    early = run(begun, 5)
    later = trainer(other, threads=2, average=average)
    later.load_state_dict(copy.deepcopy(begun.state_dict()))
    assert early + run(later) == losses
    for name, value in nn.state_dict(first).items():
        np.testing.assert_array_equal(nn.state_dict(other)[name], value, strict=True)
    if average:
        assert whole.averaged is not None and later.averaged is not None
        for name, value in whole.averaged.items():
            np.testing.assert_array_equal(later.averaged[name], value, strict=True)


def test_a_trained_network_is_measured_by_its_running_statistics() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="no running statistics"):
        predict(model, IMAGES)
    training = trainer(model, epochs=15, average=0.9, monitor={"validation": (IMAGES, LABELS)})
    run(training)
    nn.load_state_dict(model, training.selected())
    assert accuracy(model, IMAGES, LABELS) > 0.95
    alone = np.concatenate([model(image[None]).data for image in IMAGES]).argmax(axis=1)
    found = predict(model, IMAGES, threads=2)
    np.testing.assert_array_equal(found if found.ndim == 1 else found.argmax(axis=1), alone)
    assert model.layers[1].num_batches_tracked.item() > 0


# Embedding and layers without bias ------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 4), max_size=8), st.sampled_from([np.int64, np.uint8, np.int32]), floats)
def test_an_embedding_looks_rows_up_and_adds_up_their_gradients(rows: list[int], kind: Any, dtype: Any) -> None:
    layer, indices = nn.Embedding(5, 3, rng=rng(), dtype=dtype), np.array(rows, kind).reshape(-1, 1)
    g = rng(1).normal(size=(*indices.shape, 3)).astype(dtype)
    out = layer(indices)
    np.testing.assert_array_equal(out.data, layer.weight.data[indices], strict=True)
    expected = np.zeros((5, 3))
    np.add.at(expected, indices, g)
    found = tg.grad(out, [layer.weight], gradient=g)[0].data
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layer(tg.Tensor(indices), rng()).data, out.data)


def test_an_embedding_refuses_what_is_no_row() -> None:
    layer = nn.Embedding(5, 3)
    for wrong in (5, -1, [0, 7]):
        with pytest.raises(ValueError, match=r"Embedding: index (5|-1|7) is out of range; there are rows 0 to 4"):
            layer(wrong)
    for kind in (np.float32, np.bool_):
        with pytest.raises(TypeError, match=f"Embedding: indices are {np.dtype(kind)}; they must be integers"):
            layer(np.ones(2, kind))
    assert layer([]).shape == (0, 3) and layer(2).shape == (3,)


def test_rows_of_an_embedding_are_standard_normal() -> None:
    w = nn.Embedding(300, 200, rng=rng()).weight.data.astype(float)
    assert abs(w.mean()) < 0.02 and abs(w.var() - 1) < 0.03 and nn.Embedding(2, 3).weight.requires_grad


def test_a_layer_without_bias_has_none() -> None:
    layer, same = nn.Linear(3, 4, bias=False, rng=rng()), nn.Linear(3, 4, rng=rng())
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    assert list(nn.parameters(layer)) == ["weight"] and repr(layer) == "Linear(3, 4, bias=False)"
    np.testing.assert_array_equal(layer(x).data, (x @ layer.weight).data)
    np.testing.assert_array_equal(layer.weight.data, same.weight.data)


# Initial weights ------------------------------------------------------------------------------------------------------
VARIANCES: dict[str, tuple[Callable[[int, int], float], float]] = {  # and the fourth moment, over its square
    "he": (lambda fan_in, fan_out: 2 / fan_in, 3.0),
    "he_normal": (lambda fan_in, fan_out: 2 / fan_in, 3.0),
    "he_uniform": (lambda fan_in, fan_out: 2 / fan_in, 1.8),
    "xavier": (lambda fan_in, fan_out: 1 / fan_in, 3.0),
    "xavier_normal": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), 3.0),
    "xavier_uniform": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), 1.8),
}


@pytest.mark.parametrize("init", VARIANCES)
@pytest.mark.parametrize(
    ("make", "fan_in", "fan_out"),
    [
        (lambda **how: nn.Conv2d(8, 200, (3, 5), **how), 8 * 15, 200 * 15),
        (lambda **how: nn.Linear(30, 400, **how), 30, 400),
    ],
)
def test_initial_weights_have_their_variance_and_shape(make: Any, fan_in: int, fan_out: int, init: str) -> None:
    w = make(rng=rng(), init=init).weight.data.astype(float).ravel()
    variance, fourth = VARIANCES[init][0](fan_in, fan_out), VARIANCES[init][1]
    assert abs(w.mean()) < 5 * np.sqrt(variance / w.size)
    assert abs((w**2).mean() / variance - 1) < 5 * np.sqrt(2 / w.size)
    assert abs((w**4).mean() / variance**2 - fourth) < 5 * np.sqrt(96 / w.size)
    if init.endswith("uniform"):
        assert np.abs(w).max() <= np.sqrt(3 * variance) * (1 + 1e-6)


def test_names_that_were_there_before_keep_their_bits() -> None:
    draws = rng(3).standard_normal((7, 5))
    for init, gain in (("he", 2.0), ("he_normal", 2.0), ("xavier", 1.0)):
        expected = (draws * np.sqrt(gain / 7)).astype(np.float32)
        np.testing.assert_array_equal(nn.Linear(7, 5, rng=rng(3), init=init).weight.data, expected, strict=True)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_orthogonal_weights_have_orthonormal_rows_or_columns(rows: int, columns: int, width: int, seed: int) -> None:
    w = nn.initial_weights((rows, columns, width), columns * width, "orthogonal", rng(seed), np.float64).data
    matrix = w.reshape(rows, -1)
    smaller = matrix @ matrix.T if rows <= columns * width else matrix.T @ matrix
    np.testing.assert_allclose(smaller, np.eye(len(smaller)), atol=1e-12)


def test_orthogonal_weights_have_both_signs_everywhere() -> None:
    w = np.stack([nn.initial_weights((3, 3), 3, "orthogonal", rng(seed)).data for seed in range(400)])
    assert (np.abs(w.mean(0)) < 5 * np.sqrt(1 / 3 / 400)).all()
    assert not nn.initial_weights((2, 3), 2, "zeros").data.any()


def test_fan_out_may_be_given() -> None:
    w = nn.initial_weights((500, 40), 40, "xavier_uniform", rng(), fan_out=500).data
    assert abs((w**2).mean() * 540 / 2 - 1) < 0.02
    with pytest.raises(
        ValueError, match="init is 'lecun'; it must be one of 'he', 'xavier', 'he_normal', 'he_uniform'"
    ):
        nn.initial_weights((2, 3), 2, "lecun")
