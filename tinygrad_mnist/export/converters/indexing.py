"""Converters of indexing and its adjoint. Index arrays may be computed; a mask must be a constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.indexing import _getitem, _put_at
from ..onnx_graph import Graph, Value
from ..program import Dim, Dims
from .common import FIRST, LAST, added_at, broadcast, dims_of, expanded, places, reshaped
from .registry import onnx_converter

__all__: list[str] = []

FAR = 10**9  # rows: more than any batch has


@onnx_converter(_getitem)
def _get(graph: Graph, x: Value, *, index: tuple[Any, ...]) -> Value:
    return _indexed(graph, x, index, graph.dims)


@onnx_converter(_put_at)
def _put(
    graph: Graph,
    x: Value,
    *,
    index: tuple[Any, ...],
    shape: Dims,
) -> Value:
    where = _indexed(graph, places(graph, shape), index, dims_of(x))
    repeated = any(isinstance(part, Value) and part.dtype != np.bool_ for part in index)
    return added_at(graph, x, where, shape, repeated)


def _indexed(graph: Graph, x: Value, index: tuple[Any, ...], out: Dims) -> Value:
    """Return ``x[index]``, which has the shape `out`."""
    parts = _parts(graph, index)
    arrays = any(isinstance(part, Value) for part in parts)
    if arrays:  # integers become index arrays, too: NumPy broadcasts them with each other
        parts = [part if _is_basic(part) else graph.cast(part, np.int64) for part in parts]
    axes = [part for part in _without_dots(parts, len(dims_of(x))) if part is not None]
    x = _sliced(graph, x, axes)
    if arrays:
        picked = {axis: part for axis, part in enumerate(axes) if isinstance(part, Value)}
        standing = [i for i, part in enumerate(parts) if isinstance(part, Value)]
        together = standing[-1] - standing[0] + 1 == len(standing)  # an empty ... between them separates, too
        x = _gathered(graph, x, picked, len(axes), together)
    if any(part is None for part in parts):
        return reshaped(graph, x._replace(dims=None), out)
    numbers = [] if arrays else [axis for axis, part in enumerate(axes) if not isinstance(part, slice)]
    if numbers:
        x = graph.add("Squeeze", x, graph.ints(*numbers))
    return x._replace(dims=out)


def _parts(graph: Graph, index: tuple[Any, ...]) -> list[Any]:
    """Return slices, integers, index arrays, None and Ellipsis: instead of a mask, the places where it holds."""
    parts: list[Any] = []
    for part in index:
        if isinstance(part, (bool, np.bool_)) or (isinstance(part, Value) and part.dtype == np.bool_):
            mask = part.constant if isinstance(part, Value) else np.asarray(part)
            if mask is None or not mask.ndim:
                raise NotImplementedError(
                    f"to_onnx: x[mask] ({graph.place}) has no converter for a mask that is computed, because the shape "
                    "of the result depends on values, nor for a mask without axes; use tg.where(mask, x, 0)"
                )
            parts += [graph.constant(array) for array in np.nonzero(mask)]
        else:
            parts.append(part)
    return parts


def _is_basic(part: Any) -> bool:
    return part is None or part is Ellipsis or isinstance(part, slice)


def _without_dots(parts: list[Any], ndim: int) -> list[Any]:
    """Write slices for ``...``, or at the end, so that every axis has a part."""
    missing = ndim - sum(part is not None and part is not Ellipsis for part in parts)
    gap = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    return [*parts[:gap], *[slice(None)] * missing, *parts[gap + 1 :]]


def _sliced(graph: Graph, x: Value, axes: list[Any]) -> Value:
    """Cut slices, and pieces of length 1 at integers."""
    starts: list[Any] = []
    ends: list[Any] = []
    steps: list[int] = []
    cut: list[int] = []
    for axis, part in enumerate(axes):
        if isinstance(part, Value) or part == slice(None):
            continue
        if isinstance(part, slice):
            _check_slice(graph, part, dims_of(x)[axis])
            step = 1 if part.step is None else part.step
            starts.append((0 if step > 0 else LAST) if part.start is None else part.start)
            ends.append((LAST if step > 0 else FIRST) if part.stop is None else part.stop)
        else:
            step = 1
            starts.append(part)
            behind = part._replace(offset=part.offset + 1) if isinstance(part, Dim) else int(part) + 1
            ends.append(behind or LAST)
        steps.append(step)
        cut.append(axis)
    if not cut:
        return x
    return graph.add("Slice", x, graph.shape(starts), graph.shape(ends), graph.ints(*cut), graph.ints(*steps))


def _check_slice(graph: Graph, part: slice, length: int | Dim) -> None:
    """Refuse a slice whose length does not go on with the number of rows as it began, such as x[:128]."""
    if not isinstance(length, Dim):
        return

    def taken(rows: int) -> int:
        ends = [end.at(rows) if isinstance(end, Dim) else end for end in (part.start, part.stop, part.step)]
        whole = slice(*(None if end is None else int(end) for end in ends))
        return len(range(*whole.indices(int(length.at(rows)))))

    if taken(FAR) - taken(3) != (taken(4) - taken(3)) * (FAR - 3):
        raise NotImplementedError(
            f"to_onnx: a slice of the rows ({graph.place}), {part}, takes all of a small batch or nothing, but not of "
            "a large one; compute all rows at once, or pass dynamic_batch=False"
        )


def _gathered(graph: Graph, x: Value, picked: dict[int, Value], ndim: int, together: bool) -> Value:
    """Pick at index arrays. Their axes stand where they stood, if they stood `together`; else they come first."""
    first, *others = picked
    if not others:
        return graph.add("Gather", x, picked[first], axis=first)
    kept = [axis for axis in range(ndim) if axis not in picked]
    x = graph.add("Transpose", x, perm=[*picked, *kept])
    indices, count = _stacked(graph, [*picked.values()])
    out = graph.add("GatherND", x, indices)
    before = sum(axis < first for axis in kept) if together else 0
    if not before:
        return out
    order = [*range(count, count + before), *range(count), *range(count + before, count + len(kept))]
    return graph.add("Transpose", out, perm=order)


def _stacked(graph: Graph, indices: list[Value]) -> tuple[Value, int]:
    """Broadcast index arrays, and stack them along a new last axis; return the number of their axes, too."""
    constants = [index.constant for index in indices if index.constant is not None]
    if len(constants) == len(indices):
        joined = np.stack(np.broadcast_arrays(*constants), -1)
        return graph.constant(joined), joined.ndim - 1
    dims = broadcast(*map(dims_of, indices))
    parts = [reshaped(graph, expanded(graph, index, dims), (*dims, 1)) for index in indices]
    return graph.add("Concat", *parts, axis=len(dims)), len(dims)
