"""Converters of reductions. The largest of numbers with NaNs among them is left to the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ...ops.reduction import Axis, _first_extreme
from ..onnx_graph import Graph, Value
from .common import axes_of, computed, dims_of, joined, places, reduced, reshaped, transposed
from .registry import CONVERTERS, Converter, onnx_converter

__all__: list[str] = []


def _to_one_node(kind: str) -> Converter:
    """Make a converter to a node that reduces what is converted to the dtype of the result before."""

    def convert(
        graph: Graph,
        x: Value,
        *,
        axis: Axis,
        keepdims: bool,
    ) -> Value:
        return reduced(graph, kind, x, axes_of(x, axis), keepdims)

    return convert


CONVERTERS[ops.sum] = _to_one_node("ReduceSum")
CONVERTERS[ops.mean] = _to_one_node("ReduceMean")
CONVERTERS[ops.max] = _to_one_node("ReduceMax")
CONVERTERS[ops.min] = _to_one_node("ReduceMin")
CONVERTERS[ops.prod] = _to_one_node("ReduceProd")


def _counted(graph: Graph, x: Value, axis: Axis, keepdims: bool, negated: bool) -> Value:
    """Count the elements that are true; with `negated`, those that are false."""
    truth = graph.cast(x, np.bool_)
    counted = graph.add("Not", truth) if negated else truth
    return reduced(graph, "ReduceSum", counted, axes_of(x, axis), keepdims)


@onnx_converter(ops.all)
def _all(
    graph: Graph,
    x: Value,
    *,
    axis: Axis,
    keepdims: bool,
) -> Value:
    return graph.add("Equal", _counted(graph, x, axis, keepdims, negated=True), 0, dtype=np.bool_)


@onnx_converter(ops.any)
def _any(
    graph: Graph,
    x: Value,
    *,
    axis: Axis,
    keepdims: bool,
) -> Value:
    return graph.add("Greater", _counted(graph, x, axis, keepdims, negated=False), 0, dtype=np.bool_)


@onnx_converter(_first_extreme)
def _mark(
    graph: Graph,
    x: Value,
    *,
    axis: Axis,
    arg: Callable[..., Any],
) -> Value:
    """Compare positions along the reduced axes, joined at the end, with that of the extreme."""
    axes, dims = axes_of(x, axis), dims_of(x)
    others = [i for i in range(len(dims)) if i not in axes]
    moved = transposed(graph, graph.cast(x, computed(x.dtype))._replace(dims=dims), [*others, *axes])
    positions = places(graph, tuple(dims[i] for i in axes))
    rows = joined(graph, moved, len(others))
    numbers = joined(graph, positions, 0)
    kind = "ArgMax" if arg is np.argmax else "ArgMin"
    found = graph.add(kind, rows, axis=len(others), keepdims=1, dtype=np.int64)
    marks = graph.add("Equal", found, numbers, dtype=np.bool_)
    order = [*others, *axes]
    back = reshaped(graph, marks, tuple(dims[i] for i in order))
    return transposed(graph, back, [order.index(i) for i in range(len(dims))])
