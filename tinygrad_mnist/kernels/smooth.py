"""The error function, and activation functions that are ``x`` times a smooth step from 0 to 1, with their derivatives.

Every product is right wherever it is representable, also where the step underflows. At infinities it is NaN where the
formula is, as in PyTorch. Lower precisions are computed in double precision.

The normal distribution follows from ``exp(z**2) * erfc(z)``, which falls from 1 to 0 like 1 / z for z >= 0. With a
factor ``1 + z / SCALE``, and as a function of ``(z - SCALE) / (z + SCALE)``, it is a short Chebyshev series (M. M.
Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x**2) erfc x in 0 <= x < inf", Math. Comp. 36,
1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

import numpy as np

from .products import Array
from .reference import select
from .threads import COSTLY, elementwise

__all__ = ["activation", "erf", "times_gaussian", "times_sigmoid"]

SCALE = 3.0  # near it the interpolation converges fastest
CHEBYSHEV = [  # computed with 40 digits
    0.4711460746602906,
    -0.37715894969156577,
    0.11803603344749546,
    -0.028362346699695153,
    0.004871757757605546,
    -0.00045985238787654427,
    -2.143022238105315e-05,
    1.301447369924135e-05,
    -8.809283582853514e-07,
    -2.7464800479702846e-07,
    4.415991899223785e-08,
    6.398408385575483e-09,
    -1.6768357212484645e-09,
    -1.9473354700890025e-10,
    6.247441303469389e-11,
    8.124557552244496e-12,
    -2.330314613222566e-12,
    -4.191038539225333e-13,
    8.19333526881303e-14,
    2.3352472107929263e-14,
    -2.2442585649165363e-15,
    -1.2811435298050507e-15,
    1.1054582965396302e-18,
    6.44579513564904e-17,
    6.525175975538486e-18,
]
TERMS = {np.dtype(np.float16): 7, np.dtype(np.float32): 12}  # what the precision of the result needs; otherwise all
BLOCK = 1 << 12  # numbers
BOUND = 1480.0  # exp(-1480) is 0, whatever number it is multiplied with; the square root of it is not
NARROW_BOUND = 700.0  # the same for single precision


def _double(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of arrays compute in double precision, or in a longer one; the first array decides the dtype.

    It computes in blocks that stay in the cache, as there are many passes over them. With `narrow` it is told that the
    numbers were of a lower precision: no square is rounded then, and nothing that matters underflows.
    """

    @wraps(function)
    def call(*arrays: Any) -> Any:
        dtype = arrays[0].dtype if arrays[0].dtype.kind == "f" else np.dtype(np.float64)
        wide = np.result_type(np.float64, *[a.dtype for a in arrays if isinstance(a, np.ndarray)])
        narrow = all(getattr(a, "dtype", dtype).itemsize < 8 for a in arrays)
        settings = {"narrow": narrow, "terms": TERMS.get(dtype, len(CHEBYSHEV))}

        def compute(*parts: Any, out: Array) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # in the branch that is not taken, and at infinities
                for target, *block in _blocks(out, *map(np.asarray, parts)):
                    target[...] = function(*[a.astype(wide) for a in block], **settings)

        if arrays[0].size >= COSTLY:
            return elementwise(compute, *arrays, dtype=dtype)
        out = np.empty_like(arrays[0], dtype, shape=np.broadcast_shapes(*map(np.shape, arrays)))
        compute(*arrays, out=out)
        return out

    return call


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Cut arrays into blocks of the cache's size if they have one shape and one memory order without gaps."""
    first = arrays[0]
    order = sorted(range(first.ndim), key=lambda axis: -first.strides[axis])
    flat = [a.transpose(order) if a.ndim else a for a in arrays if a.ndim in (0, first.ndim)]
    if first.size <= BLOCK or len(flat) < len(arrays):
        yield arrays
    elif all(not a.ndim or (a.shape == flat[0].shape and a.flags.c_contiguous) for a in flat):
        flat = [a.reshape(-1) if a.ndim else a for a in flat]
        for start in range(0, first.size, BLOCK):
            yield tuple([a[start : start + BLOCK] if a.ndim else a for a in flat])
    else:
        yield arrays


# The normal distribution ----------------------------------------------------------------------------------------------
@cache
def tail_polynomial(terms: int) -> list[float]:
    """Return coefficients, the highest first, of the polynomial that `_tail` evaluates."""
    return np.polynomial.chebyshev.cheb2poly(CHEBYSHEV[:terms])[::-1].tolist()  # type: ignore[no-any-return]  # Any


def _evaluate(coefficients: list[float], x: Array) -> Array:
    out = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        out *= x
        out += coefficient
    return out


def _tail(z: Array, terms: int) -> Array:
    """``exp(z**2) * erfc(z)`` for z >= 0."""
    small = SCALE / (z + SCALE)
    return _evaluate(tail_polynomial(terms), 1 - 2 * small) * small


def _times_exp_of_square(g: Array, x: Array, factor: float, narrow: bool) -> Any:
    """``g * exp(-factor * x**2)``; the square is taken in two parts, because its rounding error would be multiplied."""
    if narrow:
        return g * np.exp(-factor * x * x)
    x = np.clip(x, -60, 60)
    high = x.astype(np.float32).astype(x.dtype)
    root = np.exp(-factor / 2 * high * high)
    return g * root * root * np.exp(-factor * (x - high) * (x + high))


@cache
def erf_series(terms: int) -> list[float]:
    """Return coefficients, the highest first, of ``erf(x) / x`` as a polynomial in ``x**2``, for x up to 1."""
    return [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(terms)][::-1]


@_double
def erf(x: Array, terms: int, narrow: bool) -> Any:
    """The error function."""
    size = np.minimum(np.abs(x), 8)
    count = 12 if narrow else 20
    small = x * _evaluate(erf_series(count), np.minimum(size * size, 1))
    return np.where(size < 1, small, np.copysign(1 - np.exp(-size * size) * _tail(size, terms), x))


@_double
def times_gaussian(g: Array, x: Array, factor: Array, terms: int, narrow: bool) -> Any:
    """``g * exp(-factor * x**2)``, where `factor` is 0.5 or 1."""
    return _times_exp_of_square(g, x, float(factor), narrow)


@_double
def times_sigmoid(g: Array, x: Array, y: Array, terms: int, narrow: bool) -> Any:
    """``g / (1 + exp(y - x))``: ``g`` times the weight of ``x`` in the softmax of both."""
    difference = x - y
    g = select(g, ~(difference < -_bound(narrow)))
    if narrow:
        return g / (1 + np.exp(-difference))
    root = np.exp(-np.abs(difference) / 2)
    small = root * root
    out = np.where(difference < 0, g * root * root, g) / (1 + small)
    if not y.any():
        return out
    back = difference - x  # what the rounding of the difference has left out
    rest = (x - (difference - back)) - (y + back)
    return out + select(out * rest * np.where(difference < 0, 1, small) / (1 + small), np.isfinite(rest * out))


# Activation functions -------------------------------------------------------------------------------------------------
def _bound(narrow: bool) -> float:
    return NARROW_BOUND if narrow else BOUND


def _far_below(out: Array, exponent: Array, x: Array, narrow: bool) -> Any:
    """Replace products with a step by exactly 0 where ``exp(exponent)`` is 0, but not at minus infinity."""
    return select(out, ~((exponent < -_bound(narrow)) & (x > -np.inf)))


def _times_step(g: Array, factor: Array, root: Array, below: Array) -> Any:
    """``g * factor``, and below 0 ``g * factor * root**2``, so that nothing overflows or underflows on the way."""
    return np.where(below, g * root * factor * root, g * factor)


def _logistic(x: Array, g: Array | None, exponent: Array, slope: Any, narrow: bool) -> Any:
    """``x * sigmoid(exponent)``, or ``g`` times its derivative, where `slope` is the derivative of `exponent`."""
    below, root = exponent < 0, np.exp(-np.abs(exponent) / 2)
    small = root * root
    if g is None:
        return _times_step(x, 1 / (1 + small), root, below)
    factor = (1 + x * (slope * np.where(below, 1, small) / (1 + small))) / (1 + small)
    return _far_below(_times_step(g, factor, root, below), exponent, x, narrow)


@_double
def silu(x: Array, g: Array | None = None, *, terms: int, narrow: bool) -> Any:
    """``x * sigmoid(x)``, or ``g`` times its derivative."""
    return _logistic(x, g, x, 1.0, narrow)


@_double
def gelu_tanh(x: Array, g: Array | None = None, *, terms: int, narrow: bool) -> Any:
    """``x * sigmoid(sqrt(8 / pi) * (x + 0.044715 * x**3))``, or ``g`` times its derivative."""
    near = np.clip(x, -100, 100)  # farther out the sigmoid is 0 or 1
    square, factor = near * near, math.sqrt(8 / math.pi)
    return _logistic(x, g, factor * near * (1 + 0.044715 * square), factor * (1 + 3 * 0.044715 * square), narrow)


@_double
def gelu(x: Array, g: Array | None = None, *, terms: int, narrow: bool) -> Any:
    """``x`` times the normal distribution's probability of less than ``x``, or ``g`` times its derivative."""
    below, size = x < 0, np.abs(x)
    tail = _tail(size / math.sqrt(2), terms) / 2
    if g is not None:
        tail = tail - size / math.sqrt(2 * math.pi)
    near = np.clip(size, 0, 60)
    high = near.astype(np.float32).astype(x.dtype)  # its square is exact; a rounding error would be multiplied
    root, rest = np.exp(-high * high / 4), np.exp((high - near) * (high + near) / 2)
    factor = np.where(below, tail * rest, 1 - tail * root * root * rest)
    out = _times_step(x if g is None else g, factor, root, below)
    return out if g is None else _far_below(out, np.copysign(size * size / 2, x), x, narrow)


@_double
def mish(x: Array, g: Array | None = None, *, terms: int, narrow: bool) -> Any:
    """``x * tanh(log(1 + exp(x)))``, or ``g`` times its derivative."""
    below, root = x < 0, np.exp(-np.abs(x) / 2)
    small = root * root
    divisor = np.where(below, small * (small + 2) + 2, 1 + 2 * small * (1 + small))
    factor = np.where(below, small + 2, 1 + 2 * small)
    if g is None:
        return _times_step(x, factor / divisor, root, below)
    factor = factor + x * (4 * (small + 1) * np.where(below, 1, small * small) / divisor)
    return _far_below(_times_step(g, factor / divisor, root, below), x, x, narrow)


def softplus(x: Array, g: Array | None = None) -> Any:
    """``log(1 + exp(x))``, or ``g`` times its derivative."""
    if g is not None:
        return times_sigmoid(g, x, 0.0)
    with np.errstate(invalid="ignore"):  # of NaN it would warn
        return np.logaddexp(x, 0.0)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu, "mish": mish, "softplus": softplus}


def activation(kind: str, x: Array, g: Array | None = None) -> Any:
    """One of `ACTIVATIONS`, or ``g`` times its derivative."""
    return ACTIVATIONS[kind](x) if g is None else ACTIVATIONS[kind](x, g)
