"""What the rules of some ops compute, right wherever the result is representable.

The plain formula comes first. Where one of its intermediate results overflows or underflows, mantissas and exponents are
computed apart. Half precision is computed in single precision throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from .products import Array

__all__ = ["add_up", "power_by_base", "power_by_exponent", "quotient_sum", "times_exp", "times_sech2"]

ALL_ZERO = -(2**20)  # an exponent below that of any number
TINY = {np.dtype(kind): np.finfo(kind).tiny for kind in (np.float16, np.float32, np.float64, np.longdouble)}
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
def _stretched(x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of `x` along which an array of `shape` is repeated."""
    new = x.ndim - len(shape)
    return tuple([i for i in range(x.ndim) if i < new or (x.shape[i] != 1 and shape[i - new] == 1)])


def add_up(x: Array, axis: Any, keepdims: bool = False) -> Any:
    """``np.sum``; half precision is added up in single precision, as in PyTorch."""
    if x.dtype != HALF:
        return np.sum(x, axis=axis, keepdims=keepdims)
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(HALF)


@_wider
def quotient_sum(g: Array, x: Any, y: Any, n: int, shape: tuple[int, ...]) -> Any:
    """``g * x / y**n``, summed down (or broadcast) to `shape`."""
    try:
        with np.errstate(all="raise"):
            terms = g * x if n == 0 else g / y * x
            for _ in range(n - 1):
                terms = terms / y
            return _fit(terms, shape) if terms.shape != shape else terms
    except FloatingPointError:
        pass
    mantissa, exponent = _scaled_product([g, x], [y] * n)
    if axes := _stretched(mantissa, shape):
        exponent = np.where(mantissa == 0, ALL_ZERO, exponent)
        largest = np.max(exponent, axis=axes, keepdims=True, initial=ALL_ZERO)
        mantissa, exponent = np.sum(np.ldexp(mantissa, exponent - largest), axis=axes, keepdims=True), largest
    return _fit(np.ldexp(mantissa, exponent).astype(g.dtype), shape)


def _fit(terms: Array, shape: tuple[int, ...]) -> Any:
    axes = _stretched(terms, shape)
    if not axes:
        return np.broadcast_to(terms, shape)
    new = tuple(range(terms.ndim - len(shape)))
    return np.broadcast_to(np.sum(terms, axis=axes, keepdims=True).squeeze(new), shape)


# Functions of one variable --------------------------------------------------------------------------------------------
def times_exp(g: Array, x: Array, out: Array) -> Any:
    """``g * exp(x)``, where `out` is ``exp(x)``."""
    tiny = TINY[out.dtype]
    if tiny <= out.min(initial=1) and out.max(initial=1) < np.inf:
        return g * out
    return _times_exp(g, x)


@_wider
def _times_exp(g: Array, x: Array) -> Any:
    root = np.exp(x / 2)
    return g * root * root


@_wider
def times_sech2(g: Array, x: Array, scale: float) -> Any:
    """``g * (scale / cosh(scale * x))**2``."""
    if scale != 1:
        g, x = g * scale**2, x * scale
    try:
        with np.errstate(over="raise"):
            cosh = np.cosh(x)
            return g / cosh / cosh
    except FloatingPointError:
        small = np.exp(-np.abs(x))
        sech = 2 * small / (1 + small * small)
        return g * sech * sech


# Powers ---------------------------------------------------------------------------------------------------------------
def _at_least_double(g: Array, *xs: Any) -> list[Array]:
    return [np.asarray(x, np.promote_types(g.dtype, np.float64)) for x in xs]


def _scaled_power(factors: list[Any], x: Any, y: Any, divisors: list[Any]) -> Any:
    """Multiply by ``x ** y``, for finite ``x`` other than 0."""
    root = np.abs(x) ** (y / 4)
    sign = np.copysign(1, np.sign(x) ** y)  # NaN where that is not a number
    mantissa, exponent = _scaled_product([*factors, root, root, root, root], divisors)
    return np.ldexp(mantissa * sign, exponent)


@_wider
def power_by_base(g: Array, x: Array, y: Any) -> Any:
    """``g * y * x**(y - 1)``, and 0 where ``y`` is 0."""
    number = isinstance(y, (int, float))
    try:
        with np.errstate(all="raise"):
            if number and y % 2**-6 == 0:  # then y - 1 is exact
                return g * y * x ** (y - 1)
            return g * y * (x**y / x)
    except FloatingPointError:
        pass
    wide, exponent = _at_least_double(g, x, y)
    regular = np.isfinite(wide) & (wide != 0)
    scaled = _scaled_power([g, exponent], np.where(regular, wide, 1), exponent, [np.where(regular, wide, 1)])
    if not regular.all():
        plain = np.where(regular, 1, wide) ** np.where(regular | (exponent == 0), 1, exponent - 1)
        scaled = np.where(regular, scaled, np.where(exponent == 0, 0, g * y * plain))
    return scaled.astype(g.dtype)


@_wider
def power_by_exponent(g: Array, x: Any, y: Array) -> Any:
    """``g * x**y * log(x)``, and 0 where ``x`` is 0."""
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
