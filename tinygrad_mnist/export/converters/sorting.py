"""Converters of sorting and picking. Where NaNs stand among sorted numbers, or win, is left to the runtime."""

from __future__ import annotations

import numpy as np

from ... import ops
from ...ops import sorting
from ..onnx_graph import Graph, Value
from ..program import Dim, Dims
from .common import added_at, computed, dims_of, expanded, filled, places, reshaped
from .registry import CONVERTERS, Converter, onnx_converter

__all__: list[str] = []


def flat(graph: Graph, x: Value, axis: int | None) -> tuple[Value, int]:
    """Return an argument and one of its axes: with axis None, its elements along a single one."""
    dims = dims_of(x)
    if dims and axis is not None:
        return x, axis % len(dims)
    return graph.add("Reshape", x, graph.ints(-1))._replace(dims=dims if len(dims) == 1 else None), 0


# Picking --------------------------------------------------------------------------------------------------------------
@onnx_converter(sorting._one_hot)
def _one_hot(graph: Graph, indices: Value, *, classes: int, dtype: object) -> Value:
    column = graph.add("Unsqueeze", indices, graph.ints(-1))
    return graph.add("Equal", column, graph.constant(np.arange(classes)), dtype=np.bool_)


@onnx_converter(sorting._take)
def _take(
    graph: Graph,
    x: Value,
    indices: Value,
    *,
    axis: int,
) -> Value:
    return graph.add("Gather", x, indices, axis=axis)


@onnx_converter(sorting._add_taken)
def _add_taken(
    graph: Graph,
    g: Value,
    indices: Value,
    *,
    axis: int,
    shape: Dims,
) -> Value:
    where = graph.add("Gather", places(graph, shape), indices, axis=axis)
    return added_at(graph, g, where, shape)


@onnx_converter(sorting._take_along_axis)
def _take_along_axis(
    graph: Graph,
    x: Value,
    indices: Value,
    *,
    axis: int,
) -> Value:
    axis %= len(graph.dims)
    own, wanted = [*graph.dims], graph.dims
    own[axis] = dims_of(x)[axis]
    values = expanded(graph, x, tuple(own))
    where = expanded(graph, indices, wanted)
    return graph.add("GatherElements", values, where, axis=axis)


@onnx_converter(sorting._add_along_axis)
def _add_along_axis(
    graph: Graph,
    g: Value,
    indices: Value,
    *,
    axis: int,
    length: int | Dim,
) -> Value:
    zeros = filled(graph, 0, computed(g.dtype), graph.dims)
    updates = graph.cast(g, zeros.dtype)
    where = expanded(graph, indices, dims_of(g))
    return graph.add("ScatterElements", zeros, where, updates, axis=axis, reduction="add")


# Sorting --------------------------------------------------------------------------------------------------------------
def order(graph: Graph, x: Value, axis: int, descending: bool) -> Value:
    """Return the positions that sort, equal elements in their order, which the standard demands of TopK."""
    length = graph.add("Shape", x, start=axis, end=axis + 1, dtype=np.int64)
    settings = {"axis": axis, "largest": int(descending), "sorted": 1}
    sortable = graph.cast(x, computed(x.dtype))
    return graph.add_several("TopK", sortable, length, dtypes=(None, np.int64), **settings)[1]


@onnx_converter(ops.argsort)
def _argsort(
    graph: Graph,
    x: Value,
    *,
    axis: int | None,
    descending: bool,
    stable: bool,
) -> Value:
    return order(graph, *flat(graph, x, axis), descending)


def _position(kind: str) -> Converter:
    def convert(
        graph: Graph,
        x: Value,
        *,
        axis: int | None,
        keepdims: bool,
    ) -> Value:
        row, place = flat(graph, x, axis)
        sortable = graph.cast(row, computed(x.dtype))
        found = graph.add(kind, sortable, axis=place, keepdims=int(keepdims), dtype=np.int64)
        return reshaped(graph, found, graph.dims) if row is not x else found

    return convert


CONVERTERS[ops.argmax] = _position("ArgMax")
CONVERTERS[ops.argmin] = _position("ArgMin")
