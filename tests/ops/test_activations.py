"""Activation functions: closed forms, limits, and PyTorch's values and derivatives where it is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, Function, agree, dtypes, orders, seeds, some
from planted import between, fixed, normal, plants, signed, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays

# Oracles: the step from 0 to 1, its derivative ------------------------------------------------------------------------
Pair = tuple[Array, Array]


def logistic(x: Array) -> Pair:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small), small / (1 + small) ** 2


def tail(z: Array) -> Array:
    """``exp(z**2) * erfc(z)``, by the standard library for small z, else by Laplace's continued fraction."""
    fraction, large = np.zeros_like(z), np.maximum(z, 2)
    for n in range(200, 0, -1):
        fraction = n / 2 / (large + fraction)
    small = np.array([math.erfc(v) for v in np.minimum(z, 2).astype(float).ravel()]).reshape(z.shape)
    return np.where(z < 2, np.exp(np.minimum(z, 2) ** 2) * small, 1 / (large + fraction) / np.sqrt(np.pi * one(z)))


def one(x: Array) -> Array:
    return np.ones_like(x)


def gaussian(x: Array) -> Pair:
    with np.errstate(over="ignore"):
        bell = np.exp(-x * x / 2)
    below = bell * tail(np.abs(x) / np.sqrt(2 * one(x))) / 2
    return np.where(x < 0, below, 1 - below), bell / np.sqrt(2 * np.pi * one(x))


def approximate(x: Array) -> Pair:
    inner = np.clip(x, -1e3, 1e3)
    step, slope = logistic(2 * np.sqrt(2 / np.pi * one(x)) * (inner + 0.044715 * inner**3))
    return step, slope * 2 * np.sqrt(2 / np.pi * one(x)) * (1 + 3 * 0.044715 * inner**2)


def of_mish(x: Array) -> Pair:
    sign, n = x < 0, np.exp(-np.abs(x))
    step = np.where(sign, n * (n + 2) / (n * n + 2 * n + 2), (1 + 2 * n) / (1 + 2 * n + 2 * n * n))
    return step, np.where(
        sign, 4 * n * (n + 1) / (n * n + 2 * n + 2) ** 2, 4 * n**2 * (n + 1) / (1 + 2 * n + 2 * n * n) ** 2
    )


STEPS: dict[str, tuple[Function, Callable[[Array], Pair]]] = {  # functions that are x times a step
    "silu": (tg.silu, logistic),
    "gelu": (tg.gelu, gaussian),
    "gelu(tanh)": (lambda x: tg.gelu(x, "tanh"), approximate),
    "mish": (tg.mish, of_mish),
    "hardswish": (tg.hardswish, lambda x: (np.clip(x / 6 + 0.5, 0, 1), one(x) * (np.abs(x) < 3) / 6)),
}
PLAIN: dict[str, tuple[Function, Function]] = {
    "softplus": (tg.softplus, lambda x: np.logaddexp(0, x)),
    "softplus(2.5)": (lambda x: tg.softplus(x, 2.5), lambda x: np.log1p(np.exp(2.5 * x)) / 2.5),
    "elu": (tg.elu, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "elu(0.7)": (lambda x: tg.elu(x, 0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(np.minimum(x, 0)))),
    "leaky_relu": (tg.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x)),
    "leaky_relu(-0.5)": (lambda x: tg.leaky_relu(x, -0.5), lambda x: np.where(x > 0, x, -0.5 * x)),
    **{name: (function, lambda x, step=step: x * step(x)[0]) for name, (function, step) in STEPS.items()},
}
each = pytest.mark.parametrize("name", PLAIN)


@each
@some
@given(st.data(), dtypes, orders, seeds)
def test_values_and_derivatives(name: str, data: Any, dtype: Any, order: int, seed: int) -> None:
    function, plain = PLAIN[name]
    shape = data.draw(st.sampled_from([(), (0,), (3,), (2, 0), (2, 3)]))
    x = data.draw(arrays(shape, dtype, low=-5, high=5, away_from=[-3, 0, 3]))
    numpy = SimpleNamespace(function=lambda x: plain(x).astype(dtype))
    agree(lambda lib, x: lib.function(x) if lib is numpy else function(x), x, order=order, seed=seed, numpy=numpy)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", STEPS)
def test_the_slope_of_x_times_a_step_over_the_whole_range(name: str, dtype: Any) -> None:
    """Both terms of the slope are right to the last places; near its zero they cancel."""
    function, step = STEPS[name]
    rng, info = np.random.default_rng(0), np.finfo(dtype)
    everywhere = np.exp2(rng.uniform(info.minexp - info.nmant, info.maxexp, 500)) * rng.choice([-1, 1], 500)
    x = np.concatenate([everywhere, rng.uniform(-5, 5, 500), rng.uniform(-0.9, 0.9, 500) * info.maxexp]).astype(dtype)
    g = (rng.choice([-1, 1], x.size) * np.exp2(rng.uniform(-10, 9, x.size))).astype(dtype)
    leaf = Tensor(x, requires_grad=True)
    (found,) = tg.grad(function(leaf), [leaf], gradient=g)
    long, wide = x.astype(np.longdouble), g.astype(np.longdouble)
    with np.errstate(under="ignore"):
        first, second = (part * wide for part in step(long))
    near = np.where(second == 0, 0, long)
    largest = np.abs(first) + np.abs(near * second)
    ulps = 8 if name != "gelu(tanh)" else 8 + 20 * np.minimum(np.abs(x.astype(float)), 13) ** 3 / 10  # of its exponent
    allowed = ulps * (info.eps * largest + np.finfo(dtype).smallest_subnormal)
    assert found.dtype == dtype and (np.abs(found.data - (first + near * second)) <= allowed).all()


def named(name: str) -> tuple[str, dict[str, Any]]:
    """Return PyTorch's function and settings for a name such as ``elu(0.7)``."""
    kind, _, setting = name.rstrip(")").partition("(")
    word = {"gelu": "approximate", "softplus": "beta", "elu": "alpha", "leaky_relu": "negative_slope"}.get(kind, "")
    arguments: dict[str, Any] = {word: setting if kind == "gelu" else float(setting)} if setting else {}
    return kind, arguments | ({"threshold": 100} if kind == "softplus" else {})  # from there on PyTorch returns x


INFINITE: dict[str, list[float]] = {  # the values at -inf and inf, the slopes there
    **dict.fromkeys(STEPS, [np.nan, np.inf, np.nan, np.nan]),  # as in PyTorch
    "hardswish": [np.nan, np.inf, 0, 1],
    **dict.fromkeys(["softplus", "softplus(2.5)"], [0, np.inf, 0, 1]),
    "elu": [-1, np.inf, 0, 1],
    "elu(0.7)": [-0.7, np.inf, 0, 1],
    "leaky_relu": [-np.inf, np.inf, 0.01, 1],
    "leaky_relu(-0.5)": [np.inf, np.inf, -0.5, 1],
}


@each
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_limits(name: str, dtype: Any) -> None:
    """Far out, where a cotangent times the argument overflows, everything has its limit; at infinities, PyTorch's."""
    function = PLAIN[name][0]
    largest = float(np.finfo(dtype).max)
    low, high, slope_low, slope_high = INFINITE[name]
    limits = [0, 1] if np.isnan(slope_low) else [slope_low, slope_high]
    x = Tensor(np.array([-np.inf, -largest, -2e3, 2e3, largest, np.inf], dtype), requires_grad=True)
    with np.errstate(over="ignore"):
        out = function(x)
    np.testing.assert_array_equal(out.data[[0, 5]], np.array([low, high], dtype))
    cotangent = np.full(6, 1000, dtype)
    with np.errstate(invalid="ignore"):
        (slope,) = tg.grad(out, [x], create_graph=True, gradient=cotangent)
        expected = [slope_low, *np.repeat(limits, 2), slope_high]
        np.testing.assert_allclose(slope.data, np.multiply(1000, expected), rtol=2e-3 if dtype == np.float16 else 1e-6)
        if slope.requires_grad:
            curvature = tg.grad(slope, [x], gradient=cotangent)[0].data
            assert (curvature[1:-1] == 0).all()
            np.testing.assert_array_equal(curvature[[0, -1]], np.multiply([slope_low, slope_high], 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PLAIN)
def test_infinities_and_nan_are_those_of_pytorch(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    at, (kind, arguments) = [-np.inf, np.inf, np.nan] * 16, named(name)  # PyTorch's few differ from its many at NaN
    leaf, theirs = (Tensor(np.array(at, dtype), requires_grad=True), torch.tensor(at, dtype=getattr(torch, dtype)))
    out, other = PLAIN[name][0](leaf), getattr(torch.nn.functional, kind)(theirs.requires_grad_(), **arguments)
    (slope,) = tg.grad(out, [leaf], gradient=np.ones(48, dtype))
    (their_slope,) = torch.autograd.grad(other, theirs, torch.ones_like(other))
    np.testing.assert_allclose(out.data, other.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(slope.data, their_slope.numpy(), rtol=1e-6)


@each
def test_the_gradient_at_nan_is_nan(name: str) -> None:
    x = Tensor([np.nan, 1.0], requires_grad=True)
    (slope,) = tg.grad(PLAIN[name][0](x), [x], gradient=np.ones(2))
    kept = name.startswith("leaky_relu")  # one of two constants, as in PyTorch
    assert np.isnan(slope.data).tolist() == [not kept, False]


@each
def test_nan_stays_nan_and_halves_and_integers_are_taken(name: str) -> None:
    function, plain = PLAIN[name]
    assert np.isnan(function(np.array([np.nan, 1.0])).data).tolist() == [True, False]
    whole = function([-2, 0, 1])
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole.data, plain(np.array([-2.0, 0, 1])), rtol=1e-14)
    x = np.linspace(-4, 4, 30).astype(np.float16)
    out = function(Tensor(x))
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.data, plain(x.astype(np.float64)), rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "at", "slopes"),
    [
        (tg.leaky_relu, [-1, 0, 1], [0.01, 0.01, 1]),
        (lambda x: tg.elu(x, 0.5), [0, 1], [0.5, 1]),
        (tg.hardswish, [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    ],
)
def test_conventions_at_kinks_are_those_of_pytorch(function: Function, at: list[float], slopes: list[float]) -> None:
    x = Tensor(np.array(at, float), requires_grad=True)
    assert tg.grad(function(x), [x], gradient=np.ones(len(at)))[0].data.tolist() == slopes


@pytest.mark.parametrize(
    ("function", "at", "passed"),
    [
        (tg.hardswish, [-4.0], [0.0]),
        (tg.elu, [2.0], [np.inf]),
        (tg.silu, [-2e3], [0.0]),
    ],
)
def test_an_infinite_cotangent_that_is_not_passed_on_gives_exactly_0(function: Any, at: Any, passed: Any) -> None:
    x = Tensor(np.array(at, float), requires_grad=True)
    assert tg.grad(function(x), [x], gradient=np.array([np.inf]))[0].data.tolist() == passed


@each
@some
@given(seeds)
def test_derivatives_equal_those_of_pytorch(name: str, seed: int) -> None:
    torch = pytest.importorskip("torch")
    ours, rng = PLAIN[name][0], np.random.default_rng(seed)
    kind, arguments = named(name)
    plain = getattr(torch.nn.functional, kind)
    x, g, h = rng.normal(size=30) * 3, rng.normal(size=30), rng.normal(size=30)
    leaf, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, other = ours(leaf), plain(theirs, **arguments)
    (slope,) = tg.grad(out, [leaf], create_graph=True, gradient=g)
    (their_slope,) = torch.autograd.grad(other, theirs, torch.tensor(g), create_graph=True)
    found, expected = [out.data, slope.data], [other, their_slope]
    if their_slope.requires_grad:
        found.append(tg.grad(slope, [leaf], gradient=h)[0].data)
        expected.append(torch.autograd.grad(their_slope, theirs, torch.tensor(h))[0])
    for mine, yours in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, yours.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", ["", "Tanh", None])
def test_an_unknown_approximation_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match='gelu: approximate is .*; it must be "none" or "tanh"'):
        tg.gelu([1.0], wrong)


# Planted errors -------------------------------------------------------------------------------------------------------
plants("silu: the step alone", tg.silu, signed((4,)), kind="choice")(lambda right, g, out, x: g * tg.sigmoid(x))
plants("gelu: the step alone", tg.gelu, signed((4,)), kind="choice")(lambda right, g, out, x: g * out / x)
plants("gelu: of the approximation", tg.gelu, between(1, 2, (4,)), kind="precision")(
    lambda right, g, out, x: vjp(lambda x: tg.gelu(x, "tanh"), 0, g, x)
)
plants("mish: that of silu", tg.mish, signed((4,)), kind="choice")(lambda right, g, out, x: vjp(tg.silu, 0, g, x))
for _name, _function in {
    "silu": tg.silu,
    "gelu": tg.gelu,
    "gelu(tanh)": STEPS["gelu(tanh)"][0],
    "mish": tg.mish,
}.items():
    plants(f"{_name}: slope constant", _function, normal((3,)), kind="second order", order=2)(
        lambda right, g, out, x, function=_function: vjp(function, 0, g, x.detach())
    )
plants("softplus: a step", tg.softplus, normal((4,)), kind="steps")(lambda right, g, out, x: g * (x > 0))
plants("softplus: beta forgotten", lambda x: tg.softplus(x, 3.0), normal((4,)))(
    lambda right, g, out, x: g * tg.sigmoid(x)
)
plants("elu: passes below 0", tg.elu, signed((4,)), kind="some entries")(lambda right, g, *rest: g)
plants("leaky_relu: stopped below 0", tg.leaky_relu, signed((4,)), kind="some entries")(
    lambda right, g, out, x: g * (x > 0)
)
plants("hardswish: without the product rule", tg.hardswish, fixed([-4.0, -1.0, 1.0, 4.0]), kind="choice")(
    lambda right, g, out, x: g * tg.clip(x / 6 + 0.5, 0, 1)
)
