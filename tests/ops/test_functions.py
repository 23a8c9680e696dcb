"""More elementwise functions: values as in NumPy and in the standard library, right derivatives."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Function, agree, dtypes, gradients_of_sum, orders, seeds, shapes, some
from planted import between, distinct, fixed, normal, plants, signed

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays, broadcastable_shapes

each_of = np.vectorize(math.erf, otypes=[np.float64])


def numpy_erf(x: Array) -> Array:
    return np.asarray(each_of(x) if x.size else x).astype(x.dtype)


NUMPY = SimpleNamespace(**vars(np), erf=numpy_erf)
INTERVALS: dict[str, tuple[float, float]] = {
    "log1p": (-0.5, 3),
    "expm1": (-2, 2),
    "log2": (0.5, 3),
    "square": (-2, 2),
    "reciprocal": (0.5, 3),
    "erf": (-3, 3),
}


@pytest.mark.parametrize("name", INTERVALS)
@some
@given(st.data(), shapes, orders, seeds)
def test_functions_of_one_variable(name: str, data: Any, shape: Any, order: int, seed: int) -> None:
    low, high = INTERVALS[name]
    x = data.draw(arrays(shape, dtypes, low=low, high=high))
    agree(lambda lib, x: getattr(lib, name)(x), x, order=order, seed=seed, numpy=NUMPY)
    assert np.array_equal(getattr(Tensor(x), name)().data, getattr(tg, name)(x).data)


@some
@given(st.data(), broadcastable_shapes(2, max_dims=2, max_side=2), orders, seeds)
def test_logaddexp(data: Any, drawn: Any, order: int, seed: int) -> None:
    x, y = (data.draw(arrays(shape, dtypes, low=-4, high=4)) for shape in drawn)
    if data.draw(st.booleans()):
        agree(lambda lib, x, y: lib.logaddexp(x, y), x, y, order=order, seed=seed)
    else:
        agree(lambda lib, x: lib.logaddexp(x, 1.0) - lib.logaddexp(-1, x), x, order=order, seed=seed)


@given(hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]), 5, elements=st.floats(width=16)))
def test_what_has_no_slope(x: Array) -> None:
    for name in ("floor", "ceil", "isnan", "isinf", "isfinite"):
        leaf = Tensor(x, requires_grad=True)
        out, expected = getattr(leaf, name)(), getattr(np, name)(x)
        np.testing.assert_array_equal(out.data, expected, strict=True)
        assert out.requires_grad == (name in ("floor", "ceil"))
        if out.requires_grad:
            g = np.array([np.inf, np.nan, 1, -1, 0], x.dtype)
            assert tg.grad(out, [leaf], gradient=g)[0].data.tolist() == [0] * 5


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.bool_])
def test_integers_and_booleans_are_those_of_numpy(dtype: Any) -> None:
    x = np.array([1, 0, 1], dtype)
    for name in ("log1p", "expm1", "square", "isnan", "isinf", "isfinite"):
        np.testing.assert_array_equal(getattr(tg, name)(x).data, getattr(np, name)(x), strict=True)
    np.testing.assert_array_equal(tg.reciprocal(np.array([1, 2, -1])).data, [1, 0, -1])
    np.testing.assert_allclose(tg.erf(x).data, numpy_erf(x.astype(np.float64)), rtol=1e-15)


# The error function ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dtype", "ulps"), [(np.float64, 2), (np.float32, 1), (np.float16, 1)])
def test_erf_is_right_to_the_last_places(dtype: Any, ulps: float) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-7, 7, 4001), rng.normal(size=2000), np.exp2(rng.uniform(-120, 10, 1000))])
    x = np.concatenate([x.astype(dtype), np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1], dtype)])
    out, true = tg.erf(x).data, each_of(x)
    assert out.dtype == dtype
    np.testing.assert_array_equal(np.signbit(out)[:-7], np.signbit(true)[:-7])
    known, info = ~np.isnan(x), np.finfo(dtype)
    assert np.isnan(out[~known]).all()
    last_places = np.exp2(np.floor(np.log2(np.maximum(np.abs(true), info.tiny)))) * info.eps
    assert (np.abs(out - true) <= ulps * last_places)[known].all()


def test_erf_of_large_arrays_in_any_memory_order() -> None:
    x = np.random.default_rng(0).normal(size=(2, 300, 512))
    for y in (x, x.T, x[:, ::2], np.broadcast_to(x[0], (2, 300, 512))):
        np.testing.assert_array_equal(tg.erf(y).data, tg.erf(np.ascontiguousarray(y).ravel()).data.reshape(y.shape))


# Awkward numbers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (tg.log1p, [[-0.0, 0, np.inf]], [[1, 1, 0]]),
        (tg.expm1, [[-np.inf, 0]], [[0, 1]]),
        (tg.square, [[-np.inf, 0, 1e300]], [[-np.inf, 0, 2e300]]),
        (tg.reciprocal, [[np.inf, 1e-200, 1e300]], [[0, -np.inf, 0]]),
        (tg.erf, [[-np.inf, 1e200, np.inf]], [[0, 0, 0]]),
        (tg.logaddexp, [[np.inf, -np.inf, 1e4, -1e4, 5], [1, 1, 0, 0, 5]], [[1, 0, 1, 0, 0.5], [0, 1, 0, 1, 0.5]]),
        (tg.logaddexp, [[np.inf, -np.inf], [-np.inf, np.inf]], [[1, 0], [0, 1]]),
        (lambda x: tg.logaddexp(x, x), [[3, -2]], [[1, 1]]),
    ],
)
def test_limits(function: Function, values: Any, expected: Any) -> None:
    with np.errstate(over="ignore"):
        assert gradients_of_sum(function, *values) == expected


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_the_gradient_of_equal_infinities_is_not_a_number(infinity: float) -> None:
    """As in PyTorch: which of them grows faster is unknown."""
    x, y = (Tensor([infinity, 0.0], requires_grad=True) for _ in range(2))
    out = tg.logaddexp(x, y)
    np.testing.assert_array_equal(out.data, np.logaddexp(x.data, y.data))
    for g in tg.grad(out, [x, y], gradient=np.ones(2)):
        np.testing.assert_array_equal(g.data, [np.nan, 0.5])


def test_an_infinite_cotangent_of_logaddexp_stays_infinite() -> None:
    """The correction by the rounding of the difference is finite."""
    x, y = Tensor([3.0, 1e8], requires_grad=True), Tensor([0.0002, 1e8 - 0.3], requires_grad=True)
    for g in tg.grad(tg.logaddexp(x, y), [x, y], gradient=np.array([np.inf, -np.inf])):
        np.testing.assert_array_equal(g.data, [np.inf, -np.inf])


def test_nan_passes_without_a_warning() -> None:
    for function in (tg.log1p, tg.expm1, tg.log2, tg.square, tg.reciprocal, tg.erf, lambda x: tg.logaddexp(x, 0.0)):
        x = Tensor([np.nan, 1.0], requires_grad=True)
        out = function(x)
        (g,) = tg.grad(out, [x], gradient=np.ones(2))
        assert np.isnan(out.data).tolist() == np.isnan(g.data).tolist() == [True, False]


# Planted errors -------------------------------------------------------------------------------------------------------
plants("log1p: that of log", tg.log1p, between(0.5, 2, (3,)), kind="choice")(lambda right, g, out, x: g / x)
plants("expm1: times the output", tg.expm1, normal((3,)), kind="choice")(lambda right, g, out, x: g * out)
plants("log2: that of log", tg.log2, between(0.5, 2, (3,)))(lambda right, g, out, x: g / x)
plants("square: without 2", tg.square, normal((3,)))(lambda right, g, out, x: g * x)
plants("reciprocal: sign exchanged", tg.reciprocal, between(0.5, 2, (3,)), kind="sign")(lambda right, *rest: -right)
plants("erf: without its factor", tg.erf, normal((3,)))(lambda right, g, out, x: g * tg.exp(-x * x))
plants("erf: of the normal distribution", tg.erf, signed((3,)), kind="choice")(
    lambda right, g, out, x: right * tg.exp(x * x / 2)
)
plants("logaddexp: weights exchanged", tg.logaddexp, distinct((3,), (3,)), kind="choice")(
    [lambda right, g, out, x, y: g * tg.sigmoid(y - x), lambda right, g, out, x, y: g * tg.sigmoid(x - y)]
)
plants("logaddexp: not summed", tg.logaddexp, normal((2, 3), (3,)), kind="broadcasting", argument=1)(
    lambda right, g, out, x, y: (g * tg.sigmoid(y - x))[0]
)
plants("logaddexp: the larger gets all", tg.logaddexp, distinct((3,), (3,)), kind="steps", argument=0)(
    lambda right, g, out, x, y: g * (x > y)
)
plants("erf: slope constant", tg.erf, fixed([0.5, -1.0]), kind="second order", order=2)(
    lambda right, g, out, x: g * Tensor(2 / math.sqrt(math.pi) * np.exp(-(x.data**2)))
)
plants("logaddexp: weight constant", tg.logaddexp, normal((3,), (3,)), kind="second order", order=2, argument=0)(
    lambda right, g, out, x, y: g * tg.sigmoid(x - y).detach()
)


def straight_through(right: Tensor, g: Tensor, *rest: Tensor) -> Tensor:
    return g


plants("floor: straight through", tg.floor, between(0.2, 0.8, (3,)), kind="steps")(straight_through)
plants("ceil: straight through", tg.ceil, between(0.2, 0.8, (3,)), kind="steps")(straight_through)
for _kind in (tg.isnan, tg.isinf, tg.isfinite):
    plants(
        f"{_kind.__name__}: straight through",
        lambda x, op=_kind: tg.astype(op(x), np.float64),
        signed((3,)),
        kind="steps",
        within=lambda op, x: (op(x) + 1) * x,
    )(straight_through)
