"""Variance, products, running sums and medians: values as in NumPy, right derivatives, zeros, ties and NaNs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Shape, agree, dtypes, orders, seeds, shapes, some
from planted import distinct, fixed, normal, only_at, plants, signed, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays, check_gradients

REDUCTIONS = ["var", "std", "prod", "median"]
RUNNING = ["cumsum", "cumprod"]


def derivatives(function: Callable[..., Tensor], x: Any, g: Any, h: Any) -> tuple[Array, Array]:
    """Return the gradient for the cotangent `g`, and the gradient of that for `h`."""
    leaf = Tensor(np.array(x), requires_grad=True)
    (first,) = tg.grad(function(leaf), [leaf], create_graph=True, gradient=g)
    (second,) = tg.grad(first, [leaf], gradient=h)
    return first.data, second.data


# Any axes -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REDUCTIONS)
@some
@given(st.data(), shapes, st.booleans(), orders, seeds)
def test_reductions_over_any_axes(name: str, data: Any, shape: Shape, keepdims: bool, order: int, seed: int) -> None:
    axis = data.draw(tg.testing.axes(len(shape)))
    assume(name != "median" or axis != () or 0 not in shape)  # NumPy cannot reshape these
    x = data.draw(arrays(shape, np.float64 if order == 2 else dtypes, low=-1.5, high=1.5, distinct=True))
    how: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if name in ("var", "std"):
        how[data.draw(st.sampled_from(["ddof", "correction"]))] = data.draw(st.sampled_from([0, 1, 0.5, 2]))
    try:
        with np.errstate(all="raise"):
            expected = getattr(np, name)(x, **how)
    except (ValueError, FloatingPointError, RuntimeWarning):
        with pytest.raises(ValueError, match=name):
            getattr(tg, name)(x, **how)
    else:
        agree(lambda lib, x: getattr(lib, name)(x, **how), x, order=order, seed=seed)
        if name != "median":
            assert getattr(Tensor(x), name)(**how).shape == expected.shape


@pytest.mark.parametrize("name", [*RUNNING, "prod"])
@pytest.mark.parametrize("axis", [0, -1])
def test_a_number_has_an_axis_as_in_numpy(name: str, axis: int) -> None:
    expected = getattr(np, name)(np.float64(3), axis=axis)
    out = getattr(tg, name)(3.0, axis)
    assert out.shape == expected.shape and out.data == expected
    cotangent = np.full(expected.shape, 5.0)
    assert derivatives(lambda x: getattr(tg, name)(x, axis), 3.0, cotangent, np.array(1.0)) == (5, 0)


@pytest.mark.parametrize("name", RUNNING)
@some
@given(st.data(), shapes, orders, seeds)
def test_running_sums_and_products(name: str, data: Any, shape: Shape, order: int, seed: int) -> None:
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1)) if shape else None
    x = data.draw(arrays(shape, np.float64 if order == 2 else dtypes, low=-1.5, high=1.5))
    agree(lambda lib, x: getattr(lib, name)(x, axis), x, order=order, seed=seed)
    assert np.array_equal(getattr(Tensor(x), name)(axis=axis).data, getattr(tg, name)(x, axis).data)


@pytest.mark.parametrize("name", REDUCTIONS + RUNNING)
def test_dtypes_are_those_of_numpy(name: str) -> None:
    """Integers are added up and multiplied as int64, statistics of them are float64; none carries a gradient."""
    for dtype in (np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64, np.longdouble):
        x = np.array([[2, 0, 3], [1, 1, 2]], dtype)
        for axis in (0, 1, None):
            out, expected = getattr(tg, name)(x, axis=axis), np.asarray(getattr(np, name)(x, axis=axis))
            assert out.dtype == expected.dtype and not out.requires_grad
            np.testing.assert_allclose(out.data, expected, rtol=1e-3 if dtype == np.float16 else 1e-6)


def test_halves_are_computed_in_single_precision() -> None:
    halves = np.full(4100, 0.25, np.float16)
    assert tg.cumsum(halves).data[-1] == 1025
    assert tg.prod(np.array([300, 300, 0.002, 0.002], np.float16)).item() == pytest.approx(0.36, rel=2e-3)
    assert tg.cumprod(np.array([0.002, 0.0002, 300, 300], np.float16)).data[-1] == pytest.approx(0.036, rel=2e-3)
    wide = np.array([400, -400, 300, 0], np.float16)
    assert tg.std(wide).item() == pytest.approx(np.std(wide.astype(float)), rel=1e-3)
    (gradient,) = tg.grad(tg.var(x := Tensor(wide / 20, requires_grad=True)), [x])
    assert gradient.dtype == np.float16
    np.testing.assert_allclose(gradient.data, (wide / 20 - np.mean(wide / 20)) / 2, rtol=1e-3)


@pytest.mark.parametrize("name", [*REDUCTIONS, *RUNNING])
@some
@given(st.data(), seeds)
def test_nans_and_infinities_are_where_numpy_has_them(name: str, data: Any, seed: int) -> None:
    rng, axis = np.random.default_rng(seed), data.draw(st.sampled_from([0, 1, -1, None]))
    x = np.where(
        rng.random((3, 4)) < 0.2, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], (3, 4)), rng.normal(size=(3, 4))
    )
    with np.errstate(all="ignore"):
        out, expected = getattr(tg, name)(x, axis=axis).data, getattr(np, name)(x, axis=axis)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    if name != "var":
        np.testing.assert_array_equal(np.signbit(out[out == 0]), np.signbit(np.asarray(expected)[expected == 0]))


# Products with zeros --------------------------------------------------------------------------------------------------
def others(x: Array, *left_out: int) -> float:
    return math.prod(float(v) for i, v in enumerate(x) if i not in left_out)


@given(hnp.arrays(np.float64, st.integers(1, 6), elements=st.integers(-2, 2).map(float)), seeds)
def test_derivatives_of_products_are_exact_where_elements_are_zero(x: Array, seed: int) -> None:
    """Whole numbers, of which one, some or all are 0: products of all others, and of all but two."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(-3, 4), rng.integers(-3, 4, x.shape).astype(float)
    first, second = derivatives(tg.prod, x, np.float64(g), h)
    places = range(len(x))
    assert first.tolist() == [g * others(x, i) for i in places]
    assert second.tolist() == [g * sum(h[i] * others(x, i, j) for i in places if i != j) for j in places]
    rows = rng.integers(-3, 4, x.shape).astype(float)
    first, second = derivatives(tg.cumprod, x, rows, h)
    ends = [(rows[k], x[: k + 1]) for k in places]
    assert first.tolist() == [sum(w * others(part, i) for w, part in ends if i < len(part)) for i in places]
    assert second.tolist() == [
        sum(w * h[i] * others(part, i, j) for w, part in ends for i in range(len(part)) if i != j and j < len(part))
        for j in places
    ]


@pytest.mark.parametrize("function", [tg.prod, lambda x: tg.cumprod(x, 1), lambda x: tg.prod(x, 0)])
def test_third_derivatives_of_products_with_zeros(function: Any) -> None:
    check_gradients(function, np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 3.0]]), order=3)


def test_a_running_sum_passes_on_infinity_only_to_what_came_before() -> None:
    (gradient,) = tg.grad(tg.cumsum(x := Tensor(np.ones(3), requires_grad=True)), [x], gradient=[1.0, np.inf, 2.0])
    assert gradient.data.tolist() == [np.inf, np.inf, 2.0]


def test_long_axes() -> None:
    """Beyond what is looped over: the closed form of a geometric series."""
    count, ratio = 2000, 1.001
    x = np.full((2, count), ratio)
    g = np.ones((2, count))
    first, second = derivatives(lambda x: tg.cumprod(x, 1), x, g, np.ones_like(x))
    powers = ratio ** np.arange(count)  # after k elements, k ratio**(k - 1) in all
    tails = np.cumsum(powers[::-1])[::-1]
    np.testing.assert_allclose(first[0], tails, rtol=1e-11)
    counts = np.arange(count)
    rest = np.cumsum((counts * ratio ** (counts - 1.0))[::-1])[::-1]
    np.testing.assert_allclose(second[1], rest, rtol=1e-11)


# Spread ---------------------------------------------------------------------------------------------------------------
@given(st.sampled_from([0.0, 0.1, -3.7, 1e200, 1e-310]), st.integers(1, 7), dtypes, seeds)
def test_the_standard_deviation_of_equal_elements_has_no_gradient(value: float, n: int, dtype: Any, seed: int) -> None:
    """Not even where their mean is rounded to something else, and none of second order."""
    value = float(np.clip(value, -1e30, 1e30)) if dtype is np.float32 else value
    rng = np.random.default_rng(seed)
    x = np.stack([np.full(n, value), rng.normal(size=n)]).astype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        h = np.stack([np.full(n, np.inf), rng.normal(size=n)])
        first, second = derivatives(lambda x: tg.std(x, 1), x, np.array([np.inf, 1], dtype), h)
    assert not first[0].any() and not second[0].any()
    assert n == 1 or (first[1].any() and np.isfinite(second).all())


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-550, 2.0**550, 2.0**1000])
def test_the_gradient_of_the_standard_deviation_does_not_depend_on_the_scale(scale: float) -> None:
    x, h = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, -1.0]]), np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]])
    right, curved = derivatives(lambda x: tg.std(x, 1), x, np.ones(2), h)
    with np.errstate(over="ignore", under="ignore"):
        first, second = derivatives(lambda x: tg.std(x, 1), x * scale, np.ones(2), h)
    np.testing.assert_array_equal(first, right)
    np.testing.assert_array_equal(second * scale, curved)


@given(arrays((3, 4), distinct=True), seeds, st.sampled_from([0, 1]))
def test_the_variance_is_the_mean_square_less_the_squared_mean(x: Array, seed: int, ddof: int) -> None:
    """The formula of the textbook, in ops that are tested elsewhere, has the same derivatives."""

    def textbook(x: Tensor) -> Tensor:
        return (tg.mean(x * x, 1) - tg.mean(x, 1) ** 2) * (4 / (4 - ddof))

    rng = np.random.default_rng(seed)
    x, g, h = x / np.max(np.abs(x)), rng.normal(size=3), rng.normal(size=(3, 4))
    found = derivatives(lambda x: tg.var(x, 1, ddof), x, g, h)
    for ours, theirs in zip(found, derivatives(textbook, x, g, h), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


# Median ---------------------------------------------------------------------------------------------------------------
@given(hnp.arrays(np.float64, st.integers(1, 7), elements=st.integers(0, 2).map(float) | st.just(math.nan)))
def test_the_gradient_of_a_median_goes_to_the_middle_of_a_stable_sort(x: Array) -> None:
    leaf = Tensor(x, requires_grad=True)
    (gradient,) = tg.grad(tg.median(leaf), [leaf], gradient=4.0)
    expected = np.zeros(len(x))
    if np.isnan(x).any():
        expected[[i for i, v in enumerate(x) if math.isnan(v)][0]] = 4
    else:
        order = sorted(range(len(x)), key=lambda i: x[i])  # Python's sort is stable
        for place in {(len(x) - 1) // 2, len(x) // 2}:
            expected[order[place]] = 4 if len(x) % 2 else 2
    assert gradient.data.tolist() == expected.tolist()


# PyTorch --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["var", "std", "prod", *RUNNING])
@pytest.mark.parametrize("kind", ["normal", "zeros", "inf"])
@some
@given(seeds)
def test_gradients_where_those_of_pytorch_are_finite_are_the_same(name: str, kind: str, seed: int) -> None:
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(seed)
    x, h = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    x = np.where(rng.random(x.shape) < 0.3, {"normal": x, "zeros": 0.0, "inf": np.inf}[kind], x)
    theirs = torch.tensor(x, requires_grad=True)
    out = getattr(torch, name)(theirs, 1, **({"correction": 1} if name in ("var", "std") else {}))
    g = rng.normal(size=out.shape)
    (first,) = torch.autograd.grad(out, theirs, torch.tensor(g), create_graph=True)
    expected = [first.detach().numpy(), np.zeros_like(x)]
    if first.requires_grad:
        expected[1] = torch.autograd.grad(first, theirs, torch.tensor(h))[0].numpy()
    how = {"ddof": 1} if name in ("var", "std") else {}
    with np.errstate(all="ignore"):
        for ours, right in zip(derivatives(lambda x: getattr(tg, name)(x, 1, **how), x, g, h), expected, strict=True):
            finite = np.isfinite(right)
            np.testing.assert_allclose(ours[finite], right[finite], rtol=1e-10, atol=1e-10)


# Errors ---------------------------------------------------------------------------------------------------------------
X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, r"var\(float64 \(2, 3\)\).*there are 2 elements, and with ddof=2", lambda: tg.var(X, 0, 2)),
        (ValueError, r"std\(float64 \(0, 3\)\).*there are 0 elements", lambda: tg.std(X[:0], 0)),
        (ValueError, "var: pass ddof or correction, not both", lambda: tg.var(X, ddof=1, correction=1)),
        (ValueError, "std: correction is -1; it must be", lambda: tg.std(X, correction=-1)),
        (IndexError, r"std\(float64 \(2, 3\)\).*axis 2", lambda: tg.std(X, 2)),
        (IndexError, r"prod\(float64 \(2, 3\)\).*axis -3", lambda: tg.prod(X, -3)),
        (IndexError, r"cumsum\(float64 \(2, 3\)\).*axis 2", lambda: tg.cumsum(X, 2)),
        (IndexError, r"cumprod\(float64 \(2, 3\)\).*axis 2", lambda: tg.cumprod(X, 2)),
        (IndexError, r"median\(float64 \(2, 3\)\).*axis 2", lambda: tg.median(X, 2)),
        (ValueError, r"median\(float64 \(0, 3\)\): axis 0 is empty", lambda: tg.median(X[:0], 0)),
        (TypeError, r"median\(float64 \(2, 3\)\).*integer", lambda: tg.median(X, "rows")),  # type: ignore[arg-type]
        (TypeError, "numpy.var: Tensors do not take dtype here", lambda: np.var(Tensor(X), dtype=np.float32)),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------
plants("var: without the factor 2", lambda x: tg.var(x, 1), normal((2, 3)))(lambda right, *rest: right / 2)
plants("var: ddof forgotten", lambda x: tg.var(x, 0, ddof=1), normal((4, 2)))(lambda right, *rest: right * 3 / 4)


@plants("var: the mean is not subtracted", lambda x: tg.var(x, 1), normal((2, 3)), kind="choice")
def _(right, g, out, x):
    return tg.expand_dims(g, 1) * x * (2 / 3)


@plants("var: the mean of all", lambda x: tg.var(x, 0), normal((3, 2)), kind="axes")
def _(right, g, out, x):
    return g * (x - tg.mean(x)) * (2 / 3)


@plants("var: cotangent constant", tg.var, normal((4,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * (x - tg.mean(x).detach()) / 2


plants("std: as for var", lambda x: tg.std(x, 1), normal((2, 3)))(
    lambda right, g, out, x: vjp(lambda x: tg.var(x, 1), 0, g, x)
)


@plants("std: the output is constant", tg.std, distinct((4,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * (x - tg.mean(x)) / (4 * out.detach())


@plants("std: nonzero for equal elements", lambda x: tg.std(x, 1), fixed([[2, 2, 2], [1, 3, 4]]), kind="kinks")
def _(right, g, out, x):
    return right + tg.expand_dims(g * (out == 0), 1)


@plants("prod: divided by the element", tg.prod, fixed([2, 0, 3]), kind="some entries")
def _(right, g, out, x):
    return g * out / tg.where(x == 0, 1.0, x)


@plants("prod: two zeros taken for one", tg.prod, fixed([0, 2, 0, 3]), kind="some entries")
def _(right, g, out, x):
    return g * tg.prod(tg.where(x == 0, 1.0, x)) * (x == 0)


@plants("prod: over the wrong axis", lambda x: tg.prod(x, 0), signed((3, 3)), kind="axes")
def _(right, g, out, x):
    return vjp(lambda x: tg.prod(x, 1), 0, g, x)


@plants("prod: others constant", tg.prod, signed((3,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * (out / x).detach()


@plants("prod: others of others constant", tg.prod, signed((3,)), kind="third order", order=3)
def _(right, g, out, x):
    first = [g * tg.stack([x[j] for j in range(3) if j != i]).prod() for i in range(3)]
    constant = tg.stack([tg.prod(x.detach()) / (x.detach()[i]) for i in range(3)])
    pairs = tg.prod(x.detach()) / (tg.expand_dims(x.detach(), 1) * tg.expand_dims(x.detach(), 0)) * (1 - np.eye(3))
    second = g * (constant + pairs @ (x - x.detach()))
    return second + (tg.stack(first) - second).detach()


plants("cumsum: not reversed", tg.cumsum, normal((4,)), kind="axes")(lambda right, g, out, x: tg.cumsum(g))
plants("cumsum: without the element itself", lambda x: tg.cumsum(x, 1), normal((2, 3)), kind="some entries")(
    lambda right, g, out, x: right - g
)


@plants("cumsum: rows run on", lambda x: tg.cumsum(x, 1), normal((2, 3)), kind="axes")
def _(right, g, out, x):
    return vjp(lambda x: tg.reshape(tg.cumsum(x), 2, 3), 0, g, x)


@plants("cumprod: only the element's own product", tg.cumprod, signed((4,)), kind="some entries")
def _(right, g, out, x):
    return g * out / x


@plants("cumprod: divided by the element", tg.cumprod, fixed([2, 0, 3, 1]), kind="some entries")
def _(right, g, out, x):
    return tg.cumsum((g * out)[::-1])[::-1] / tg.where(x == 0, 1.0, x)


@plants("cumprod: the products are constant", tg.cumprod, signed((3,)), kind="second order", order=2)
def _(right, g, out, x):
    return tg.cumsum((g * out)[::-1])[::-1].detach() / x


@plants("cumprod: later factors are constant", tg.cumprod, signed((3,)), kind="second order", order=2)
def _(right, g, out, x):
    before = tg.concatenate([np.ones(1), out[:-1]])
    return right.detach() / before.detach() * before


@plants("median: to the lower of two", tg.median, distinct((4,)), kind="choice")
def _(right, g, out, x):
    return only_at(g * np.ones(4), np.argsort(x.data)[1])


@plants("median: to all ties", tg.median, fixed([1, 2, 2, 3, 2]), kind="kinks")
def _(right, g, out, x):
    return g * (x == out)


@plants("median: one position for all rows", lambda x: tg.median(x, 1), distinct((3, 3)), kind="indices")
def _(right, g, out, x):
    return tg.expand_dims(g, 1) * (np.arange(3) == np.argsort(x.data[0])[1])
