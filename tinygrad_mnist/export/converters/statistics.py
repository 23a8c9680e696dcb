"""Converters of statistics, and of products and recurrences along axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from ... import ops
from ...ops import statistics
from ...ops.reduction import Axis
from ..onnx_graph import Graph, Value
from ..program import Dim
from .arrangement import reverse
from .common import LAST, axes_of, computed, dims_of, filled, number_of, reduced, transposed
from .registry import onnx_converter
from .sorting import flat, order

__all__: list[str] = []


# Spread ---------------------------------------------------------------------------------------------------------------
@onnx_converter(statistics._centered)
def _centered(graph: Graph, x: Value, *, axis: Axis) -> Value:
    mean = reduced(graph, "ReduceMean", x, axes_of(x, axis), keepdims=True)
    value = graph.cast(x, computed(graph.dtype))
    return graph.add("Sub", value, mean)


@onnx_converter(ops.var)
def _var(
    graph: Graph,
    x: Value,
    *,
    axis: Axis,
    ddof: float,
    keepdims: bool,
    correction: float | None,
) -> Value:
    axes = axes_of(x, axis)
    distance = _centered(graph, x, axis=axis)
    squares = graph.add("Mul", distance, distance)
    total = reduced(graph, "ReduceSum", squares, axes, keepdims)
    lengths = tuple(dims_of(x)[i] for i in axes)
    count = number_of(graph, lengths, distance.dtype)
    less = ddof if correction is None else correction
    degrees = graph.add("Sub", count, less)
    return graph.add("Div", total, degrees)


@onnx_converter(ops.std)
def _std(graph: Graph, x: Value, **settings: Any) -> Value:
    return graph.add("Sqrt", _var(graph, x, **settings))


@onnx_converter(statistics._near_one)
def _near_one(graph: Graph, low: Value, high: Value) -> Value:
    """Return reciprocals, not powers of 2: whatever the factor is, it cancels."""
    dtype = computed(graph.dtype)
    info = np.finfo(dtype)
    below = graph.add("Neg", graph.cast(low, dtype))
    above = graph.cast(high, dtype)
    size = graph.add("Max", below, above)
    limited = graph.add("Clip", size, 4 * float(info.tiny), float(info.max) / 4)
    return graph.add("Reciprocal", limited)


# Recurrences and products ---------------------------------------------------------------------------------------------
def _carried(graph: Graph, first: float, factors: Value, terms: Value | None = None) -> Value:
    """Return ``y[i] = terms[i] + factors[i] * y[i - 1]`` along the last axis; before the first stands `first`.

    Runtimes scan along the first axis, forward.
    """
    dims = dims_of(factors)
    last = len(dims) - 1
    if 0 in dims:
        return factors
    names = ["factor"] if terms is None else ["factor", "term"]
    to_front = [last, *range(last)]
    rows = [transposed(graph, x, to_front) for x in (factors, terms) if x is not None]
    start = filled(graph, first, factors.dtype, dims[:-1])
    body = _step([graph.name(name) for name in names], graph, helper.np_dtype_to_tensor_dtype(factors.dtype))
    both = graph.add_several("Scan", start, *rows, dtypes=(None, None), body=body, num_scan_inputs=len(rows))
    back = [*range(1, len(dims)), 0]
    return transposed(graph, both[1]._replace(dims=(dims[last], *dims[:last])), back)


def _step(names: list[str], graph: Graph, kind: int) -> Any:
    before, product, total, carried, out = map(graph.name, ["before", "product", "sum", "carried", "out"])
    nodes = [helper.make_node("Mul", [names[0], before], [product])]
    if len(names) > 1:
        nodes.append(helper.make_node("Add", [names[1], product], [total]))
    result = nodes[-1].output[0]
    nodes += [helper.make_node("Identity", [result], [name]) for name in (carried, out)]
    given, made = (
        [helper.make_tensor_value_info(name, kind, None) for name in group]
        for group in ([before, *names], [carried, out])
    )
    return helper.make_graph(nodes, "step", given, made)


def _with_end(graph: Graph, x: Value, number: float, without_first: bool, behind: bool) -> Value:
    """Leave out the first or the last element along the last axis, and put a number behind or before the others."""
    last = len(dims_of(x)) - 1
    start, end = (1, LAST) if without_first else (0, -1)
    kept = graph.add("Slice", x, graph.ints(start), graph.ints(end), graph.ints(last), graph.ints(1))
    widths = [0] * (2 * last + 2)
    widths[-1 if behind else last] = 1
    return graph.add("Pad", kept, graph.ints(*widths), graph.scalar(number, x.dtype))._replace(dims=x.dims)


def _in_order(graph: Graph, x: Value, backward: bool) -> Value:
    return reverse(graph, x, [len(dims_of(x)) - 1]) if backward else x


@onnx_converter(statistics._recurrence)
def _recurrence(
    graph: Graph,
    b: Value,
    a: Value,
    *,
    reverse: bool,
) -> Value:
    terms, factors = (graph.cast(x, np.float64) for x in (b, a))
    if 0 in dims_of(b):
        return terms
    used = _with_end(graph, factors, 0.0, without_first=True, behind=reverse)  # the first factor is not used
    ordered = [_in_order(graph, x, reverse) for x in (used, terms)]
    out = _carried(graph, 0.0, *ordered)
    return _in_order(graph, out, reverse)


@onnx_converter(statistics._product_of_others)
def _product_of_others(graph: Graph, g: Value, x: Value) -> Value:
    """Multiply the products of the elements before and behind, in double precision; float64 may overflow on the way."""
    product, factors = (graph.cast(value, np.float64) for value in (g, x))
    if 0 in dims_of(x):
        return factors
    for backward in (False, True):
        others = _with_end(graph, factors, 1.0, without_first=backward, behind=backward)
        ordered = _in_order(graph, others, backward)
        products = _carried(graph, 1.0, ordered)
        before = _in_order(graph, products, backward)
        product = graph.add("Mul", product, before)
    return product


@onnx_converter(ops.cumprod)
def _cumprod(graph: Graph, x: Value, *, axis: int | None) -> Value:
    row, place = flat(graph, graph.cast(x, computed(graph.dtype)), axis)
    dims = graph.dims
    order = [i for i in range(len(dims)) if i != place] + [place]
    products = _carried(graph, 1.0, transposed(graph, row._replace(dims=dims), order))
    return transposed(graph, products, [order.index(i) for i in range(len(dims))])


@onnx_converter(ops.cumsum)
def _cumsum(graph: Graph, x: Value, *, axis: int | None) -> Value:
    row, place = flat(graph, graph.cast(x, computed(graph.dtype)), axis)
    return graph.add("CumSum", row, graph.constant(np.array(place)))


# Median ---------------------------------------------------------------------------------------------------------------
@onnx_converter(statistics._middle)
def _middle(graph: Graph, rows: Value) -> Value:
    count, last = dims_of(rows)[-1], len(dims_of(rows)) - 1
    assert not isinstance(count, Dim)  # or else the shape of the result would not follow from it linearly
    sorting = order(graph, rows, last, descending=False)
    ends = graph.ints((count - 1) // 2), graph.ints(count // 2 + 1)
    middle = graph.add("Slice", sorting, *ends, graph.ints(last))
    if rows.dtype.kind != "f":
        return middle
    missing = graph.add("IsNaN", graph.cast(rows, computed(rows.dtype)), dtype=np.bool_)
    marks = graph.cast(missing, np.int32)
    first = graph.add("ArgMax", marks, axis=last, keepdims=1, dtype=np.int64)
    largest = graph.add("ReduceMax", marks, graph.ints(last), keepdims=1)
    found = graph.cast(largest, np.bool_)
    return graph.add("Where", found, first, middle, dtype=np.int64)
