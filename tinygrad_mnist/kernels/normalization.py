"""The passes over an array of which normalization consists, in NumPy: this is what they are.

What is normalized together, the numbers along `axes`, is a group. Sums, centers, scales and shifts are arrays with one
number for each group, in which `axes` have length 1, in a wider precision than the array.

Single precision and half precision are computed in double precision: there x - mean keeps its digits however large the
mean, and nothing overflows. Double precision is computed as it is and, where something overflows or underflows on the
way, in extended precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from .products import Array

__all__ = ["affine", "gradient_sums", "groups_in_memory", "moments", "wider"]

Axes = tuple[int, ...]


def wider(x: Array) -> Any:
    """Return the dtype of sums, centers, scales and shifts of an array."""
    return np.longdouble if x.dtype.itemsize >= 8 else np.float64


def _carefully(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compute in double precision, and in extended precision where something overflows or underflows."""

    @wraps(function)
    def call(x: Array, *others: Any, axes: Axes) -> Array:
        try:
            with np.errstate(over="raise", under="raise", invalid="ignore"):
                double = np.promote_types(x.dtype, np.float64)  # or more
                return function(*[np.asarray(a, double) for a in (x, *others)], axes=axes)
        except FloatingPointError:
            pass
        with np.errstate(all="ignore"):
            return function(*[np.asarray(a, np.longdouble) for a in (x, *others)], axes=axes)

    return call


def moments(x: Array, axes: Axes) -> Array:
    """Mean and variance, divided by the count, of each group: two arrays in one."""
    return _moments(x, axes=axes).astype(wider(x), copy=False)


def gradient_sums(g: Array, x: Array, axes: Axes, center: Any) -> Array:
    """The sum of ``g``, and of ``g * (x - center)``, of each group: two arrays in one."""
    return _gradient_sums(g, x, center, axes=axes).astype(wider(x), copy=False)


def affine(x: Array, center: Any, scale: Any, shift: Any, axes: Axes, g: Array | None = None, factor: Any = 1) -> Array:
    """``(x - center) * scale + shift``, and ``g * factor`` added to it if there is ``g``: of the dtype of ``x``."""
    added = () if g is None else (g, factor)
    out = _affine(x, center, scale, shift, *added, axes=axes)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return out.astype(x.dtype, copy=False)


@_carefully
def _moments(x: Array, axes: Axes) -> Array:
    count = max(math.prod([x.shape[axis] for axis in axes]), 1)
    mean = x.sum(axis=axes, keepdims=True) / count
    distance = x - mean
    variance = (distance * distance).sum(axis=axes, keepdims=True) / count
    return np.stack([mean, variance])


@_carefully
def _gradient_sums(g: Array, x: Array, center: Array, axes: Axes) -> Array:
    plain = g.sum(axis=axes, keepdims=True)
    products = (g * (x - center)).sum(axis=axes, keepdims=True)
    return np.stack([plain, products])


@_carefully
def _affine(x: Array, center: Any, scale: Any, shift: Any, g: Any = None, factor: Any = None, *, axes: Axes) -> Array:
    out: Array = (x - center) * scale + shift
    return out if g is None else out + g * factor


def groups_in_memory(x: Array, axes: Axes) -> tuple[int, int, int] | None:
    """Return rows, groups and length of an array that consists of them in memory, in this order; else None.

    Images, (H, C, W, N) in memory, normalized by channel, are H rows of C channels of W * N numbers.
    """
    long = [axis for axis, length in enumerate(x.shape) if length > 1]
    others = [axis for axis, length in enumerate(x.shape) if length <= 1]
    order = sorted(long, key=lambda axis: -x.strides[axis])
    dense = x.transpose(*order, *others).flags.c_contiguous
    kept = [place for place, axis in enumerate(order) if axis not in axes]
    begin, end = (kept[0], kept[-1] + 1) if kept else (0, 0)
    groups = order[begin:end]
    if not dense or len(groups) != len(kept) or groups != sorted(groups):
        return None
    parts = order[:begin], groups, order[end:]
    rows, count, length = (math.prod(x.shape[axis] for axis in part) for part in parts)
    return rows, count, length
