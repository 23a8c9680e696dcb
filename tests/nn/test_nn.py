"""Layers: initialization, finding and loading parameters, and that exchanging ReLU and max-pool changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist import nn

Layer = Callable[..., Any]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Initialization -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("init", "gain"), [("he", 2.0), ("xavier", 1.0)])
@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda **how: nn.Conv2d(8, 200, (3, 5), **how), 8 * 3 * 5),
        (lambda **how: nn.Conv2d(200, 20, 1, **how), 200),
        (lambda **how: nn.Linear(400, 30, **how), 400),
        (lambda **how: nn.Linear(30, 400, **how), 30),
    ],
)
def test_weights_are_normal_with_the_variance_of_their_fan_in(make: Layer, fan_in: int, init: str, gain: float) -> None:
    w = make(rng=rng(), init=init).weight.data.astype(np.float64).ravel()
    scaled, n = w / np.sqrt(gain / fan_in), w.size
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:  # of a standard normal variable
        assert abs((scaled**power).mean() - moment) < 5 * np.sqrt(variance / n)


@pytest.mark.parametrize(
    "make", [lambda **how: nn.Conv2d(3, 5, (2, 4), **how), lambda **how: nn.Linear(6, 5, **how)], ids=["conv", "linear"]
)
def test_a_generator_decides_the_weights(make: Layer) -> None:
    first, again, other = make(rng=rng(1)), make(rng=rng(1)), make(rng=rng(2))
    assert np.array_equal(first.weight.data, again.weight.data)
    assert not np.array_equal(first.weight.data, other.weight.data)
    assert not np.array_equal(make().weight.data, make().weight.data)
    for dtype, layer in [(np.float32, first), (np.float64, make(rng=rng(1), dtype=np.float64))]:
        assert layer.weight.dtype == layer.bias.dtype == dtype
        assert layer.weight.requires_grad and layer.bias.requires_grad
        assert layer.bias.shape == (5,) and not layer.bias.data.any()
    with pytest.raises(ValueError, match=r"init is 'lecun'.*'he', .*'xavier'"):
        make(init="lecun")


def test_initial_weights_take_any_shape() -> None:
    assert nn.initial_weights((2, 0, 3), fan_in=7).shape == (2, 0, 3)
    np.testing.assert_allclose(
        nn.initial_weights((5,), 8, "he", rng()).data, nn.initial_weights((5,), 4, "xavier", rng()).data, rtol=1e-6
    )


# Layers ---------------------------------------------------------------------------------------------------------------
IMAGES = rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)
LAYERS = [
    (nn.Conv2d(2, 4, 3, stride=2, padding=1, rng=rng(1)), IMAGES, lambda s, x: tg.conv2d(x, s.weight, s.bias, 2, 1)),
    (nn.Linear(6, 4, rng=rng(1)), IMAGES, lambda s, x: tg.matmul(x, s.weight) + s.bias),
    (nn.ReLU(), IMAGES, lambda s, x: tg.relu(x)),
    (nn.MaxPool2d((2, 3), 1, (1, 1)), IMAGES, lambda s, x: tg.max_pool2d(x, (2, 3), 1, (1, 1))),
    (nn.MaxPool2d(3), IMAGES, lambda s, x: tg.max_pool2d(x, 3, 3)),
    (nn.Flatten(), IMAGES, lambda s, x: tg.reshape(x, 3, 72)),
    (nn.Dropout(0.3), IMAGES, lambda s, x: tg.as_tensor(x)),
    (nn.Sequential(nn.ReLU(), nn.Flatten()), IMAGES, lambda s, x: tg.reshape(tg.relu(x), 3, 72)),
    (nn.Sequential(), IMAGES, lambda s, x: tg.as_tensor(x)),
]


@pytest.mark.parametrize(("layer", "x", "same"), LAYERS, ids=lambda value: type(value).__name__)
def test_layers_are_their_functions_on_arrays_and_tensors(layer: Layer, x: Any, same: Layer) -> None:
    expected = same(layer, x)
    for out in (layer(x), layer(tg.Tensor(x)), layer(x, None), layer(x, rng=None)):
        assert isinstance(out, tg.Tensor) and out.dtype == np.float32
        np.testing.assert_array_equal(out.data, expected.data, strict=True)
    if not isinstance(layer, nn.Dropout):
        np.testing.assert_array_equal(layer(x, rng=rng()).data, expected.data)
    assert repr(layer).startswith(type(layer).__name__ + "(")


@pytest.mark.parametrize("shape", [(0, 2, 3), (4,), (2, 0, 3), (5, 1, 1, 1)])
def test_flatten_keeps_the_batch(shape: tuple[int, ...]) -> None:
    assert nn.Flatten()(np.zeros(shape)).shape == (shape[0], int(np.prod(shape[1:])))


def test_dropout_draws_only_with_a_generator() -> None:
    x = np.ones((100, 100), np.float32)
    for rescale, training, inference in [("train", 4 / 3, 1.0), ("test", 1.0, 0.75)]:
        layer = nn.Dropout(0.25, rescale)
        np.testing.assert_array_equal(layer(x).data, np.float32(inference))
        out = layer(x, rng(1)).data
        assert out.dtype == np.float32 and set(np.unique(out)) == {np.float32(0), np.float32(training)}
        assert abs((out == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / x.size)
        np.testing.assert_array_equal(out, layer(x, rng(1)).data)
        assert not np.array_equal(out, layer(x, rng(2)).data)
    for wrong in [(1.5, "train"), (-0.1, "train"), (0.5, "never")]:
        with pytest.raises(ValueError, match="(Dropout: p|dropout: rescale) is"):
            nn.Dropout(*wrong)


def test_sequential_hands_the_generator_to_every_layer_in_order() -> None:
    layer, shared = nn.Dropout(0.5), rng(3)
    x = np.ones((4, 50))
    expected = layer(layer(x, shared), shared)
    np.testing.assert_array_equal(nn.Sequential(layer, nn.ReLU(), layer)(x, rng(3)).data, expected.data)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (tg.relu, r"layers\[1\] cannot be called .*: too many positional arguments"),
        (lambda x: x, "too many positional arguments; pass a layer such as tg.nn.ReLU"),
        (tg.softmax, "rng would be its axis"),  # which None would be, too, in inference
        (tg.gelu, "rng would be its approximate"),
        (tg.data.as_input, "rng would be its dtype"),
        ([nn.ReLU()], r"layers\[1\] is \[ReLU\(\)\]; it must be a function"),
    ],
)
def test_what_takes_no_generator_is_no_layer(wrong, words):
    with pytest.raises(TypeError, match=f"Sequential: .*{words}"):
        nn.Sequential(nn.ReLU(), wrong)


def test_functions_that_take_a_generator_are_layers():
    model = nn.Sequential(
        lambda x, rng=None: 2 * x, lambda x, generator: x + 1, lambda *arguments: tg.relu(arguments[0])
    )
    np.testing.assert_array_equal(model([-1.0, 2.0]).data, [0, 5])


def test_softmax_cross_entropy_is_the_loss() -> None:
    logits = rng(0).normal(size=(4, 3))
    assert nn.SoftmaxCrossEntropy()(logits, [0, 2, 1, 1]).item() == tg.cross_entropy(logits, [0, 2, 1, 1]).item()


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 1),
    st.sampled_from([-3, -1, 0]),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_exchanging_relu_and_max_pool_changes_nothing(
    seed: int, kernel: Any, stride: Any, padding: int, shift: int, dtype: Any, twice: bool
) -> None:
    draws = rng(seed)
    pool = nn.MaxPool2d(kernel, stride, tuple(min(padding, k // 2) for k in kernel))
    layers = [nn.ReLU(), pool, nn.ReLU(), nn.ReLU(), pool] if twice else [nn.ReLU(), pool]
    x = tg.Tensor(
        (draws.integers(-2, 3, (2, 2, 12, 11)) + shift).astype(dtype), requires_grad=True
    )  # many ties, zeros, negative windows
    plain: Any = x
    for layer in layers:
        plain = layer(plain)
    out = nn.Sequential(*layers)(x)
    np.testing.assert_array_equal(out.data, plain.data, strict=True)
    g = draws.integers(-4, 5, out.shape).astype(dtype)
    (result,), (expected,) = (tg.grad(y, [x], gradient=g) for y in (out, plain))
    np.testing.assert_array_equal(result.data, expected.data, strict=True)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["conv", "relu", "pool"]), max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
)
def test_merging_layers_changes_nothing(names: list[str], seed: int, dtype: Any) -> None:
    draws = rng(seed)
    made = {
        "conv": lambda: nn.Conv2d(2, 2, 3, padding=1, dtype=dtype),
        "relu": nn.ReLU,
        "pool": lambda: nn.MaxPool2d(2, 1, 1),
    }
    layers = [made[name]() for name in names]
    for layer in layers:
        for parameter in nn.parameters(layer).values():
            parameter.data = draws.integers(-1, 2, parameter.shape).astype(
                dtype
            )  # small whole numbers: sums are exact in any order
    x = tg.Tensor(draws.integers(-2, 3, (2, 2, 5, 4)).astype(dtype), requires_grad=True)
    wanted = [x, *nn.parameters(layers).values()]
    plain: Any = x
    for layer in layers:
        plain = layer(plain)
    out = nn.Sequential(*layers)(x)
    g = draws.integers(-2, 3, out.shape).astype(dtype)
    if not layers:
        assert out is x
        return
    for result, expected in zip(
        [out, *tg.grad(out, wanted, gradient=g)], [plain, *tg.grad(plain, wanted, gradient=g)], strict=True
    ):
        np.testing.assert_array_equal(result.data, expected.data, strict=True)


def test_merging_leaves_the_list_of_layers_and_other_classes_alone() -> None:
    class Shifted(nn.ReLU):
        def __call__(self, x: Any, rng: Any = None) -> Any:
            return tg.abs(x)

    x = np.array([[[[-5.0, 1.0], [2.0, 3.0]]]])
    layers = [Shifted(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers)
    assert model(x).item() == 5
    model = nn.Sequential(*(plain := [nn.ReLU(), nn.MaxPool2d(2)]))
    model(x)
    assert model.layers == plain

    class Scaled(nn.Conv2d):
        def __call__(self, x: Any, rng: Any = None) -> Any:  # takes no activation
            return 2 * super().__call__(x, rng)

    x, conv = np.ones((1, 1, 3, 3), np.float32), Scaled(1, 2, 3, rng=rng(0))
    np.testing.assert_array_equal(nn.Sequential(conv, nn.ReLU())(x).data, tg.relu(conv(x)).data)


# Parameters -----------------------------------------------------------------------------------------------------------
def leaf(*shape: int) -> tg.Tensor:
    return tg.Tensor(np.zeros(shape), requires_grad=True)


class Slotted:
    __slots__ = ("empty", "w")

    def __init__(self) -> None:
        self.w = leaf(3)


class Child(Slotted):
    __slots__ = "v"

    def __init__(self) -> None:
        super().__init__()
        self.v = leaf(4)


def test_parameters_are_found_in_the_order_of_attributes() -> None:
    model = SimpleNamespace(
        z=leaf(1),
        blocks=[nn.Linear(2, 3), (nn.ReLU(), nn.Conv2d(1, 2, 3))],
        a={"k": leaf(2), 5: [leaf(3)]},
        name="m",
        n=3,
        none=None,
        frozen=tg.Tensor([1.0]),
        array=np.zeros(3),
        function=np.sum,
        kind=nn.Linear,
        slotted=Child(),
        nested=SimpleNamespace(inner=leaf()),
    )
    expected = [
        "z",
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.1.weight",
        "blocks.1.1.bias",
        "a.k",
        "a.5.0",
        "slotted.w",
        "slotted.v",
        "nested.inner",
    ]
    found = nn.parameters(model)
    assert list(found) == expected == list(nn.parameters(model))
    assert found["z"] is model.z and found["slotted.v"] is model.slotted.v
    assert all(isinstance(p, tg.Tensor) and p.requires_grad for p in found.values())


def test_a_shared_parameter_is_listed_once_and_cycles_end() -> None:
    shared, a, b = nn.Linear(2, 2), SimpleNamespace(), SimpleNamespace()
    assert list(nn.parameters([shared, shared, {"again": shared.weight}])) == ["0.weight", "0.bias"]
    a.first, a.b, b.a, b.items, b.w = leaf(1), b, a, [a, b], leaf(2)
    b.items.append(b.items)
    assert list(nn.parameters(a)) == ["first", "b.w"]


@pytest.mark.parametrize(
    "nothing", [nn.ReLU(), None, 3, "text", [], {}, np.zeros(3), nn.Linear, len, nn.Sequential()], ids=repr
)
def test_what_holds_no_tensors_has_no_parameters(nothing: Any) -> None:
    assert nn.parameters(nothing) == {}


def test_results_of_ops_are_no_parameters() -> None:
    w = leaf(2)
    assert list(nn.parameters({"w": w, "activation": w * 2})) == ["w"]


def test_deep_models_are_walked_without_recursion() -> None:
    model: Any = leaf(1)
    for _ in range(20_000):
        model = [model]
    assert len(nn.parameters(model)) == 1


def make_model(seed: int, dtype: Any = np.float32) -> Any:
    return SimpleNamespace(
        a=nn.Linear(2, 3, rng=rng(seed), dtype=dtype), b=[nn.Conv2d(1, 2, 2, rng=rng(seed + 1), dtype=dtype)]
    )


def copies(model: Any) -> dict[str, Any]:
    return {name: p.data.copy() for name, p in nn.parameters(model).items()}


@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_loaded_parameters_are_copies_of_the_models_dtype(source: Any) -> None:
    model, values = make_model(0), copies(make_model(5, source))
    tensors = nn.parameters(model)
    nn.load_parameters(model, dict(reversed(values.items())))
    for name, value in values.items():
        assert nn.parameters(model)[name] is tensors[name] and tensors[name].requires_grad
        assert tensors[name].dtype == np.float32 and not np.shares_memory(tensors[name].data, value)
        np.testing.assert_array_equal(tensors[name].data, value.astype(np.float32))
    nn.load_parameters(make_model(1), nn.parameters(model))  # Tensors serve as well


def test_load_parameters_lists_every_difference_and_changes_nothing() -> None:
    model = make_model(0)
    before, values = copies(model), copies(make_model(5))
    del values["a.weight"]
    values |= {
        "extra": np.zeros(1),
        "more": np.zeros(1),
        "b.0.bias": np.zeros((2, 1)),
        "b.0.weight": np.zeros((2, 1, 2, 3)),
    }
    with pytest.raises(ValueError) as caught:
        nn.load_parameters(model, values)
    for part in (
        "a.weight",
        "extra",
        "more",
        "b.0.bias",
        "(2, 1)",
        "(2,)",
        "b.0.weight",
        "(2, 1, 2, 3)",
        "(2, 1, 2, 2)",
    ):
        assert part in str(caught.value)
    assert "a.bias" not in str(caught.value)
    for name, value in copies(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("bad", [np.array([None, None]), np.array(["one", "two"])], ids=["objects", "text"])
def test_values_that_are_no_numbers_change_nothing(bad: Any) -> None:
    model = make_model(0)
    before, values = copies(model), copies(make_model(5)) | {"b.0.bias": bad}
    with pytest.raises((TypeError, ValueError)):
        nn.load_parameters(model, values)
    for name, value in copies(model).items():
        np.testing.assert_array_equal(value, before[name])


# Whitening ------------------------------------------------------------------------------------------------------------
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(3, 7), st.integers(3, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_whitening_filters_make_outputs_uncorrelated(shape, kernel, dtype, seed, data):
    images = np.random.default_rng(seed).gamma(1.0, size=shape).astype(dtype).cumsum(axis=2)  # rows are correlated
    count, eps = data.draw(st.integers(1, shape[1] * kernel[0] * kernel[1])), 0.01
    filters = tg.nn.whitening_filters(images, 2 * count, kernel, eps)
    assert filters.shape == (2 * count, shape[1], *kernel) and filters.dtype == np.float32
    np.testing.assert_array_equal(filters[:count], -filters[count:])
    patches = [
        images[n, :, i : i + kernel[0], j : j + kernel[1]].ravel()
        for n in range(shape[0])
        for i in range(shape[2] - kernel[0] + 1)
        for j in range(shape[3] - kernel[1] + 1)
    ]
    largest = np.sort(np.linalg.eigvalsh(np.atleast_2d(np.cov(np.transpose(patches), bias=True))))[::-1][:count]
    out = tg.conv2d(images.astype(np.float64), filters[:count].astype(np.float64)).data  # (N, count, OH, OW)
    found = np.atleast_2d(np.cov(np.moveaxis(out, 1, 0).reshape(count, -1), bias=True))
    np.testing.assert_allclose(found, np.diag(largest / (largest + eps)), atol=1e-4)


def test_whitening_filters_have_one_sign_and_order():
    images = np.random.default_rng(0).random((20, 1, 9, 9))
    filters = tg.nn.whitening_filters(images, 8, 2)
    np.testing.assert_array_equal(tg.nn.whitening_filters(tg.Tensor(images), 8, (2, 2)), filters)
    np.testing.assert_allclose(tg.nn.whitening_filters(images[::-1], 8, 2), filters, rtol=1e-3, atol=1e-4)
    flat = filters[:4].reshape(4, -1)
    assert (np.take_along_axis(flat, abs(flat).argmax(1)[:, None], 1) > 0).all()


@pytest.mark.parametrize(
    ("images", "filters", "kernel", "message"),
    [
        (np.zeros((2, 1, 4, 4), np.uint8), 4, 3, r"images are uint8 \(2, 1, 4, 4\).*pass floats \(N, C, H, W\)"),
        (np.zeros((2, 4, 4)), 4, 3, r"float64 \(2, 4, 4\)"),
        (np.zeros((0, 1, 4, 4)), 4, 3, r"\(0, 1, 4, 4\)"),
        (np.zeros((2, 1, 4, 2)), 4, 3, "the kernel is 3 x 3"),
        (np.full((2, 1, 4, 4), np.nan), 4, 3, "images hold a NaN or an infinity"),
        (np.zeros((2, 1, 4, 4)), 5, 3, "filters is 5; it must be even, and at most 18 for 9 values"),
        (np.zeros((2, 1, 4, 4)), 20, 3, "filters is 20; it must be even, and at most 18"),
    ],
)
def test_whitening_filters_explain_what_is_wrong(images, filters, kernel, message):
    with pytest.raises(ValueError, match=f"whitening_filters: .*{message}"):
        tg.nn.whitening_filters(images, filters, kernel)
