"""Ops that rearrange elements: flatten to tile, diagonals and triangles."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..record import as_tensor, broadcast_to, primitive
from ..tensor import Array, Operand, Tensor, attach
from .elementwise import select
from .indexing import _put_at, getitem
from .reduction import sum
from .shape import reshape

__all__ = [
    "array_split",
    "diag",
    "diagonal",
    "flatten",
    "flip",
    "moveaxis",
    "ravel",
    "repeat",
    "roll",
    "split",
    "tile",
    "tril",
    "triu",
]


# Shapes ---------------------------------------------------------------------------------------------------------------
def flatten(x: Operand, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """Join the axes from `start_axis` to `end_axis`, both included, into one; a 0-d Tensor becomes one of length 1.

    Examples
    --------
    >>> flatten([[1.0, 2.0], [3.0, 4.0]])
    Tensor([1., 2., 3., 4.], dtype=float64)
    >>> flatten(np.ones((2, 3, 4)), 1).shape
    (2, 12)
    """
    x = as_tensor(x)
    ndim = x.ndim or 1
    start, end = _integer("flatten", "start_axis", start_axis), _integer("flatten", "end_axis", end_axis)
    if not (-ndim <= start < ndim and -ndim <= end < ndim and start % ndim <= end % ndim):
        raise ValueError(
            f"flatten: axes {start} to {end} are no range of axes of shape {x.shape}; start_axis must not be behind "
            "end_axis"
        )
    first = start % ndim
    behind = end % ndim + 1
    joined = math.prod(x.shape[first:behind])
    return reshape(x, (*x.shape[:first], joined, *x.shape[behind:]))


def ravel(x: Operand) -> Tensor:
    """Arrange all elements, in row-major order, along one axis.

    Examples
    --------
    >>> ravel([[1.0, 2.0], [3.0, 4.0]])
    Tensor([1., 2., 3., 4.], dtype=float64)
    """
    return reshape(x, -1)


@primitive
def moveaxis(x: Any, /, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Move axes to other positions; the others stay in order.

    Examples
    --------
    >>> moveaxis(np.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    return np.moveaxis(x, source, destination)


@primitive
def flip(x: Any, /, axis: int | Sequence[int] | None = None) -> Any:
    """Reverse the order of the elements along the given axes (None: all).

    Examples
    --------
    >>> flip([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([[2., 1.],
            [4., 3.]], dtype=float64)
    """
    return np.flip(x, axis)  # type: ignore[arg-type]  # an op gets tuples, no lists


moveaxis.defvjp(lambda g, out, x, source, destination: moveaxis(g, destination, source))
flip.defvjp(lambda g, out, x, axis: flip(g, axis))


@primitive
def _roll(x: Any, /, *, shift: Any, axis: Any) -> Array:
    return np.roll(x, shift, axis)


_roll.defvjp(lambda g, out, x, shift, axis: _roll(g, shift=np.negative(shift).tolist(), axis=axis))


def _integer(op: str, name: str, given: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise TypeError(f"{op}: {name} is {given!r}; it must be an integer") from None


def _integers(op: str, name: str, given: Any) -> int | tuple[int, ...]:
    """Copy one integer or several: an array that is given could be changed after it was recorded."""
    numbers = np.asarray(given)
    if (numbers.size and numbers.dtype.kind not in "biu") or numbers.ndim > 1:
        raise TypeError(f"{op}: {name} is {given!r}; it must be an integer or a sequence of integers")
    return tuple(map(int, numbers)) if numbers.ndim else int(numbers)


def roll(x: Operand, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Move the elements by `shift` positions; those that leave at the end come in at the beginning.

    Parameters
    ----------
    x : array_like
    shift : int or sequence of int
        By how many positions, for each of the axes.
    axis : int or sequence of int, optional
        None: the elements are moved as if they stood along one axis.

    Examples
    --------
    >>> roll([1.0, 2.0, 3.0], 1)
    Tensor([3., 1., 2.], dtype=float64)
    """
    return _roll(x, shift=_integers("roll", "shift", shift), axis=axis)


# Pieces ---------------------------------------------------------------------------------------------------------------
def split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut into pieces along an axis: into so many equal ones, or before each of the given positions.

    As in NumPy; PyTorch's function of this name takes the lengths of the pieces instead.

    Raises
    ------
    ValueError
        If the length of the axis is no multiple of the number of pieces (see `array_split`).

    Examples
    --------
    >>> split([1.0, 2.0, 3.0], [1])
    [Tensor([1.], dtype=float64), Tensor([2., 3.], dtype=float64)]
    """
    return _pieces("split", as_tensor(x), indices_or_sections, axis)


def array_split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut into pieces along an axis, as `split` does; equal ones may differ in length by 1, the longer first.

    Examples
    --------
    >>> array_split([1.0, 2.0, 3.0], 2)
    [Tensor([1., 2.], dtype=float64), Tensor([3.], dtype=float64)]
    """
    return _pieces("array_split", as_tensor(x), indices_or_sections, axis)


def _pieces(op: str, x: Tensor, given: Any, axis: int) -> list[Tensor]:
    where, axis = _integers(op, "indices_or_sections", given), _integer(op, "axis", axis)
    try:
        length = x.shape[axis]
    except IndexError:
        raise IndexError(f"{op}: axis {axis} is out of bounds for shape {x.shape}") from None
    if isinstance(where, int):
        if where < 1 or (op == "split" and length % where):
            raise ValueError(
                f"{op}: axis {axis} of shape {x.shape} cannot be cut into {where} equal pieces; pass positions, or use "
                "array_split"
            )
        short, longer = divmod(length, where)
        where = tuple(i * short + min(i, longer) for i in range(1, where))
    ends = [0, *where, length]
    before = (slice(None),) * (axis % x.ndim)
    return [getitem(x, (*before, slice(start, end))) for start, end in zip(ends, ends[1:], strict=False)]


# Copies ---------------------------------------------------------------------------------------------------------------
@primitive
def _repeat(x: Any, /, *, repeats: Any, axis: int | None) -> Array:
    return np.repeat(x, repeats, axis)


def _add_copies(g: Tensor, out: Tensor, x: Tensor, repeats: Any, axis: int | None) -> Tensor:
    """Add up the gradients of the copies of every element."""
    if axis is None or not x.ndim:
        return reshape(_add_copies(g, out, reshape(x, -1), repeats, 0), x.shape)
    axis %= x.ndim
    length = x.shape[axis]
    if isinstance(repeats, int):  # the copies of an element stand along an axis of their own
        apart = (*x.shape[:axis], length, repeats, *x.shape[axis + 1 :])
        return sum(reshape(g, apart), axis + 1)
    index = (slice(None),) * axis + (np.repeat(np.arange(length), repeats),)
    return _put_at(g, index=index, shape=x.shape)


_repeat.defvjp(_add_copies)


def repeat(x: Operand, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Repeat every element, each so many times, or each as often as its own number says.

    As in NumPy, and as ``repeat_interleave`` in PyTorch; PyTorch's ``repeat`` is `tile`.

    Parameters
    ----------
    x : array_like
    repeats : int or sequence of int
    axis : int, optional
        The axis along which to repeat; None: all elements along one axis.

    Examples
    --------
    >>> repeat([[1.0], [2.0]], [1, 3], axis=0)
    Tensor([[1.],
            [2.],
            [2.],
            [2.]], dtype=float64)
    """
    times = _integers("repeat", "repeats", repeats)
    if isinstance(times, tuple) and len(times) == 1:
        times = times[0]
    return _repeat(x, repeats=times, axis=axis)


def tile(x: Operand, reps: int | Sequence[int]) -> Tensor:
    """Put copies of the whole beside each other, `reps` along each axis; axes are added in front where there are more.

    Examples
    --------
    >>> tile([1.0, 2.0], (2, 2))
    Tensor([[1., 2., 1., 2.],
            [1., 2., 1., 2.]], dtype=float64)
    """
    x = as_tensor(x)
    given = _integers("tile", "reps", reps)
    times = (given,) if isinstance(given, int) else given
    if min(times, default=0) < 0:
        raise ValueError(f"tile: reps is {reps!r}; no axis can have less than 0 copies")
    ndim = max(x.ndim, len(times))
    shape = (1,) * (ndim - x.ndim) + x.shape
    times = (1,) * (ndim - len(times)) + times
    one: list[int] = []
    copied: list[int] = []
    tiled: list[int] = []
    for count, length in zip(times, shape, strict=True):  # (N,) -> (1, N) -> (R, N) -> (R * N,)
        one += [1, length]
        copied += [count, length]
        tiled.append(count * length)
    return reshape(broadcast_to(reshape(x, one), copied), tiled)


# Diagonals and triangles ----------------------------------------------------------------------------------------------
@primitive
def diagonal(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Return the diagonals of the matrices that two axes form, along a new last axis.

    Parameters
    ----------
    x : array_like, shape (..., M, ..., N, ...)
    offset : int
        How far above (or, negative, below) the main diagonal.
    axis1, axis2 : int
        The axes of rows and of columns. They are the first two, as in NumPy and PyTorch; ``np.linalg.diagonal`` takes
        the last two.

    Examples
    --------
    >>> diagonal([[1.0, 2.0], [3.0, 4.0]])
    Tensor([1., 4.], dtype=float64)
    """
    return np.diagonal(x, offset, axis1, axis2)


@primitive
def _diagonal_matrix(x: Any, /, *, shape: tuple[int, ...], offset: int, axis1: int, axis2: int) -> Array:
    """Put ``x`` on the diagonals of zeros of `shape`: the adjoint of `diagonal`."""
    out = np.zeros(shape, x.dtype)
    matrices = np.moveaxis(out, (axis1, axis2), (-2, -1))  # a view
    places = np.arange(x.shape[-1])
    rows = places - min(offset, 0)
    columns = places + max(offset, 0)
    matrices[..., rows, columns] = x
    return out


diagonal.defvjp(
    lambda g, out, x, offset, axis1, axis2: _diagonal_matrix(g, shape=x.shape, offset=offset, axis1=axis1, axis2=axis2)
)
_diagonal_matrix.defvjp(lambda h, out, g, shape, offset, axis1, axis2: diagonal(h, offset, axis1, axis2))


def diag(x: Operand, k: int = 0) -> Tensor:
    """Return the diagonal of a matrix, or, of a vector, the matrix that has it on its diagonal.

    Parameters
    ----------
    x : array_like, shape (M, N) or (N,)
    k : int
        How far above (or, negative, below) the main diagonal.

    Examples
    --------
    >>> diag([1.0, 2.0])
    Tensor([[1., 0.],
            [0., 2.]], dtype=float64)
    >>> diag([[1.0, 2.0], [3.0, 4.0]], 1)
    Tensor([2.], dtype=float64)
    """
    x, k = as_tensor(x), _integer("diag", "k", k)
    if x.ndim == 1:
        length = x.size + abs(k)
        return _diagonal_matrix(x, shape=(length, length), offset=k, axis1=0, axis2=1)
    if x.ndim != 2:
        raise ValueError(f"diag: shape {x.shape} is neither a vector nor a matrix; use diagonal for stacks of matrices")
    return diagonal(x, k)


def tril(x: Operand, k: int = 0) -> Tensor:
    """Return the lower triangle of matrices, with 0 above the diagonal.

    Parameters
    ----------
    x : array_like, shape (..., M, N)
        A vector counts as the row of a square matrix that is repeated, as in NumPy.
    k : int
        The last diagonal that is kept: 0 is the main one, positive ones stand above it.

    Examples
    --------
    >>> tril([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 0.],
            [3., 4.]], dtype=float64)
    """
    x = as_tensor(x)
    return select(x, _lower("tril", x.shape, k))


def triu(x: Operand, k: int = 0) -> Tensor:
    """Return the upper triangle of matrices, with 0 below the diagonal.

    Parameters
    ----------
    x : array_like, shape (..., M, N)
        A vector counts as the row of a square matrix that is repeated, as in NumPy.
    k : int
        The first diagonal that is kept: 0 is the main one, positive ones stand above it.

    Examples
    --------
    >>> triu([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 2.],
            [0., 4.]], dtype=float64)
    """
    x = as_tensor(x)
    return select(x, ~_lower("triu", x.shape, _integer("triu", "k", k) - 1))


def _lower(op: str, shape: tuple[int, ...], k: int) -> Array:
    """Mark the elements on and below the k-th diagonal of a matrix."""
    if not shape:
        raise ValueError(f"{op}: shape () has no rows and columns; pass a matrix, or a stack of matrices")
    rows, columns = (shape[-1], *shape)[-2:]
    return np.tri(rows, columns, _integer(op, "k", k), np.bool_)


@attach
class ArrangementMethods:
    """Methods of `Tensor` that are defined here."""

    diag = diag
    diagonal = diagonal
    flatten = flatten
    flip = flip
    moveaxis = moveaxis
    ravel = ravel
    repeat = repeat
    roll = roll
    tile = tile
    tril = tril
    triu = triu
