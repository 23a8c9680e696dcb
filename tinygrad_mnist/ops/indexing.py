"""Indexing, and its adjoint."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..record import copy, primitive
from ..tensor import NUMERIC, Array, Operand, Tensor, attach, wrap

__all__ = ["getitem"]


@primitive
def _getitem(x: Any, /, *, index: Any) -> Any:
    return x[index]


@primitive
def _put_at(x: Any, /, *, index: Any, shape: tuple[int, ...]) -> Array:
    """Add ``x`` into zeros of `shape` at `index`, repeated positions adding up: the adjoint of ``_getitem``."""
    half = x.dtype == np.float16  # added up in single precision, as in every sum
    out = np.zeros(shape, np.float32 if half else x.dtype)
    if any(isinstance(part, np.ndarray) and part.dtype != np.bool_ for part in index):
        np.add.at(out, index, x)
    else:
        out[index] = x
    return out.astype(x.dtype, copy=False)


_getitem.defvjp(lambda g, out, x, index: _put_at(g, index=index, shape=x.shape))
_put_at.defvjp(lambda g, out, x, index, shape: _getitem(g, index=index))


def getitem(x: Operand, index: Any) -> Tensor:
    """``x[index]`` with slices, integers, None, ``...``, integer arrays and boolean masks.

    Whatever NumPy makes an array of (lists, Tensors, an ``array.array``, a pandas Series) counts as one, and is copied.
    In the gradient, positions that repeat add up.

    Examples
    --------
    >>> getitem([10.0, 20.0, 30.0], [0, 0, 2])
    Tensor([10., 10., 30.], dtype=float64)
    """
    return _getitem(x, index=tuple(map(_index_part, index if isinstance(index, tuple) else (index,))))


def _index_part(part: Any) -> Any:
    """Copy index arrays, so that the gradient uses the same ones; whatever NumPy makes an array of is one, too."""
    if part is None or part is Ellipsis or isinstance(part, (int, np.integer)):
        return part
    if isinstance(part, slice):
        return slice(*(None if end is None else operator.index(end) for end in (part.start, part.stop, part.step)))
    array = np.asarray(part._array if isinstance(part, Tensor) else part)
    if array.dtype == object and array.ndim == 0:  # no array, but perhaps an integer
        return operator.index(part) if hasattr(part, "__index__") else part
    if array.dtype.kind in NUMERIC:
        array = copy(wrap(array))._array  # by an op, so that hooks see where the indices come from
    return array if array.size or isinstance(part, (Tensor, np.ndarray)) else array.astype(np.intp)


@attach
class IndexingMethods:
    """Methods of `Tensor` that are defined here."""

    __getitem__ = getitem

    def __iter__(self: Any) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))
