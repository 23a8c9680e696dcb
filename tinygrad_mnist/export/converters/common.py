"""What several converters are made of: shapes, constants of a shape, positions, and sums into zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ops.reduction import Axis, _normalized
from ..onnx_graph import Graph, Operand, Value
from ..program import Dim, Dims

__all__: list[str] = []

FIRST, LAST = -(2**63), 2**63 - 1  # where a Slice goes on to the end of an axis


def dims_of(x: Value) -> Dims:
    """Return the shape of an argument."""
    assert x.dims is not None
    return x.dims


def axes_of(x: Value, axis: Axis) -> tuple[int, ...]:
    """Return the axes that an argument of an op means, as numbers of at least 0, in ascending order."""
    return tuple(sorted(_normalized(axis, len(dims_of(x)))))


def static(dims: Dims) -> tuple[int, ...] | None:
    """Return lengths as integers; None if any depends on the number of rows."""
    lengths = tuple(int(dim) for dim in dims if not isinstance(dim, Dim))
    return lengths if len(lengths) == len(dims) else None


# Shapes ---------------------------------------------------------------------------------------------------------------
def reshaped(graph: Graph, x: Value, dims: Dims) -> Value:
    """Arrange the elements in another shape. A single length that depends on the number of rows becomes -1."""
    varying = sum(isinstance(dim, Dim) for dim in dims)
    if x.dims == dims:
        return x
    if varying == 1 and 0 not in dims:
        shape = graph.ints(*(-1 if isinstance(dim, Dim) else int(dim) for dim in dims))
    else:
        shape = graph.shape(dims)
    out = graph.add("Reshape", x, shape, allowzero=1 if 0 in dims else None)
    return out._replace(dims=dims)


def joined(graph: Graph, x: Value, kept: int) -> Value:
    """Join all axes behind the first ones into one."""
    dims = dims_of(x)
    lengths = static(dims[kept:])
    if lengths is not None:
        return reshaped(graph, x, (*dims[:kept], math.prod(lengths)))
    shape = graph.ints(-1)
    if kept:
        first = graph.shape(dims[:kept])
        shape = graph.add("Concat", first, shape, axis=0)
    return graph.add("Reshape", x, shape)


def transposed(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """Permute the axes."""
    if list(order) == sorted(order):
        return x
    dims = dims_of(x)
    out = graph.add("Transpose", x, perm=list(order))
    return out._replace(dims=tuple(dims[i] for i in order))


def expanded(graph: Graph, x: Value, dims: Dims) -> Value:
    """Broadcast to a shape."""
    if x.dims == dims:
        return x
    out = graph.add("Expand", x, graph.shape(dims))
    return out._replace(dims=dims)


def broadcast(*shapes: Dims) -> Dims:
    """Return the shape to which shapes are broadcast."""
    ndim = max(map(len, shapes))
    full = [(1,) * (ndim - len(dims)) + dims for dims in shapes]
    return tuple(next((dim for dim in lengths if dim != 1), 1) for lengths in zip(*full, strict=True))


def filled(graph: Graph, number: float, dtype: npt.DTypeLike, dims: Dims) -> Value:
    """Return an array of one number."""
    return expanded(graph, graph.constant(np.asarray(number, dtype)), dims)


def number_of(graph: Graph, dims: Dims, dtype: npt.DTypeLike) -> Value:
    """Return how many elements a shape has, as a Value without axes."""
    lengths = static(dims)
    if lengths is not None:
        return graph.constant(np.asarray(math.prod(lengths), dtype))
    return graph.cast(graph.add("ReduceProd", graph.shape(dims), keepdims=0), dtype)


# Positions ------------------------------------------------------------------------------------------------------------
def places(graph: Graph, dims: Dims) -> Value:
    """Number the elements of a shape, in row-major order from 0 on."""
    lengths = static(dims)
    if lengths is not None:
        return graph.constant(np.arange(math.prod(lengths)).reshape(lengths))
    start = graph.constant(np.array(0))
    end = number_of(graph, dims, np.int64)
    step = graph.constant(np.array(1))
    counted = graph.add("Range", start, end, step)
    return reshaped(graph, counted, dims)


def added_at(graph: Graph, values: Value, where: Value, dims: Dims, repeated: bool = True) -> Value:
    """Add values into zeros of a shape, at places that count its elements; these may be repeated."""
    wide = computed(values.dtype)
    flat = graph.ints(-1)
    zeros = graph.add("Reshape", filled(graph, 0, wide, dims), flat)
    indices = graph.add("Reshape", where, flat)
    updates = graph.add("Reshape", graph.cast(values, wide), flat)
    reduction = "add" if repeated else None
    out = graph.add("ScatterElements", zeros, indices, updates, axis=0, reduction=reduction)
    return graph.cast(reshaped(graph, out, dims), values.dtype)


# Dtypes ---------------------------------------------------------------------------------------------------------------
def computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which nodes compute: half precision in float32, integers and booleans in int64."""
    if dtype.kind == "f":
        return np.promote_types(dtype, np.float32)
    return np.dtype(np.int64)


def reduced(graph: Graph, kind: str, x: Operand, axes: Sequence[int], keepdims: bool) -> Value:
    """Reduce over axes, computed in a dtype that runtimes have."""
    value = graph.cast(x, computed(graph.dtype))
    if not axes:
        return value
    return graph.add(kind, value, graph.ints(*axes), keepdims=int(keepdims))
