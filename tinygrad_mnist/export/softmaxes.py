"""Softmax and its logarithm as one node, where a program computes them from their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..kernels import add_up
from ..ops import divide, exp, log, max, subtract, sum
from ..ops.scores import _shift
from ..record import primitive
from .converters.registry import onnx_converter
from .onnx_graph import Graph, Value
from .program import Node
from .tracing import Result

__all__ = ["join_softmaxes"]


@primitive
def _softmax(x: Any, /, *, axis: int) -> Any:
    """As `tinygrad_mnist.softmax`, in one primitive: programs that are written to a file have it."""
    e = exp.forward(x - max.forward(x, axis, True))
    return e / add_up(e, axis, True)


@primitive
def _log_softmax(x: Any, /, *, axis: int) -> Any:
    """As `tinygrad_mnist.log_softmax`, in one primitive."""
    shifted = x - max.forward(x, axis, True)
    return shifted - log.forward(add_up(exp.forward(shifted), axis, True))


@onnx_converter(_softmax)
def _softmax_node(graph: Graph, x: Value, axis: int) -> Value:
    return graph.add("Softmax", x, axis=axis)


@onnx_converter(_log_softmax)
def _log_softmax_node(graph: Graph, x: Value, axis: int) -> Value:
    return graph.add("LogSoftmax", x, axis=axis)


def join_softmaxes(nodes: Sequence[Node]) -> list[Node]:
    """Replace the last node of each softmax, and of each logarithm of one, by a node of what it was computed from.

    The nodes between them stay, for gradients may need them.
    """
    made_by = {node.number: node for node in nodes}

    def made(value: Any, op: Any) -> Node | None:
        """Return the node of a value, if `op` has made it."""
        node = made_by.get(value.number) if isinstance(value, Result) else None
        return node if node is not None and node.op is op else None

    def shifted(value: Any, axis: Any) -> Any:
        """Return the scores from which a value is made by subtracting their maximum along an axis."""
        node = made(value, _shift)
        top = made(node.inputs[1], max) if node else None
        if not node or not top or top.inputs[0] != node.inputs[0]:
            return None
        alike = node.keywords["axis"] == axis and top.keywords == {"axis": axis, "keepdims": True}
        return node.inputs[0] if alike else None

    def total(value: Any, e: Any) -> int | None:
        """Return the axis along which a value is the sum of `e`, if it is one axis and is kept."""
        node = made(value, sum)
        if not node or node.inputs[0] != e or not node.keywords["keepdims"]:
            return None
        axis = node.keywords["axis"]
        return axis if isinstance(axis, int) else None

    joined = []
    for node in nodes:
        scores, axis, op = None, None, None
        if node.op is divide and (e := made(node.inputs[0], exp)):
            op, axis = _softmax, total(node.inputs[1], node.inputs[0])
            scores = shifted(e.inputs[0], axis)
        elif node.op is subtract and (logarithm := made(node.inputs[1], log)):
            added = made(logarithm.inputs[0], sum)
            e = made(added.inputs[0], exp) if added else None
            if added and e and e.inputs[0] == node.inputs[0]:
                op, axis = _log_softmax, total(logarithm.inputs[0], added.inputs[0])
                scores = shifted(node.inputs[0], axis)
        if axis is not None and scores is not None:
            node = node._replace(op=op, inputs=(scores,), keywords={"axis": axis})
        joined.append(node)
    return joined
