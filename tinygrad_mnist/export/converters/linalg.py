"""Converters of determinants and norms. ONNX has no inverse, no solution of equations and no decomposition."""

from __future__ import annotations

import numpy as np

from ...ops import linalg
from ..onnx_graph import Graph, Value
from .common import computed, dims_of, filled, reduced
from .registry import onnx_converter

__all__: list[str] = []


@onnx_converter(linalg.det)
def _det(graph: Graph, x: Value) -> Value:
    """Compute in the dtype of the result; onnxruntime has Det of float32 alone."""
    return graph.add("Det", graph.cast(x, computed(graph.dtype)))


def _scale(graph: Graph, ends: Value) -> Value:
    """Return largest or smallest sizes to divide by: 1 instead of 0, NaN and infinity."""
    positive = graph.add("Greater", ends, 0.0, dtype=np.bool_)
    finite = graph.add("LessOrEqual", ends, float(np.finfo(ends.dtype).max), dtype=np.bool_)
    usable = graph.add("And", positive, finite, dtype=np.bool_)
    return graph.add("Where", usable, ends, graph.scalar(1.0, ends.dtype), dtype=ends.dtype)


@onnx_converter(linalg._euclidean)
def _euclidean(graph: Graph, x: Value, *, axis: tuple[int, ...]) -> Value:
    """Divide by the largest element first, so that no square overflows or underflows."""
    if _is_empty(x, axis):
        return filled(graph, 0.0, x.dtype, graph.dims)
    size = graph.add("Abs", graph.cast(x, computed(x.dtype)))
    largest = reduced(graph, "ReduceMax", size, axis, keepdims=True)
    scale = _scale(graph, largest)
    scaled = graph.add("Div", size, scale)
    squares = reduced(graph, "ReduceSumSquare", scaled, axis, keepdims=True)
    root = graph.add("Sqrt", squares)
    return graph.add("Mul", root, scale)


def _is_empty(x: Value, axis: tuple[int, ...]) -> bool:
    """Whether the reduced axes hold no elements."""
    return any(dims_of(x)[i] == 0 for i in axis)


@onnx_converter(linalg._power_norm)
def _power_norm(
    graph: Graph,
    x: Value,
    *,
    p: float,
    axis: tuple[int, ...],
) -> Value:
    if _is_empty(x, axis):
        return filled(graph, 0.0 if p > 0 else np.inf, x.dtype, graph.dims)
    size = graph.add("Abs", graph.cast(x, computed(x.dtype)))
    kind = "ReduceMax" if p > 0 else "ReduceMin"
    ends = reduced(graph, kind, size, axis, keepdims=True)
    scale = _scale(graph, ends)
    scaled = graph.add("Div", size, scale)
    powers = graph.add("Pow", scaled, float(p))
    total = reduced(graph, "ReduceSum", powers, axis, keepdims=True)
    root = graph.add("Pow", total, 1 / p)
    return graph.add("Mul", scale, root)


@onnx_converter(linalg._count)
def _count(graph: Graph, x: Value, *, axis: tuple[int, ...]) -> Value:
    truth = graph.cast(x, np.bool_)
    return reduced(graph, "ReduceSum", graph.cast(truth, x.dtype), axis, keepdims=True)
