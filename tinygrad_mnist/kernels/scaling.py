"""What the rules of some ops compute, right wherever the result is representable.

The plain formula comes first. Where one of its intermediate results overflows or underflows, mantissas and exponents
are computed apart. Half precision is computed in single precision throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from .machine import one_blas_thread_of_numpy
from .products import Array
from .reference import select

__all__ = ["add_up", "power_by_base", "power_by_exponent", "quotient_sum", "times_exp", "times_sech2", "times_sigmoids"]

ALL_ZERO = -(2**20)  # an exponent below that of any number
HALF = np.dtype(np.float16)


def _wider(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function, whose first argument has the dtype of the result, compute half precision in single precision."""

    @wraps(function)
    def widened(g: Array, *args: Any) -> Any:
        if g.dtype != HALF:
            return function(g, *args)
        single = [a.astype(np.float32) if getattr(a, "dtype", None) == HALF else a for a in (g, *args)]
        return function(*single).astype(HALF)

    return widened


def _scaled_product(factors: list[Any], divisors: list[Any]) -> tuple[Any, Any]:
    """Return mantissa and exponent (of 2) of a quotient of products, of any magnitude."""
    mantissa, exponent = np.frexp(factors[0])
    for factor in factors[1:]:
        m, e = np.frexp(factor)
        mantissa, exponent = mantissa * m, exponent + e
    for divisor in divisors:
        m, e = np.frexp(divisor)
        mantissa, exponent = mantissa / m, exponent - e
    return mantissa, exponent


# Sums -----------------------------------------------------------------------------------------------------------------
def add_up(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """``np.sum``; half precision is added up in single precision, as in PyTorch."""
    reduce: Any = np.add.reduce  # faster than np.sum
    if x.dtype != HALF:
        return reduce(x, axis=axis, keepdims=keepdims)
    return reduce(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(HALF)


def _repeated(x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of `x` along which broadcasting repeats an array of `shape`."""
    new = x.ndim - len(shape)
    return tuple([i for i, length in enumerate(x.shape) if i < new or length != 1 == shape[i - new]])


@_wider
def quotient_sum(g: Array, x: Any, y: Any, n: int, shape: tuple[int, ...]) -> Any:
    """Sum ``g * x / y`` (n is 1), its (n - 1)-th derivative by y, or ``g * x`` (n is 0) down to `shape`.

    Where `shape` is larger, the result is repeated.
    """
    try:
        with np.errstate(all="raise"):
            terms = g / -y * x / y if n > 1 else g / y * x if n else g * x
            for k in range(2, n):
                terms = terms / y * -k
            if terms.shape == shape:
                return terms
            return _fit(np.add.reduce(terms, axis=_repeated(terms, shape), keepdims=True), shape)
    except FloatingPointError:
        pass
    mantissa, exponent = _scaled_product([g, x, *range(-1, -n, -1)], [y] * n)
    if axes := _repeated(mantissa, shape):
        exponent = np.where(mantissa == 0, ALL_ZERO, exponent)
        largest = np.max(exponent, axis=axes, keepdims=True, initial=ALL_ZERO)
        mantissa, exponent = np.sum(np.ldexp(mantissa, exponent - largest), axis=axes, keepdims=True), largest
    return _fit(np.ldexp(mantissa, exponent).astype(g.dtype), shape)


def _fit(x: Any, shape: tuple[int, ...]) -> Any:
    """Drop leading axes of length 1 and repeat along others, up to `shape`."""
    x = x.reshape(x.shape[x.ndim - len(shape) :]) if x.ndim > len(shape) else x
    return x if x.shape == shape else np.broadcast_to(x, shape)


# Functions of one variable --------------------------------------------------------------------------------------------
LIMIT = {HALF: 9.0, np.dtype(np.float32): 87.0, np.dtype(np.float64): 708.0}  # no exponential overflows or is subnormal


def times_exp(g: Array, x: Array, out: Array) -> Any:
    """``g * exp(x)``, where `out` is ``exp(x)``."""
    limit = LIMIT.get(out.dtype, 0.0)
    if _squares(x) < limit**2 or np.max(np.abs(x), initial=0) < limit:  # the first is faster, and enough for a few
        return g * out
    return _times_exp(g, x)


def _squares(x: Array) -> Any:
    if x.size < 10_000:  # as many as OpenBLAS leaves to one thread
        return np.vdot(x, x)
    with one_blas_thread_of_numpy():
        return np.vdot(x, x)


@_wider
def _times_exp(g: Array, x: Array) -> Any:
    root = np.exp(x / 2)
    return g * root * root


@_wider
def times_sech2(g: Array, x: Array) -> Any:
    """``g / cosh(x)**2``; NumPy computes exponentials ten times as fast as hyperbolic cosines."""
    small = np.exp(-np.abs(x))
    sech = 2 * small / (1 + small * small)
    return g * sech * sech


@_wider
def times_sigmoids(g: Array, x: Array) -> Any:
    """``g * sigmoid(x) * sigmoid(-x)``."""
    return times_sech2(g, x / 2) / 4


# Powers ---------------------------------------------------------------------------------------------------------------
def _at_least_double(g: Array, *xs: Any) -> list[Array]:
    return [np.asarray(x, g.dtype).astype(np.promote_types(g.dtype, np.float64)) for x in xs]


def _scaled_power(factors: list[Any], x: Any, y: Any, divisors: list[Any]) -> Any:
    """Multiply by ``x ** y``, for finite ``x`` other than 0."""
    sign = np.sign(x) ** y  # NaN where that is not a number
    with np.errstate(over="ignore"):
        power = np.abs(x) ** y
    normal = (power >= np.finfo(power.dtype).tiny) & (power < np.inf)
    root = np.abs(x) ** np.where(normal, 0, y / 4)
    mantissa, exponent = _scaled_product([*factors, np.where(normal, power, root), root, root, root], divisors)
    return np.ldexp(mantissa * sign, exponent)


def power_by_base(g: Array, x: Array, y: Any) -> Any:
    """``g * y * x**(y - 1)``, and exactly 0 where ``y`` is 0."""
    if not isinstance(y, (int, float)):
        return select(_power_by_base(g, x, y), np.not_equal(y, 0))
    return _power_by_base(g, x, y) if y else np.zeros(np.broadcast_shapes(g.shape, x.shape), g.dtype)


def power_by_exponent(g: Array, x: Any, y: Array) -> Any:
    """``g * x**y * log(x)``, and exactly 0 where ``x`` is 0."""
    return select(_power_by_exponent(g, x, y), np.not_equal(x, 0))


@_wider
def _power_by_base(g: Array, x: Array, y: Any) -> Any:
    number = isinstance(y, (int, float))
    try:
        with np.errstate(all="raise"):
            if number and y % 2**-6 == 0:  # then y - 1 is exact
                return g * y * (x if y == 2 else x ** (y - 1))
            return g * y * (x**y / x)
    except FloatingPointError:
        pass
    wide, exponent = _at_least_double(g, x, y)
    regular = np.isfinite(wide) & (wide != 0)
    base, lower = np.where(regular, wide, 1), exponent - 1
    exact = (lower + 1 == exponent) & (np.abs(exponent) < 2**50)  # else x ** lower would be off by up to 100 ulps
    divisor = np.where(exact, 1, base)
    scaled = _scaled_power([g, exponent], base, np.where(exact, lower, exponent), [divisor])
    if not regular.all():
        plain = np.where(regular, 1, wide) ** np.where(regular | (exponent == 0), 1, lower)
        scaled = np.where(regular, scaled, np.where(exponent == 0, 0, g * (exponent * plain)))
    return scaled.astype(g.dtype)


@_wider
def _power_by_exponent(g: Array, x: Any, y: Array) -> Any:
    x = np.asarray(x, g.dtype)
    try:
        with np.errstate(all="raise"):
            return g * np.log(x) * x**y
    except FloatingPointError:
        pass
    wide, exponent = _at_least_double(g, x, y)
    regular = np.isfinite(wide) & (wide != 0)
    base = np.where(wide == 0, 1, wide)
    log = np.log(base)
    scaled = _scaled_power([g, log], np.where(regular, wide, 1), exponent, [])
    if not regular.all():
        scaled = np.where(regular | (wide == 0), scaled, g * log * base**exponent)
    return scaled.astype(g.dtype)
