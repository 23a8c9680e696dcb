"""Ops that arrange elements in other shapes, pad them and join them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..record import as_tensor, astype, broadcast_to, primitive
from ..record import stack as _stack
from ..tensor import Array, Operand, Tensor, attach
from .indexing import getitem

__all__ = ["concatenate", "expand_dims", "pad", "reshape", "squeeze", "stack", "swapaxes", "transpose"]


def _numbers(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the numbers of ``f(2, 3)``, ``f((2, 3))`` or ``f([2, 3])`` as one tuple."""
    listed = len(given) == 1 and (isinstance(given[0], (tuple, list, range)) or np.ndim(given[0]) == 1)
    return tuple(given[0]) if listed else given


@primitive
def _reshape(x: Any, /, *, shape: tuple[int, ...], order: tuple[int, ...] | None) -> Array:
    out = x.reshape(shape)
    return out if order is None else np.ascontiguousarray(out.transpose(order)).transpose(np.argsort(order))


def _memory_order(x: Array) -> tuple[int, ...] | None:
    """Return the axes from the outermost in memory to the innermost; None if that is their usual order."""
    return None if x.flags.c_contiguous else tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))


# The gradient gets the memory order of x: mixed orders would make every step behind it slow (a flatten behind a
# max-pool: 1 % of the time).
_reshape.defvjp(lambda g, out, x, shape, order: _reshape(g, shape=x.shape, order=_memory_order(x._array)))


def reshape(x: Operand, *shape: Any) -> Tensor:
    """Arrange the elements, in row-major order, in another shape; one length may be -1.

    Parameters
    ----------
    x : array_like
    *shape : int, or one tuple of int

    Examples
    --------
    >>> reshape([1.0, 2.0, 3.0, 4.0], 2, -1)
    Tensor([[1., 2.],
            [3., 4.]], dtype=float64)
    """
    return _reshape(x, shape=_numbers(shape), order=None)


@primitive
def _transpose(x: Any, /, *, axes: tuple[int, ...]) -> Array:
    return np.transpose(x, axes)


_transpose.defvjp(lambda g, out, x, axes: _transpose(g, axes=tuple(np.argsort(np.mod(axes, x.ndim)))))


def transpose(x: Operand, *axes: Any) -> Tensor:
    """Permute the axes, given as one tuple or as numbers; without them, reverse their order.

    Examples
    --------
    >>> transpose([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 3.],
            [2., 4.]], dtype=float64)
    """
    x = as_tensor(x)
    return _transpose(x, axes=_numbers(axes) or tuple(range(x.ndim))[::-1])


@primitive
def swapaxes(x: Any, /, axis1: int, axis2: int) -> Any:
    """Exchange two axes.

    Examples
    --------
    >>> swapaxes(np.ones((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    return np.swapaxes(x, axis1, axis2)


@primitive
def expand_dims(x: Any, /, axis: int | Sequence[int]) -> Any:
    """Insert axes of length 1 at the given positions of the result.

    Examples
    --------
    >>> expand_dims([1.0, 2.0], (0, 2)).shape
    (1, 2, 1)
    """
    return np.expand_dims(x, axis)


@primitive
def squeeze(x: Any, /, axis: int | Sequence[int] | None = None) -> Any:
    """Remove the given axes of length 1 (None: all such).

    Examples
    --------
    >>> squeeze([[[1.0], [2.0]]]).shape
    (2,)
    """
    return np.squeeze(x, axis)


swapaxes.defvjp(lambda g, out, x, axis1, axis2: swapaxes(g, axis1, axis2))
expand_dims.defvjp(lambda g, out, x, axis: reshape(g, x.shape))
squeeze.defvjp(lambda g, out, x, axis: reshape(g, x.shape))


# Padding --------------------------------------------------------------------------------------------------------------
@primitive
def _pad(x: Any, /, *, pad_width: tuple[tuple[int, int], ...], value: float) -> Any:
    shape = tuple(before + length + after for length, (before, after) in zip(x.shape, pad_width, strict=True))
    out = np.empty_like(x, shape=shape)  # in the memory order of x, which np.pad would not keep
    out[...] = value
    out[_inside(pad_width, x.shape)] = x
    return out


def _inside(pad_width: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(before, before + length) for length, (before, _) in zip(shape, pad_width, strict=True))


_pad.defvjp(lambda g, out, x, pad_width, value: getitem(g, _inside(pad_width, x.shape)))


def pad(x: Operand, pad_width: Any, value: float = 0.0) -> Tensor:
    """Surround ``x`` with `value`.

    Parameters
    ----------
    x : array_like
    pad_width : int or sequence of (before, after)
        How many elements to add at both ends of every axis, or for each axis on its own, as in ``numpy.pad``.
    value : float

    Examples
    --------
    >>> pad([1.0, 2.0], ((1, 0),), 9.0)
    Tensor([9., 1., 2.], dtype=float64)
    """
    x, widths = as_tensor(x), np.asarray(pad_width)
    shapes = ((), (1,), (2,), (1, 2), (x.ndim, 1), (x.ndim, 2))
    if widths.dtype.kind not in "iu" or (widths < 0).any() or widths.shape not in shapes:
        raise ValueError(
            f"pad: pad_width {pad_width!r} does not fit shape {x.shape}; "
            "pass (before, after), both at least 0, for each axis"
        )
    pairs = tuple((int(before), int(after)) for before, after in np.broadcast_to(widths, (x.ndim, 2)))
    return _pad(x, pad_width=pairs, value=value)


# Joining --------------------------------------------------------------------------------------------------------------
@primitive
def _concatenate(*xs: Any, axis: int) -> Array:
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis is {axis!r}; it must be an integer (flatten with reshape(-1))")
    return np.concatenate(xs, axis)


def _piece(position: int, g: Tensor, out: Tensor, *xs: Tensor, axis: int) -> Tensor:
    start = sum(x.shape[axis] for x in xs[:position])
    index = (slice(None),) * (axis % out.ndim) + (slice(start, start + xs[position].shape[axis]),)
    return getitem(g, index)


_concatenate.defvjp(_piece)
_stack.defvjp(lambda i, g, out, *xs, axis: getitem(g, (slice(None),) * (axis % out.ndim) + (i,)))


def concatenate(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Join Tensors along an existing axis; the other axes must agree.

    Examples
    --------
    >>> concatenate([[1.0, 2.0], [3.0]])
    Tensor([1., 2., 3.], dtype=float64)
    """
    return _concatenate(*tensors, axis=axis)


def stack(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Join Tensors of one shape along a new axis.

    Examples
    --------
    >>> stack([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([[1., 3.],
            [2., 4.]], dtype=float64)
    """
    return _stack(*tensors, axis=axis)


@attach
class ShapeMethods:
    """Methods of `Tensor` that are defined here."""

    astype = astype
    broadcast_to = broadcast_to
    reshape = reshape
    squeeze = squeeze
    swapaxes = swapaxes
    transpose = transpose

    @property
    def T(self: Any) -> Tensor:  # noqa: N802  # NumPy's name
        """The axes in reverse order."""
        return transpose(self)
