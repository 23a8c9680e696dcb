"""Sorting and picking along an axis: sort, argsort, topk, argmin, take, take_along_axis, one_hot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import describe
from ..record import as_tensor, astype, copy, primitive, sum_to
from ..tensor import NUMERIC, Array, Operand, Tensor, attach
from ..validation import integer
from .indexing import getitem
from .shape import reshape

__all__ = ["argmin", "argsort", "one_hot", "sort", "take", "take_along_axis", "topk"]


# Picking --------------------------------------------------------------------------------------------------------------
def _positions(op: str, indices: Operand) -> Tensor:
    """Copy indices, so that the gradient uses the same ones; by an op, so that hooks see where they come from."""
    given = as_tensor(indices)
    nothing = not given.size and isinstance(indices, (list, tuple))
    if given.dtype.kind not in "iu" and not nothing:
        remedy = "select by a mask with x[mask]" if given.dtype == np.bool_ else "convert them with .astype(int)"
        raise TypeError(f"{op}: indices are {given.dtype} {given.shape}; they must be integers ({remedy})")
    return copy(given) if given.dtype == np.intp else astype(given, np.intp)


def _added_at(size: int, places: Array, values: Array) -> Array:
    """Add values into zeros, at places in row-major order; half precision is added up in single precision."""
    out = np.zeros(size, np.float32 if values.dtype == np.float16 else values.dtype)
    np.add.at(out, places.ravel(), values.ravel())
    return out.astype(values.dtype, copy=False)


def _from_start(indices: Array, length: int) -> Array:
    return np.where(indices < 0, indices + length, indices)


@primitive
def _take_along_axis(x: Any, indices: Any, /, *, axis: int) -> Any:
    return np.take_along_axis(x, indices, axis)


@primitive
def _add_along_axis(g: Any, indices: Any, /, *, axis: int, length: int) -> Any:
    """Add into zeros, with `length` elements along the axis, where `_take_along_axis` reads: its adjoint."""
    rows = np.moveaxis(g, axis, -1)
    in_rows = _from_start(np.moveaxis(np.broadcast_to(indices, g.shape), axis, -1), length)
    shape = rows.shape[:-1]
    count = math.prod(shape)
    begins = np.arange(count).reshape(*shape, 1) * length  # of the rows, in row-major order
    out = _added_at(count * length, begins + in_rows, rows)
    return np.moveaxis(out.reshape(*shape, length), -1, axis)


_take_along_axis.defvjp(
    lambda g, out, x, indices, axis: sum_to(_add_along_axis(g, indices, axis=axis, length=x.shape[axis]), x.shape),
    None,
)
_add_along_axis.defvjp(lambda h, out, g, indices, axis, length: _take_along_axis(h, indices, axis=axis), None)


def take_along_axis(x: Operand, indices: Operand, axis: int | None = -1) -> Tensor:
    """Pick elements along an axis, at positions that may differ from row to row, such as those from `argsort`.

    Parameters
    ----------
    x : array_like
    indices : array_like of int
        As many axes as ``x``; the lengths beside `axis` broadcast. Negative ones count from the end. In the gradient,
        positions that repeat add up.
    axis : int or None
        None: the elements of ``x`` in row-major order; `indices` has one axis then.

    Raises
    ------
    IndexError
        If an index is out of range.
    TypeError, ValueError
        If `indices` are no integers, or do not fit the shape.

    Examples
    --------
    >>> take_along_axis([[1.0, 2.0], [3.0, 4.0]], [[1], [0]], axis=1)
    Tensor([[2.],
            [3.]], dtype=float64)
    """
    places = _positions("take_along_axis", indices)
    if axis is None:
        return _take_along_axis(reshape(x, -1), places, axis=0)
    return _take_along_axis(x, places, axis=axis)


@primitive
def _take(x: Any, indices: Any, /, *, axis: int) -> Any:
    return np.take(x, indices, axis)


@primitive
def _add_taken(g: Any, indices: Any, /, *, axis: int, shape: tuple[int, ...]) -> Any:
    """Add into zeros of `shape` where `_take` reads: its adjoint."""
    size = math.prod(shape)
    places = np.take(np.arange(size).reshape(shape), indices, axis)
    return _added_at(size, places, g).reshape(shape)


_take.defvjp(lambda g, out, x, indices, axis: _add_taken(g, indices, axis=axis, shape=x.shape), None)
_add_taken.defvjp(lambda h, out, g, indices, axis, shape: _take(h, indices, axis=axis), None)


def take(x: Operand, indices: Operand, axis: int | None = None) -> Tensor:
    """Pick the parts at the given positions along an axis (None: elements, in row-major order).

    Parameters
    ----------
    x : array_like
    indices : array_like of int, of any shape
        Negative ones count from the end. In the gradient, positions that repeat add up.
    axis : int or None
        In the result, the axes of `indices` stand in its place.

    Raises
    ------
    IndexError
        If an index is out of range.
    TypeError
        If `indices` are no integers.

    Examples
    --------
    >>> take([[1.0, 2.0], [3.0, 4.0]], [1, 1, 0], axis=0)
    Tensor([[3., 4.],
            [3., 4.],
            [1., 2.]], dtype=float64)
    """
    places = _positions("take", indices)
    return _take(reshape(x, -1), places, axis=0) if axis is None else _take(x, places, axis=axis)


# Sorting --------------------------------------------------------------------------------------------------------------
def _order(x: Array, axis: int, descending: bool) -> Any:
    """Return the positions that sort `x`: equal elements stay in their order, NaNs count as the largest."""
    if not descending:
        return np.argsort(x, axis, kind="stable")
    backward = np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    return x.shape[axis] - 1 - backward


@primitive
def argsort(x: Any, /, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """Positions that sort along an axis, as integers without a gradient; see `sort` for the parameters.

    Examples
    --------
    >>> argsort([3.0, 1.0, 2.0])
    Tensor([1, 2, 0], dtype=int64)
    """
    return _order(x.ravel(), 0, descending) if axis is None else _order(x, axis, descending)


def sort(x: Operand, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Tensor:
    """Return the elements in ascending order along an axis; as a method, too, this is a new Tensor.

    The gradient goes to where the elements come from. NaNs count as the largest, as in NumPy and PyTorch.

    Parameters
    ----------
    x : array_like
    axis : int or None
        None: all elements, in one axis.
    descending : bool
        Begin with the largest.
    stable : bool
        NumPy and PyTorch have it; here equal elements always stay in their order.

    Examples
    --------
    >>> sort([[3.0, 1.0], [2.0, 4.0]])
    Tensor([[1., 3.],
            [2., 4.]], dtype=float64)
    """
    x = reshape(x, -1) if axis is None else as_tensor(x)
    axis = _checked_axis("sort", x, 0 if axis is None else axis)
    return _take_along_axis(x, argsort(x, axis, descending=descending), axis=axis)


def topk(x: Operand, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """Return the `k` largest elements along an axis, the largest first, and their positions.

    The gradient goes to where the elements come from. Of equal elements the first are taken; NaNs count as the largest,
    as in PyTorch.

    Parameters
    ----------
    x : array_like
    k : int
        At most the length of the axis.
    axis : int
    largest : bool
        False: the `k` smallest, the smallest first.

    Returns
    -------
    values : Tensor
    indices : Tensor of int64
        Without a gradient.

    Examples
    --------
    >>> values, indices = topk([1.0, 4.0, 3.0], 2)
    >>> values, indices
    (Tensor([4., 3.], dtype=float64), Tensor([1, 2], dtype=int64))
    """
    x = as_tensor(x)
    k = integer("topk", "k", k)
    axis = _checked_axis("topk", x, axis)
    if k > x.shape[axis]:
        raise ValueError(
            f"topk({describe(x)}): k is {k}; it must be at most {x.shape[axis]}, the length of axis {axis}"
        )
    order = argsort(x, axis, descending=largest)
    first = getitem(order, (slice(None),) * axis + (slice(k),))
    indices = copy(first)  # a view would keep all positions
    return _take_along_axis(x, indices, axis=axis), indices


def _checked_axis(op: str, x: Tensor, axis: int) -> int:
    try:
        return np.lib.array_utils.normalize_axis_index(axis, x.ndim)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{op}({describe(x)}): {error}") from error


@primitive
def argmin(x: Any, /, axis: int | None = None, keepdims: bool = False) -> Any:
    """Position of the (first) smallest element, as integers without a gradient.

    Examples
    --------
    >>> argmin([[1.0, 2.0], [4.0, 3.0]], axis=1)
    Tensor([0, 1], dtype=int64)
    """
    return np.argmin(x, axis=axis, keepdims=keepdims)


argsort.defvjp(None)
argmin.defvjp(None)


# Classes --------------------------------------------------------------------------------------------------------------
@primitive
def _one_hot(indices: Any, /, *, classes: int, dtype: npt.DTypeLike) -> Any:
    return (indices[..., None] == np.arange(classes)).astype(dtype)


_one_hot.defvjp(None)


def one_hot(indices: Operand, num_classes: int | None = None, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Rows that are 1 at an index and 0 elsewhere, without a gradient.

    Parameters
    ----------
    indices : array_like of int, of any shape
        Classes, from 0 on.
    num_classes : int, optional
        Length of the rows; by default, the largest index plus 1.
    dtype : data type
        float32, unless another is given, so that float32 stays float32 in products; PyTorch returns int64.

    Returns
    -------
    Tensor, shape of `indices` + (num_classes,)

    Raises
    ------
    ValueError
        If an index is negative, or not less than `num_classes`.

    Examples
    --------
    >>> one_hot([2, 0], 3)
    Tensor([[0., 0., 1.],
            [1., 0., 0.]], dtype=float32)
    """
    places = _positions("one_hot", indices)
    array = places._array
    if np.dtype(dtype).kind not in NUMERIC:
        raise TypeError(f"one_hot: dtype is {dtype!r}; it must be one of floats, integers or booleans")
    if num_classes is not None:
        classes = integer("one_hot", "num_classes", num_classes)
    elif array.size:
        classes = int(array.max()) + 1
    else:
        raise ValueError(f"one_hot: indices of shape {places.shape} hold no class; pass num_classes")
    wrong = array[(array < 0) | (array >= classes)]
    if wrong.size:
        raise ValueError(
            f"one_hot: index {wrong[0]} is no class; indices must be at least 0 and less than num_classes, {classes}"
        )
    return _one_hot(places, classes=classes, dtype=dtype)


@attach
class SortingMethods:
    """Methods of `Tensor` that are defined here."""

    argmin = argmin
    argsort = argsort
    sort = sort
    take = take
    topk = topk
