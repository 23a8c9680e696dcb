"""Batch, layer and group normalization against the formulas and their Jacobian, group by group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, dtypes, seeds
from planted import normal, plants, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import check_gradients

EXTENDED = np.finfo(np.longdouble).nmant > 52
KINDS = ["batch", "layer", "group"]
ULPS = 8  # an input, a cotangent and a weight are exact; some roundings are left


class Case(NamedTuple):
    """What is normalized together has the same number in `groups`; what has the same weight, in `weights`."""

    call: Callable[..., Tensor]  # (x, weight, bias)
    groups: Array
    weights: Array
    shape: tuple[int, ...]  # of the weight


def make(kind: str, shape: tuple[int, ...], divisor: int = 1, last: int = 1, eps: float = 1e-5) -> Case:
    places = np.indices(shape)
    if kind == "layer":
        lead, tail = shape[: len(shape) - last], shape[len(shape) - last :]
        groups, weights = (
            np.arange(math.prod(lead)).reshape(*lead, *[1] * last),
            np.arange(math.prod(tail)).reshape(tail),
        )
        given_: Callable[..., Tensor] = lambda x, w=None, b=None: tg.layer_norm(x, tail, w, b, eps)  # noqa: E731
        return Case(given_, np.broadcast_to(groups, shape), np.broadcast_to(weights, shape), tail)
    if kind == "batch":
        return Case(lambda x, w=None, b=None: tg.batch_norm(x, None, None, w, b, eps), places[1], places[1], shape[1:2])
    groups = places[0] * divisor + places[1] * divisor // shape[1]
    return Case(lambda x, w=None, b=None: tg.group_norm(x, divisor, w, b, eps), groups, places[1], shape[1:2])


def cases(draw: Any, kind: str, eps: float = 1e-5) -> tuple[Case, tuple[int, ...]]:
    divisor = draw(st.integers(1, 3))
    rest = draw(st.lists(st.integers(1, 4), max_size=2))
    shape = (draw(st.integers(2, 4)), divisor * draw(st.integers(1, 3)), *rest)
    return make(kind, shape, divisor, draw(st.integers(1, len(shape))), eps), shape


def exact(case: Case, x: Array, w: Array, b: Array, g: Array, eps: float) -> tuple[Array, Array, Array, Array]:
    """Output and gradients by x, weight and bias, group by group, by the Jacobian of each, in extended precision."""
    x, w, b, g = (a.astype(np.longdouble) for a in (x, w, b, g))
    y, gx, gw, gb = np.empty_like(x), np.empty_like(x), np.zeros_like(w), np.zeros_like(b)
    for k in np.unique(case.groups):
        here = case.groups == k
        v, size = x[here], int(here.sum())
        deviation = np.sqrt(((v - v.mean()) ** 2).mean() + np.longdouble(eps))
        y[here] = (v - v.mean()) / deviation
        jacobian = (np.eye(size) - 1 / np.longdouble(size) - np.outer(y[here], y[here]) / size) / deviation
        gx[here] = jacobian @ (g[here] * w.ravel()[case.weights[here]])
    np.add.at(gw.reshape(-1), case.weights, g * y)
    np.add.at(gb.reshape(-1), case.weights, g)
    return y * w.ravel()[case.weights] + b.ravel()[case.weights], gx, gw, gb


def results(case: Case, x: Array, w: Array, b: Array, g: Array) -> list[Array]:
    leaves = [Tensor(a, requires_grad=True) for a in (x, w, b)]
    out = case.call(*leaves)
    return [out.data, *(t.data for t in tg.grad(out, leaves, gradient=g))]


def close(found: Array, expected: Array, magnitude: Any, dtype: Any, ulps: int = ULPS) -> None:
    assert found.dtype == dtype and found.shape == expected.shape
    info = np.finfo(dtype)
    bound = ulps * (float(info.eps) * np.abs(magnitude) + float(info.smallest_subnormal))
    within = np.abs(found.astype(np.longdouble) - expected) <= bound
    assert within.all(), np.abs(found - expected)[~within] / np.broadcast_to(bound, within.shape)[~within]


def in_order(x: Array, rng: np.random.Generator) -> Array:
    """The same values in another memory order."""
    order = rng.permutation(x.ndim)
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


# Values and gradients -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]), st.sampled_from([0, 1, 30]), seeds)
def test_each_group_is_normalized(kind: str, data: Any, dtype: Any, offset: int, seed: int) -> None:
    eps = data.draw(st.sampled_from([1e-5, 1e-2, 3.0]))
    (case, shape), rng = cases(data.draw, kind, eps), np.random.default_rng(seed)
    x, g = (in_order(rng.normal(size=shape).astype(dtype), rng) for _ in range(2))
    x, g = x * dtype(rng.choice([0.25, 1, 16])) + dtype(offset), g * dtype(rng.choice([2.0**-6, 1, 8]))
    w, b = (rng.normal(size=case.shape).astype(dtype) for _ in range(2))
    found, expected = results(case, x, w, b, g), exact(case, x, w, b, g, eps)
    distance = x - x.astype(np.longdouble).mean()
    cancelled = np.abs(x).max() if dtype == np.float64 else 0  # float32 and float16 are computed in float64
    noise = 1 + cancelled / np.sqrt(eps)
    steepness = (np.abs(w).max() * np.abs(g).max() + np.abs(g).max()) / np.sqrt(eps)
    close(found[0], expected[0], noise * (1 + np.abs(w).max() * x.size + np.abs(b).max()), dtype)
    for a, e in zip(found[1:], expected[1:], strict=True):
        close(a, e, noise * steepness * (1 + np.abs(distance).max()) * x.size, dtype)


SMALL = {"batch": (4, 2), "layer": (2, 3), "group": (2, 4)}  # groups of at least three numbers, but for group


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "order"), [(np.float32, 1), (np.float64, 2), (np.float64, 3)])
def test_derivatives_match_finite_differences(kind: str, dtype: Any, order: int) -> None:
    case, rng = make(kind, SMALL[kind], 1, eps=0.3), np.random.default_rng(order)
    x, *rest = in_order(rng.normal(size=SMALL[kind]), rng), *rng.normal(size=(2, *case.shape))
    arrays = [x, *(rest if order < 3 else ())]
    check_gradients(case.call, *(a.astype(dtype) for a in arrays), order=order, rng=0)


@given(st.data(), dtypes, st.booleans(), st.booleans(), seeds)
def test_given_statistics_are_used(data: Any, dtype: Any, weighted: bool, biased: bool, seed: int) -> None:
    (case, shape), rng = cases(data.draw, "batch"), np.random.default_rng(seed)
    x, mean = in_order(rng.normal(size=shape), rng).astype(dtype), rng.normal(size=case.shape).astype(dtype)
    variance, w, b = (rng.uniform(0.1, 2, case.shape).astype(dtype) for _ in range(3))
    w, b = (w if weighted else None), (b if biased else None)
    sides = (-1, *[1] * (len(shape) - 2))

    def textbook(x: Any, mean: Any, variance: Any, w: Any, b: Any) -> Any:
        root = (variance.reshape(sides) + 0.5) ** 0.5
        out = (x - mean.reshape(sides)) / root * (1 if w is None else w.reshape(sides))
        return out if b is None else out + b.reshape(sides)

    def derived(function: Callable[..., Tensor], second: bool) -> list[Array]:
        leaves = [None if a is None else Tensor(a, requires_grad=True) for a in (x, mean, variance, w, b)]
        wanted = [leaf for leaf in leaves if leaf is not None]
        out = function(*leaves)
        first = tg.grad(out, wanted, gradient=g, create_graph=second)
        if second:
            first += tg.grad(sum(((t * t).sum() for t in first), Tensor(0.0)), wanted)
        return [out.data, *(t.data for t in first)]

    g, wide = rng.normal(size=shape).astype(dtype), dtype == np.float64
    found = derived(lambda *given_: tg.batch_norm(*given_, eps=0.5), wide)
    for a, e in zip(found, derived(textbook, wide), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, e, rtol=1e-12 if wide else 1e-4, atol=(1e-10 if wide else 1e-4) * abs(e).max())


@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), dtypes, seeds)
def test_weight_and_bias_are_optional(kind: str, data: Any, dtype: Any, seed: int) -> None:
    (case, shape), rng = cases(data.draw, kind), np.random.default_rng(seed)
    x, w, b = rng.normal(size=shape).astype(dtype), np.ones(case.shape, dtype), np.zeros(case.shape, dtype)
    expected = case.call(x, w, b).data
    for given_ in ((), (w,), (None, b), (w, b)):
        np.testing.assert_array_equal(case.call(x, *given_).data, expected, strict=True)


# Awkward inputs -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]), st.sampled_from([0.0, 3.0, -1e4]), seeds)
def test_constant_groups_give_the_bias(kind: str, data: Any, dtype: Any, value: float, seed: int) -> None:
    (case, shape), rng = cases(data.draw, kind, eps=2.0**-16), np.random.default_rng(seed)
    x, g = np.full(shape, value, dtype), rng.integers(-4, 5, shape).astype(dtype)
    w, b = np.ones(case.shape, dtype), rng.normal(size=case.shape).astype(dtype)
    out, gx, gw, _ = results(case, x, w, b, g)
    np.testing.assert_array_equal(out, np.broadcast_to(b.ravel()[case.weights], shape))
    assert not gw.any()
    for k in np.unique(case.groups):  # where the variance is 0, it stays so in the first order
        here = case.groups == k
        np.testing.assert_allclose(gx[here], (g[here] - g[here].mean(dtype=float)) * 2.0**8, rtol=2e-3, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), dtypes, st.sampled_from([np.nan, np.inf, -np.inf]), seeds)
def test_what_is_not_finite_stays_in_its_group(kind: str, data: Any, dtype: Any, bad: float, seed: int) -> None:
    (case, shape), rng = cases(data.draw, kind), np.random.default_rng(seed)
    x, g, w, b = (rng.normal(size=s).astype(dtype) for s in (shape, shape, case.shape, case.shape))
    before = results(case, x, w, b, g)
    at = tuple(rng.integers(0, shape))
    x[at] = bad
    after = results(case, x, w, b, g)
    here = case.groups == case.groups[at]
    for old, new in zip(before[:2], after[:2], strict=True):
        assert np.isnan(new[here]).all()
        np.testing.assert_array_equal(new[~here], old[~here])
    assert np.isnan(after[2]).any() and np.isfinite(after[3]).all()


@pytest.mark.skipif(not EXTENDED, reason="no oracle")
@pytest.mark.parametrize("kind", KINDS)
@given(dtypes, st.integers(-100, 100), st.integers(-100, 100), seeds)
def test_nothing_overflows_or_underflows_on_the_way(kind: str, dtype: Any, of_x: int, of_g: int, seed: int) -> None:
    """Exponents up to 30 in single, and up to 300 in double precision; all is linear in the cotangent."""
    shape, rng, eps = (4, 6), np.random.default_rng(seed), 1e-3
    case = make(kind, shape, 2, 1, eps)
    step = 0.3 if dtype == np.float32 else 3.0
    x, g = ((rng.normal(size=shape) * 10.0 ** (step * e)).astype(dtype) for e in (of_x, of_g))
    w, b = np.ones(case.shape, dtype), np.zeros(case.shape, dtype)
    found, expected = results(case, x, w, b, g), exact(case, x, w, b, g, eps)
    deviations = [np.sqrt(x[case.groups == k].astype(np.longdouble).var() + eps) for k in np.unique(case.groups)]
    largest = np.abs(g).max().astype(np.longdouble)
    scales = np.abs(expected[0]).max(), largest / min(deviations), largest * np.abs(expected[0]).max(), largest
    info = np.finfo(dtype)
    for a, e, scale in zip(found, expected, scales, strict=True):
        if scale < float(info.max) / 1e3:
            bound = 100 * (float(info.eps) * scale + float(info.smallest_subnormal))
            assert (np.abs(a.astype(np.longdouble) - e) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_large_mean_does_not_cancel(dtype: Any) -> None:
    """In single precision the mean of squares minus the square of the mean would be nothing but rounding."""
    x = (1000 + np.random.default_rng(0).integers(0, 3, (64, 4, 5, 5))).astype(dtype)
    for out in (tg.batch_norm(x), tg.group_norm(x, 2), tg.layer_norm(x, (4, 5, 5))):
        assert abs(out.data.astype(float).mean()) < 1e-3 and abs(out.data.astype(float).var() - 1) < 1e-3
    np.testing.assert_allclose(tg.batch_norm(x).data, tg.batch_norm(x - dtype(1000)).data, rtol=1e-3, atol=1e-6)


def test_many_halves_are_added_up_in_a_wider_precision() -> None:
    x, g = np.resize(np.float16([0, 1, 2]), (70_000, 2)), np.resize(np.float16([1, 1, 4]) / 4, (70_000, 2))
    leaves = [Tensor(x, requires_grad=True), *(Tensor(np.ones(2, np.float16), requires_grad=True) for _ in range(2))]
    wide = [Tensor(t.data.astype(float), requires_grad=True) for t in leaves]
    for out, true in ((tg.batch_norm(t[0], None, None, t[1] * 0.001, t[2]) for t in (leaves, wide)),):
        np.testing.assert_allclose(out.data, true.data, rtol=1e-3, atol=1e-5)
        found, expected = tg.grad(out, leaves[:2], gradient=g), tg.grad(true, wide[:2], gradient=g.astype(float))
        for a, e in zip(found, expected, strict=True):
            assert a.dtype == np.float16
            np.testing.assert_allclose(a.data, e.data, rtol=2e-3, atol=1e-6)


def test_integers_become_float64_and_carry_no_gradient() -> None:
    x = np.arange(12).reshape(3, 4)
    for function in (tg.batch_norm, lambda x: tg.layer_norm(x, 4), lambda x: tg.group_norm(x, 2)):
        out = function(x)
        assert out.dtype == np.float64 and not out.requires_grad
        np.testing.assert_array_equal(out.data, function(x.astype(float)).data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weight_and_bias_do_not_change_the_dtype(dtype: Any) -> None:
    x, wide = np.arange(8).reshape(2, 4).astype(dtype), np.arange(1.0, 5.0)
    weight = Tensor(wide, requires_grad=True)
    for function in (lambda *w: tg.layer_norm(x, 4, *w), lambda *w: tg.group_norm(x, 1, *w)):
        out = function(weight, wide)
        assert out.dtype == dtype and tg.grad(out.sum(), [weight])[0].dtype == np.float64
        np.testing.assert_array_equal(out.data, function(wide.astype(dtype), wide.astype(dtype)).data)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (3, 0), (2, 4, 0)])
def test_empty_arrays_stay_empty(shape: tuple[int, ...]) -> None:
    x = Tensor(np.zeros(shape, np.float32), requires_grad=True)
    calls = [lambda x: tg.layer_norm(x, shape[-1])]
    if shape[1]:
        calls += [lambda x: tg.group_norm(x, 2), lambda x: tg.batch_norm(x, np.zeros(4), np.ones(4))]
    for call in calls:
        out = call(x)
        assert out.shape == shape and out.dtype == np.float32
        (gradient,) = tg.grad(out, [x], gradient=np.zeros(shape, np.float32), create_graph=True)
        assert gradient.shape == tg.grad(gradient, [x], gradient=gradient.detach())[0].shape == shape


def test_groups_of_all_and_of_single_channels() -> None:
    x = np.random.default_rng(0).normal(size=(3, 6, 4, 5))
    np.testing.assert_allclose(tg.group_norm(x, 1).data, tg.layer_norm(x, (6, 4, 5)).data, rtol=1e-12)
    np.testing.assert_allclose(tg.group_norm(x, 6).data, tg.layer_norm(x, (4, 5)).data, rtol=1e-12)
    np.testing.assert_allclose(tg.group_norm(x[:1], 6).data, tg.batch_norm(x[:1]).data, rtol=1e-12)


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    functional, rng = torch.nn.functional, np.random.default_rng(0)
    x, g, w, b = (rng.normal(size=s) for s in ((4, 6, 3, 5), (4, 6, 3, 5), 6, 6))
    for ours, theirs in (
        (
            lambda x: tg.batch_norm(x, None, None, w, b),
            lambda x, w, b: functional.batch_norm(x, None, None, w, b, True),
        ),
        (lambda x: tg.group_norm(x, 3, w, b), lambda x, w, b: functional.group_norm(x, 3, w, b)),
        (lambda x: tg.layer_norm(x, (3, 5)), lambda x, w, b: functional.layer_norm(x, (3, 5))),
    ):
        leaf, other = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        out, true = ours(leaf), theirs(other, torch.tensor(w), torch.tensor(b))
        np.testing.assert_allclose(out.data, true.detach().numpy(), rtol=1e-10, atol=1e-12)
        (found,), (expected,) = tg.grad(out, [leaf], gradient=g), torch.autograd.grad(true, [other], torch.tensor(g))
        np.testing.assert_allclose(found.data, expected.numpy(), rtol=1e-9, atol=1e-11)


# Errors ---------------------------------------------------------------------------------------------------------------
X = np.ones((2, 4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tg.batch_norm([1.0]), r"batch_norm: x has shape \(1,\); it must be \(N, C\)"),
        (lambda: tg.batch_norm(X[:1, :, :1]), r"batch_norm: x of shape \(1, 4, 1\) has fewer than two values"),
        (lambda: tg.batch_norm(X[:0]), r"batch_norm: x of shape \(0, 4, 3\) has fewer than two values"),
        (lambda: tg.batch_norm(X, np.ones(4)), "batch_norm: pass both running_mean and running_var"),
        (lambda: tg.batch_norm(X, np.ones(4), np.ones(3)), r"running_var has shape \(3,\).*4 channels; .* \(4,\)"),
        (lambda: tg.batch_norm(X, weight=np.ones((4, 1))), r"batch_norm: weight has shape \(4, 1\)"),
        (lambda: tg.batch_norm(X, bias=np.ones(1)), r"batch_norm: bias has shape \(1,\)"),
        (lambda: tg.layer_norm(X, 4), r"layer_norm: x has shape \(2, 4, 3\).*normalized_shape \(4,\)"),
        (lambda: tg.layer_norm(X, (9, 2, 4, 3)), r"layer_norm: x has shape \(2, 4, 3\)"),
        (lambda: tg.layer_norm(X, ()), "layer_norm: normalized_shape is empty"),
        (lambda: tg.layer_norm(X, 3, np.ones(4)), r"layer_norm: weight has shape \(4,\)"),
        (lambda: tg.layer_norm(X, 3, None, np.ones(1)), r"layer_norm: bias has shape \(1,\)"),
        (lambda: tg.group_norm(X, 3), "group_norm: num_groups is 3; it must divide the 4 channels"),
        (lambda: tg.group_norm(X, 2, np.ones(2)), r"group_norm: weight has shape \(2,\)"),
        (lambda: tg.group_norm(X[0, 0], 1), r"group_norm: x has shape \(3,\)"),
        (lambda: tg.batch_norm(X, eps=0.0), "batch_norm: eps is 0.0; it must be a finite number above 0"),
    ],
)
def test_what_does_not_fit_is_explained(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------
def batch(x: Any, w: Any = None, b: Any = None) -> Tensor:
    return tg.batch_norm(x, None, None, w, b, eps=0.1)


def inner(name: str) -> Any:
    return getattr(tg.ops.normalization, name)


def moments(x: Tensor) -> Tensor:
    return inner("_moments")(x, axes=(0,))


HOW = {"axes": (0,), "eps": 0.1}
ROWS = normal((4, 2))
plants("batch_norm: mean and variance as constants", batch, ROWS, kind="choice")(
    lambda right, g, out, x: g / tg.sqrt(((x - x.mean(0)) ** 2).mean(0) + 0.1)
)
plants("batch_norm: the variance as a constant", batch, ROWS, kind="choice")(
    lambda right, g, out, x: (g - g.mean(0)) / tg.sqrt(((x - x.mean(0)) ** 2).mean(0) + 0.1)
)
plants("batch_norm: the count minus 1", batch, ROWS)(lambda right, g, out, x: right * (4 / 3))
plants("batch_norm: the weight's gradient without x", batch, normal((4, 2), (2,), (2,)), kind="choice", argument=1)(
    lambda right, g, out, x, w, b: g.sum(0)
)
plants("batch_norm: the bias' gradient of one example", batch, normal((4, 2), (2,), (2,)), kind="axes", argument=2)(
    lambda right, g, out, x, w, b: g[0]
)
plants(
    "batch_norm: given statistics, the mean's sign",
    lambda x, m: tg.batch_norm(x, m, [1.0, 2.0]),
    normal((3, 2), (2,)),
    kind="sign",
    argument=1,
)(lambda right, g, out, x, m: -right)
plants("layer_norm: over the wrong axis", lambda x: tg.layer_norm(x, 2, eps=0.1), normal((2, 2)), kind="axes")(
    lambda right, g, out, x: vjp(batch, 0, g, x)
)
plants("group_norm: groups as channels", lambda x: tg.group_norm(x, 1, eps=0.1), normal((3, 4)), kind="axes")(
    lambda right, g, out, x: vjp(lambda x: tg.group_norm(x, 2, eps=0.1), 0, g, x)
)
plants(
    "_normalize_gradient: its derivative by x is that of a constant",
    lambda g, x: inner("_normalize_gradient")(g, x, moments(x), np.ones(()), **HOW),
    normal((4, 2), (4, 2)),
    kind="second order",
    argument=1,
)(lambda right, h, out, g, x: 0 * right)
plants(
    "_normalize_gradient: one of the terms of its derivative",
    lambda g, x: inner("_normalize_gradient")(g, x, moments(x), np.ones(()), **HOW),
    normal((4, 2), (4, 2)),
    kind="second order",
    argument=1,
)(lambda right, h, out, g, x: right + h * (out * h).mean(0))
plants(
    "_scaling_gradient: its derivative by x without the mean's",
    lambda g, x: inner("_scaling_gradient")(g, x, moments(x), **HOW),
    normal((4, 2), (4, 2)),
    kind="second order",
    argument=1,
)(lambda right, h, out, g, x: h[0] * g)
plants(
    "_inverse_deviation: the sign",
    lambda x: inner("_inverse_deviation")(x, moments(x), **HOW),
    ROWS,
    kind="sign",
)(lambda right, g, out, x: -right)
plants(
    "_products: its derivative by the center",
    lambda g, x, c: inner("_products")(g, x, c, axes=(0,)),
    normal((3, 2), (3, 2), (1, 2)),
    kind="sign",
    argument=2,
)(lambda right, h, out, g, x, c: -right)
plants(
    "_affine: the gradient by the scale without the center",
    lambda x, c, s: inner("_affine")(x, c, s, 1.0, axes=(0,)),
    normal((3, 2), (1, 2), (1, 2)),
    kind="choice",
    argument=2,
)(lambda right, g, out, x, c, s: (g * x).sum(0, keepdims=True))
