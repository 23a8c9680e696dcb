"""Large NumPy calls on several threads: they are cut along an axis, and the pieces dealt to a pool, without the GIL.

How a call is cut depends on the arrays alone, or changes no bit, so none of a result depends on the number of threads.
Workers sleep between calls; a caller works, too. A child process begins with a pool of its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import cache
from typing import Any

import numpy as np

from .machine import keep_freed_memory, one_blas_thread_of_numpy, op_threads
from .products import Array

__all__ = [
    "LARGE",
    "SLICES",
    "cuts",
    "deal",
    "dealt",
    "elementwise",
    "matmul",
    "pieces_for_threads",
    "reduce_sum",
]

LARGE = 1 << 20  # numbers in an array from which on a call is cut: 0.2 ms or more, of which dealing takes 0.05
COSTLY = 1 << 18  # the same for functions such as exp
SLICES = 16  # pieces of a call
FEW_PRODUCTS = 1 << 18  # multiplications for which OpenBLAS takes one thread anyway
MANY_PRODUCTS = 1 << 23  # multiplications from which on a matrix product is cut
NARROWEST = 128  # rows or columns in a piece of one


@cache
def _pool() -> Any:
    from concurrent.futures import ThreadPoolExecutor  # imported here because it takes 8 ms

    keep_freed_memory()
    return ThreadPoolExecutor(max(op_threads() - 1, 1), "op")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def pieces_for_threads() -> int:
    """Return into how many pieces to cut what gives the same bits however it is cut; some threads may come late."""
    threads = op_threads()
    return 1 if threads == 1 else 4 * threads


def deal(function: Callable[[Any], object], pieces: Sequence[Any]) -> None:
    """Call a function for each piece, on as many threads as an op may use; an error in any is raised here."""
    if len(pieces) == 1:
        function(pieces[0])
        return
    todo = deque(pieces)

    def work() -> None:
        while todo:
            try:
                piece = todo.popleft()
            except IndexError:  # another thread was faster
                return
            function(piece)

    helpers = min(op_threads(), len(pieces)) - 1
    futures = []
    with suppress(RuntimeError):  # no thread can be started, as while the interpreter ends
        for _ in range(helpers):
            futures.append(_pool().submit(copy_context().run, work))  # with np.errstate of the caller
    try:
        work()
    finally:
        todo.clear()
        for future in futures:
            if not future.cancel():  # it has begun
                future.result()


def cuts(length: int, most: int = SLICES) -> list[slice]:
    """Cut a range of that length into at most so many pieces."""
    step = -(-length // most)
    return [slice(begin, begin + step) for begin in range(0, length, step)]


def _axis(x: Array) -> int:
    """Return the axis to cut along: the outermost in memory that is long enough, else the longest."""
    axes = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return next((axis for axis in axes if x.shape[axis] >= SLICES), int(np.argmax(x.shape)))


def elementwise(function: Any, *arrays: Any, dtype: np.dtype[Any] | None = None) -> Any:
    """``function(*arrays)``, of arrays or numbers, of which one at least is large: a ufunc, or a function with ``out``.

    The latter's result has the given dtype.
    """
    shape = np.broadcast_shapes(*map(np.shape, arrays))
    model = next((a for a in arrays if np.shape(a) == shape), None)
    if model is None:  # broadcasting makes the result larger than each of them
        return function(*arrays)
    kinds = [a.dtype if isinstance(a, (np.ndarray, np.generic)) else type(a) for a in arrays]
    out = np.empty_like(model, dtype or function.resolve_dtypes((*kinds, None))[-1])
    axis = _axis(model)
    before = (slice(None),) * axis

    def cut(a: Any, piece: slice) -> Any:
        own = axis - len(shape) + np.ndim(a)  # the same axis of this array
        return a if own < 0 or a.shape[own] == 1 else a[(slice(None),) * own + (piece,)]

    def compute(piece: slice) -> None:
        function(*[cut(a, piece) for a in arrays], out=out[(*before, piece)])

    deal(compute, cuts(shape[axis]))
    return out


def dealt(ufunc: np.ufunc) -> Callable[[Any], Any]:
    """Make a function of one array of a ufunc that takes nanoseconds for each number: large arrays are dealt out."""

    def call(x: Any) -> Any:
        return ufunc(x) if x.size < COSTLY else elementwise(ufunc, x)

    return call


def reduce_sum(x: Array, axis: Any, keepdims: bool) -> Any:
    """``np.sum`` of a large array, along whose outermost axis nothing depends on how many threads there are.

    Where that axis is summed, the sums of its pieces are added up.
    """
    axes = tuple(range(x.ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    along = _axis(x)
    before, pieces = (slice(None),) * along, cuts(x.shape[along])
    parts: list[Any] = [None] * len(pieces)

    def compute(number: int) -> None:
        parts[number] = np.add.reduce(x[(*before, pieces[number])], axis=axes, keepdims=True)

    deal(compute, range(len(pieces)))
    out = np.add.reduce(parts) if along in axes else np.concatenate(parts, along)
    return out if keepdims else out.reshape([length for i, length in enumerate(x.shape) if i not in axes])[()]


def matmul(x: Array, y: Array) -> Any:
    """``np.matmul``, of matrices or stacks of them, on threads of an op instead of those of BLAS.

    OpenBLAS' own threads keep a core busy for milliseconds after each product, waiting for the next one.
    """
    work = x.size * y.shape[-1]
    if work < FEW_PRODUCTS or x.dtype.kind != "f":
        return np.matmul(x, y)
    with one_blas_thread_of_numpy() as known:
        if not known or work < MANY_PRODUCTS or x.ndim != 2 or y.ndim != 2:
            return np.matmul(x, y)
        out = np.empty((len(x), y.shape[1]), np.result_type(x, y))
        rows = len(x) >= y.shape[1]
        length = max(out.shape)
        pieces = cuts(length, min(max(length // NARROWEST, 1), SLICES))

        def compute(piece: slice) -> None:
            if rows:
                np.matmul(x[piece], y, out=out[piece])
            else:
                np.matmul(x, y[:, piece], out=out[:, piece])

        deal(compute, pieces)
        return out
