"""Converters of elementwise ops: arithmetic, functions of one variable and choices."""

from __future__ import annotations

from ... import ops
from ...record import Primitive, add
from ..onnx_graph import Graph, Operand, Value
from .registry import CONVERTERS, Converter, onnx_converter

__all__: list[str] = []


def _alike(kind: str) -> Converter:
    """Make a converter to one node, whose inputs are converted to the dtype of the result first."""

    def convert(graph: Graph, *inputs: Operand) -> Value:
        return graph.add(kind, *(graph.cast(x, graph.dtype) for x in inputs))

    return convert


ALIKE: dict[Primitive, str] = {  # type: ignore[type-arg]  # of any signature
    add: "Add",
    ops.subtract: "Sub",
    ops.multiply: "Mul",
    ops.divide: "Div",
    ops.negative: "Neg",
    ops.exp: "Exp",
    ops.log: "Log",
    ops.sqrt: "Sqrt",
    ops.sin: "Sin",
    ops.cos: "Cos",
    ops.tanh: "Tanh",
    ops.abs: "Abs",
    ops.sign: "Sign",
}

for _op, _kind in ALIKE.items():
    CONVERTERS[_op] = _alike(_kind)


@onnx_converter(ops.relu)
def _relu(graph: Graph, x: Value) -> Value:
    return graph.add("Relu", x)
