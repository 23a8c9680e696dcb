"""Converters of sums of products over named axes: Einsum."""

from __future__ import annotations

from ...ops import contraction
from ..onnx_graph import Graph, Operand, Value
from ..program import Dims
from .common import added_at, computed, dims_of, filled, places
from .registry import CONVERTERS, onnx_converter

__all__: list[str] = []


def _contract(graph: Graph, *xs: Operand, subscripts: str) -> Value:
    dtype = computed(graph.dtype)
    if any(isinstance(x, Value) and 0 in dims_of(x) for x in xs):  # onnxruntime fails here
        return filled(graph, 0, dtype, graph.dims)
    return graph.add("Einsum", *(graph.cast(x, dtype) for x in xs), equation=subscripts)


CONVERTERS[contraction._contract] = _contract
CONVERTERS[contraction._of_integers] = _contract


@onnx_converter(contraction._diagonals)
def _diagonals(graph: Graph, x: Value, *, labels: str) -> Value:
    equation = f"{labels}->{contraction._once(labels)}"
    return graph.add("Einsum", graph.cast(x, computed(x.dtype)), equation=equation)


@onnx_converter(contraction._put_on_diagonals)
def _put_on_diagonals(
    graph: Graph,
    x: Value,
    *,
    labels: str,
    shape: Dims,
) -> Value:
    where = _diagonals(graph, places(graph, shape), labels=labels)
    return added_at(graph, x, where, shape, repeated=False)
