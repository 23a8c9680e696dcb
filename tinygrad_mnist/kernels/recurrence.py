"""Products along the last axis that lack an element, and linear recurrences: what the derivatives of products are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .products import Array
from .reference import halves_in_float32

__all__ = ["product_of_others", "recurrence"]

# Below so many elements along the axis, or above so many beside it, a loop over the axis is as fast as blocks.
SHORT = 64
WIDE = 4096
BLOCK = 256  # so many mantissas, of 1/2 to 1, can be multiplied without underflow


# Recurrences ----------------------------------------------------------------------------------------------------------
def recurrence(b: Array, a: Array, reverse: bool) -> Any:
    """Solve ``y[i] = b[i] + a[i] * y[i - 1]``, or if `reverse` ``y[i] = b[i] + a[i + 1] * y[i + 1]``.

    There is nothing before the first and behind the last element, so the first ``a`` is not used. Single and half
    precision are computed in double precision.
    """
    wide = np.promote_types(b.dtype, np.float64)
    terms = np.moveaxis(b, -1, 0).astype(wide)  # (..., n) -> (n, ...)
    factors = np.moveaxis(a, -1, 0).astype(wide)
    if reverse:
        out = _solve(terms[::-1], np.roll(factors, -1, axis=0)[::-1])[::-1]
    else:
        out = _solve(terms, factors)
    return np.moveaxis(out, 0, -1).astype(b.dtype)


def _solve(terms: Array, factors: Array) -> Array:
    if len(terms) >= SHORT and terms[0].size <= WIDE:
        try:
            with np.errstate(all="raise"):
                return _in_blocks(terms, factors)
        except FloatingPointError:  # a product of factors is not representable; the results may be
            pass
    out = terms.copy()
    for i in range(1, len(out)):
        out[i] += factors[i] * out[i - 1]
    return out


def _in_blocks(terms: Array, factors: Array) -> Array:
    """Solve in all blocks side by side, each from 0 on, then add to each what comes from the block before it."""
    size = math.isqrt(len(terms))
    count = -(-len(terms) // size)  # rounded up
    beside = terms.shape[1:]
    padding = [(0, count * size - len(terms))] + [(0, 0)] * len(beside)
    out = np.pad(terms, padding).reshape(count, size, *beside)
    factor = np.pad(factors, padding).reshape(count, size, *beside)
    product = factor.copy()  # of all factors from the beginning of the block
    for i in range(1, size):
        out[:, i] += factor[:, i] * out[:, i - 1]
        product[:, i] *= product[:, i - 1]
    for k in range(1, count):
        out[k] += product[k] * out[k - 1, -1]
    return out.reshape(count * size, *beside)[: len(terms)]


# Products -------------------------------------------------------------------------------------------------------------
@halves_in_float32
def product_of_others(g: Array, x: Array) -> Any:
    """``g`` times the product of all other elements along the last axis: (..., 1), (..., n) -> (..., n).

    Nothing is divided. Where a product overflows or underflows, mantissas and exponents are multiplied apart.
    """
    try:
        with np.errstate(all="raise"):
            behind = _before(x[..., ::-1])[..., ::-1]
            return g * _before(x) * behind
    except FloatingPointError:
        pass
    wide = np.promote_types(x.dtype, np.float64)
    mantissas, exponents = np.frexp(x.astype(wide))
    before, exponents_before = _scaled_before(mantissas, exponents)
    flipped, exponents_flipped = _scaled_before(mantissas[..., ::-1], exponents[..., ::-1])
    behind = flipped[..., ::-1]
    exponents_behind = exponents_flipped[..., ::-1]
    mantissa, exponent = np.frexp(g.astype(wide))
    power = exponent + exponents_before + exponents_behind
    return np.ldexp(mantissa * before * behind, power).astype(x.dtype)


def _before(x: Array) -> Array:
    """Return the product of all elements before each one: 1 for the first."""
    out = np.ones_like(x)
    np.multiply.accumulate(x[..., :-1], axis=-1, out=out[..., 1:])
    return out


def _scaled_before(mantissas: Array, exponents: Array) -> tuple[Array, Array]:
    """Return mantissas and exponents of the products of all elements before each one."""
    out = np.ones_like(mantissas)
    out[..., 1:] = mantissas[..., :-1]
    power = np.zeros_like(exponents, np.int64)
    np.cumsum(exponents[..., :-1], axis=-1, out=power[..., 1:])
    shift: Any = 0  # the exponents that the blocks before have taken out of their mantissas
    for start in range(0, out.shape[-1], BLOCK):
        block = out[..., start : start + BLOCK]
        if start:
            block[..., 0] *= out[..., start - 1]
        block[...], shifts = np.frexp(np.multiply.accumulate(block, axis=-1))
        power[..., start : start + BLOCK] += shifts + shift
        shift = (shifts + shift)[..., -1:]
    return out, power
