"""Converters of ops that rearrange elements: flip, roll, repeat, diagonals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ... import ops
from ...ops import arrangement
from ...ops.reduction import Axis
from ..onnx_graph import Graph, Value
from ..program import Dim, Dims
from .common import FIRST, LAST, added_at, axes_of, dims_of, joined, number_of, places, reshaped, transposed
from .registry import onnx_converter
from .sorting import flat

__all__: list[str] = []


def reverse(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    """Reverse the order of the elements along axes."""
    if not axes:
        return x
    count = len(axes)
    starts = graph.ints(*[LAST] * count)
    ends = graph.ints(*[FIRST] * count)
    steps = graph.ints(*[-1] * count)
    out = graph.add("Slice", x, starts, ends, graph.ints(*axes), steps)
    return out._replace(dims=x.dims)


@onnx_converter(ops.flip)
def _flip(graph: Graph, x: Value, *, axis: Axis) -> Value:
    return reverse(graph, x, axes_of(x, axis))


@onnx_converter(ops.moveaxis)
def _moveaxis(
    graph: Graph,
    x: Value,
    *,
    source: int | Sequence[int],
    destination: int | Sequence[int],
) -> Value:
    numbered = np.empty(tuple(range(len(graph.dims))))  # each length is the number of its axis
    return transposed(graph, x, np.moveaxis(numbered, source, destination).shape)


@onnx_converter(arrangement._roll)
def _roll(
    graph: Graph,
    x: Value,
    *,
    shift: int | tuple[int, ...],
    axis: int | tuple[int, ...] | None,
) -> Value:
    if axis is None:
        row, _ = flat(graph, x, None)
        total = int(np.sum(shift))
        shifted = _rolled(graph, row, total, 0, dims_of(x))
        return reshaped(graph, shifted, graph.dims)
    out = x
    pairs = np.stack(np.broadcast_arrays(shift, axis), -1)
    for by, along in pairs.reshape(-1, 2).tolist():
        dims = (graph.dims[along],)
        out = _rolled(graph, out, by, along, dims)
    return out


def _rolled(graph: Graph, x: Value, by: int, axis: int, dims: Dims) -> Value:
    """Roll along an axis that has as many elements as a shape."""
    numbers = places(graph, dims)
    if numbers.constant is not None:
        where = graph.constant(np.roll(numbers.constant.ravel(), by))
    else:
        row = graph.add("Reshape", numbers, graph.ints(-1))
        before = graph.add("Sub", row, by)
        count = number_of(graph, dims, np.int64)
        where = graph.add("Mod", before, count)
    return graph.add("Gather", x, where, axis=axis)


@onnx_converter(arrangement._repeat)
def _repeat(
    graph: Graph,
    x: Value,
    *,
    repeats: int | tuple[int, ...],
    axis: int | None,
) -> Value:
    row, place = flat(graph, x, axis)
    if isinstance(repeats, tuple):
        where = graph.constant(np.repeat(np.arange(len(repeats)), repeats))
    else:
        numbers = places(graph, (graph.dims[place],))
        where = graph.add("Div", numbers, max(repeats, 1))
    return graph.add("Gather", row, where, axis=place)


# Diagonals ------------------------------------------------------------------------------------------------------------
@onnx_converter(ops.diagonal)
def _diagonal(
    graph: Graph,
    x: Value,
    *,
    offset: int,
    axis1: int,
    axis2: int,
) -> Value:
    return _on_diagonal(graph, x, graph.dims[-1], offset, axis1, axis2)


@onnx_converter(arrangement._diagonal_matrix)
def _diagonal_matrix(
    graph: Graph,
    x: Value,
    *,
    shape: Dims,
    offset: int,
    axis1: int,
    axis2: int,
) -> Value:
    where = _on_diagonal(graph, places(graph, shape), dims_of(x)[-1], offset, axis1, axis2)
    return added_at(graph, x, where, shape, repeated=False)


def _on_diagonal(graph: Graph, x: Value, count: int | Dim, offset: int, axis1: int, axis2: int) -> Value:
    """Take diagonals of `count` elements: at multiples of the length of a row plus 1, in matrices as rows."""
    dims = dims_of(x)
    first, second = axis1 % len(dims), axis2 % len(dims)
    others = [axis for axis in range(len(dims)) if axis not in (first, second)]
    matrices = transposed(graph, x, [*others, first, second])
    flattened = joined(graph, matrices, len(others))
    numbers = places(graph, (count,))
    rows = graph.add("Add", numbers, max(-offset, 0))
    columns = graph.add("Add", numbers, max(offset, 0))
    begins = graph.add("Mul", rows, graph.length(dims[second]))
    where = graph.add("Add", begins, columns)
    return graph.add("Gather", flattened, where, axis=len(others))
