"""Converters of ops that arrange elements in other shapes, pad them and join them."""

from __future__ import annotations

from typing import Any

from ... import ops, record
from ...ops import shape as shapes
from ..onnx_graph import Graph, Operand, Value
from ..program import Dims
from .common import dims_of, expanded, reduced, reshaped, transposed
from .registry import CONVERTERS, onnx_converter

__all__: list[str] = []


def _reshape(graph: Graph, x: Value, **settings: Any) -> Value:
    return reshaped(graph, x, graph.dims)


CONVERTERS[shapes._reshape] = _reshape
CONVERTERS[ops.expand_dims] = _reshape
CONVERTERS[ops.squeeze] = _reshape


@onnx_converter(shapes._transpose)
def _transpose(graph: Graph, x: Value, *, axes: tuple[int, ...]) -> Value:
    return transposed(graph, x, [axis % len(axes) for axis in axes])


@onnx_converter(ops.swapaxes)
def _swapaxes(
    graph: Graph,
    x: Value,
    *,
    axis1: int,
    axis2: int,
) -> Value:
    order = [*range(len(graph.dims))]
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return transposed(graph, x, order)


@onnx_converter(shapes._pad)
def _pad(
    graph: Graph,
    x: Value,
    *,
    pad_width: tuple[Dims, ...],
    value: float,
) -> Value:
    if not pad_width:
        return x
    ends = [width[0] for width in pad_width] + [width[1] for width in pad_width]
    return graph.add("Pad", x, graph.shape(ends), graph.scalar(value, x.dtype))


@onnx_converter(shapes._concatenate)
def _concatenate(graph: Graph, *xs: Value, axis: int) -> Value:
    return graph.add("Concat", *(graph.cast(x, graph.dtype) for x in xs), axis=axis)


@onnx_converter(record.stack)
def _stack(graph: Graph, *xs: Operand, axis: int) -> Value:
    place = axis % len(graph.dims)
    dims = graph.dims[:place] + graph.dims[place + 1 :]
    one = (*dims[:place], 1, *dims[place:])
    parts = [reshaped(graph, expanded(graph, graph.cast(x, graph.dtype), dims), one) for x in xs]
    return graph.add("Concat", *parts, axis=place)


@onnx_converter(record._broadcast_to)
def _broadcast_to(graph: Graph, x: Value, *, shape: Dims) -> Value:
    return expanded(graph, x, graph.dims)


@onnx_converter(record._sum_to)
def _sum_to(graph: Graph, x: Value, *, shape: Dims) -> Value:
    dims = dims_of(x)
    new = len(dims) - len(shape)
    stretched = [i for i in range(new, len(dims)) if dims[i] != shape[i - new]]
    out = reduced(graph, "ReduceSum", x, [*range(new), *stretched], keepdims=bool(stretched))
    if new and stretched:
        out = graph.add("Squeeze", out, graph.ints(*range(new)))
    return out
