"""Converters of comparisons, logic, bits and kinds of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ...record import Primitive
from ..onnx_graph import Graph, Operand, Value
from ..program import Dim
from .common import filled
from .formulas import Term
from .registry import CONVERTERS, Converter

__all__: list[str] = []


# Comparisons ----------------------------------------------------------------------------------------------------------
def _common(x: Operand, y: Operand) -> np.dtype[Any]:
    """Return the dtype in which NumPy compares: Python's numbers adapt to arrays."""
    dtypes = [part.dtype for part in (x, y) if isinstance(part, Value)]
    numbers = [part.factor if isinstance(part, Dim) else part for part in (x, y) if not isinstance(part, Value)]
    dtype = np.result_type(*dtypes, *map(type, numbers))
    for number in numbers:
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:  # type: ignore[operator]
            return np.dtype(np.int64)  # NumPy compares with its value
    return np.dtype(np.int32) if dtype == np.bool_ else dtype


def _comparison(kind: str, negated: bool = False) -> Converter:
    def convert(graph: Graph, x: Operand, y: Operand) -> Value:
        dtype = _common(x, y)
        found = graph.add(kind, graph.cast(x, dtype), graph.cast(y, dtype), dtype=np.bool_)
        return graph.add("Not", found) if negated else found

    return convert


COMPARISONS: dict[Primitive[Any], Converter] = {
    ops.greater: _comparison("Greater"),
    ops.greater_equal: _comparison("GreaterOrEqual"),
    ops.less: _comparison("Less"),
    ops.less_equal: _comparison("LessOrEqual"),
    ops.equal: _comparison("Equal"),
    ops.not_equal: _comparison("Equal", negated=True),
}
CONVERTERS.update(COMPARISONS)


# Logic and bits -------------------------------------------------------------------------------------------------------
def _logic(of_booleans: str, of_bits: str | None = None) -> Converter:
    """Make a converter to a node of truth values, or of bits where the result is an integer."""

    def convert(graph: Graph, *inputs: Operand) -> Value:
        bits = of_bits is not None and graph.dtype != np.bool_
        values = [graph.cast(x, graph.dtype if bits else np.bool_) for x in inputs]
        return graph.add(of_bits if of_bits and bits else of_booleans, *values)

    return convert


LOGIC: dict[Primitive[Any], Converter] = {
    ops.logical_and: _logic("And"),
    ops.logical_or: _logic("Or"),
    ops.logical_xor: _logic("Xor"),
    ops.logical_not: _logic("Not"),
    ops.bitwise_and: _logic("And", "BitwiseAnd"),
    ops.bitwise_or: _logic("Or", "BitwiseOr"),
    ops.bitwise_xor: _logic("Xor", "BitwiseXor"),
    ops.invert: _logic("Not", "BitwiseNot"),
}
CONVERTERS.update(LOGIC)


# Kinds of numbers -----------------------------------------------------------------------------------------------------
def _kind(of_floats: Callable[[Term], Term], of_others: bool) -> Converter:
    """Make a converter of a question about floats, whose answer for integers is always the same."""

    def convert(graph: Graph, x: Value) -> Value:
        if x.dtype.kind == "f":
            return of_floats(Term(graph, graph.cast(x, np.promote_types(x.dtype, np.float32)))).value
        return filled(graph, of_others, np.bool_, graph.dims)

    return convert


def _isnan(x: Term) -> Term:
    return x.node("IsNaN", dtype=np.bool_)


def _isinf(x: Term) -> Term:
    return x.node("IsInf", dtype=np.bool_)


CONVERTERS[ops.isnan] = _kind(_isnan, of_others=False)
CONVERTERS[ops.isinf] = _kind(_isinf, of_others=False)
CONVERTERS[ops.isfinite] = _kind(lambda x: ~(_isnan(x) | _isinf(x)), of_others=True)
