"""Reductions: sum, mean, max, min and argmax over axes."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import kernels
from ..record import astype, broadcast_to, primitive
from ..tensor import Array, Tensor, attach
from .elementwise import select
from .shape import reshape

__all__ = ["all", "any", "argmax", "max", "mean", "min", "sum"]

Axis: TypeAlias = int | Sequence[int] | None


def _normalized(axis: Axis, ndim: int) -> tuple[int, ...]:
    if not ndim and axis in (0, -1):  # of a 0-d array, NumPy takes them
        return ()
    return tuple(range(ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, ndim)


def _kept(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Return `shape` with the reduced axes kept at length 1."""
    axes = _normalized(axis, len(shape))
    return tuple([1 if i in axes else length for i, length in enumerate(shape)])


@primitive
def sum(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over the given axes (None: all).

    Examples
    --------
    >>> sum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([4., 6.], dtype=float64)
    """
    return kernels.add_up(x, axis, keepdims)


@primitive
def mean(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over the given axes (None: all); an error if there is nothing to average.

    Examples
    --------
    >>> mean([[1.0, 2.0], [3.0, 4.0]], axis=1, keepdims=True)
    Tensor([[1.5],
            [3.5]], dtype=float64)
    """
    if not builtins.all(x.shape[i] for i in _normalized(axis, x.ndim)):
        raise ValueError(f"axis {axis} is empty, and the mean of nothing is undefined; give it at least one element")
    return kernels.average(x, axis, keepdims)


def _spread(g: Tensor, out: Tensor, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    return broadcast_to(reshape(g, _kept(x.shape, axis)), x.shape)


def _share(g: Tensor, out: Tensor, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    count = x.size // builtins.max(out.size, 1) or 1
    if g.data.dtype == np.float16:  # half precision does not reach beyond 65,504
        return _spread(astype(astype(g, np.float32) / count, np.float16), out, x, axis, keepdims)
    return _spread(g / count, out, x, axis, keepdims)


sum.defvjp(_spread)
mean.defvjp(_share)


@primitive
def _first_extreme(x: Any, /, *, axis: Axis, arg: Callable[..., Array]) -> Array:
    """Mark the first element, row-major over the reduced axes, that ``np.argmax`` or ``np.argmin`` finds."""
    axes = sorted(_normalized(axis, x.ndim))
    last = range(-len(axes), 0)
    moved = np.moveaxis(x, axes, last)
    flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], math.prod(moved.shape[x.ndim - len(axes) :]))
    marks = np.zeros_like(flat, np.bool_)
    np.put_along_axis(marks, arg(flat, axis=-1, keepdims=True), True, axis=-1)
    return np.moveaxis(marks.reshape(moved.shape), last, axes)


@primitive
def max(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest element over the given axes (None: all); the gradient goes to the first of equal ones, or of NaNs.

    Examples
    --------
    >>> max([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([2., 4.], dtype=float64)
    """
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive
def min(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Smallest element over the given axes (None: all); the gradient goes to the first of equal ones, or of NaNs.

    Examples
    --------
    >>> min([[1.0, 2.0], [3.0, 4.0]], axis=(0, 1))
    Tensor(1., dtype=float64)
    """
    return np.min(x, axis=axis, keepdims=keepdims)


@primitive
def argmax(x: Any, /, axis: int | None = None, keepdims: bool = False) -> Any:
    """Position of the (first) largest element, as integers without a gradient.

    Examples
    --------
    >>> argmax([[1.0, 2.0], [4.0, 3.0]], axis=1)
    Tensor([1, 0], dtype=int64)
    """
    return np.argmax(x, axis=axis, keepdims=keepdims)


@primitive
def all(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether all elements over the given axes (None: all axes) are true (not zero).

    Examples
    --------
    >>> all([[True, False], [True, True]], axis=1)
    Tensor([False,  True], dtype=bool)
    """
    return np.all(x, axis=axis, keepdims=keepdims)  # type: ignore[arg-type]  # an op gets tuples, no lists


@primitive
def any(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether some element over the given axes (None: all axes) is true (not zero).

    Examples
    --------
    >>> any([[True, False], [False, False]], axis=1)
    Tensor([ True, False], dtype=bool)
    """
    return np.any(x, axis=axis, keepdims=keepdims)  # type: ignore[arg-type]  # as in all


_first_extreme.defvjp(None)
max.defvjp(
    lambda g, out, x, axis, keepdims: select(
        reshape(g, _kept(x.shape, axis)), _first_extreme(x, axis=axis, arg=np.argmax)
    )
)
min.defvjp(
    lambda g, out, x, axis, keepdims: select(
        reshape(g, _kept(x.shape, axis)), _first_extreme(x, axis=axis, arg=np.argmin)
    )
)
argmax.defvjp(None)
all.defvjp(None)
any.defvjp(None)


@attach
class ReductionMethods:
    """Methods of `Tensor` that are defined here."""

    all = all
    any = any
    sum = sum
    mean = mean
    max = max
    min = min
    argmax = argmax
