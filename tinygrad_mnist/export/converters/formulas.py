"""Formulas as ONNX nodes: what a primitive computes, written as arithmetic on `Term`s.

A formula computes in single precision at least, as the primitives do in half precision. A wide one computes in double
precision, as many primitives do: nothing overflows or cancels on the way, and the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...kernels import smooth
from ...record import Primitive
from ..onnx_graph import Graph, Operand, Value
from ..program import Dim, Dims
from .common import broadcast
from .registry import CONVERTERS

__all__ = ["Term", "absolute", "exp", "fitted", "formula", "limited", "log", "polynomial", "select", "tail", "where"]

Other: TypeAlias = "Term | float | Dim"


class Term:
    """A Value in a formula: each operator adds a node. Numbers get the dtype of the Term that they meet."""

    __hash__ = None  # type: ignore[assignment]  # == makes a node

    def __init__(self, graph: Graph, value: Value) -> None:
        self.graph = graph
        self.value = value

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the value."""
        return self.value.dtype

    def node(self, kind: str, *others: Other | None, dtype: npt.DTypeLike | None = None, **attributes: Any) -> Term:
        """Return the result of a node whose first input is this."""
        values = [other.value if isinstance(other, Term) else other for other in others]
        return Term(self.graph, self.graph.add(kind, self.value, *values, dtype=dtype, **attributes))

    def known(self, number: float) -> bool:
        """Whether the value is a constant of this number alone."""
        constant = self.value.constant
        return constant is not None and bool((constant == number).all())

    def reduce(self, kind: str, axes: Sequence[int] | None, keepdims: bool = True) -> Term:
        """Return a ReduceSum or a ReduceMean along axes (None: all; (): none)."""
        if axes is not None and not len(axes):
            return self
        given = None if axes is None else Term(self.graph, self.graph.ints(*axes))
        return self.node(kind, given, keepdims=int(keepdims))

    def part(self, index: int) -> Term:
        """Return one part along the first axis."""
        return self.node("Gather", Term(self.graph, self.graph.constant(np.array(index))), axis=0)

    def to(self, dtype: npt.DTypeLike) -> Term:
        """Convert to another dtype."""
        return Term(self.graph, self.graph.cast(self.value, dtype))

    def __add__(self, other: Other) -> Term:
        return self.node("Add", other)

    def __sub__(self, other: Other) -> Term:
        return self.node("Sub", other)

    def __mul__(self, other: Other) -> Term:
        return self.node("Mul", other)

    def __truediv__(self, other: Other) -> Term:
        return self.node("Div", other)

    def __radd__(self, number: float) -> Term:
        return self + number

    def __rmul__(self, number: float) -> Term:
        return self * number

    def __rsub__(self, number: float) -> Term:
        return Term(self.graph, self.graph.add("Sub", number, self.value))

    def __rtruediv__(self, number: float) -> Term:
        return Term(self.graph, self.graph.add("Div", number, self.value))

    def __neg__(self) -> Term:
        return self.node("Neg")

    def __eq__(self, other: Other) -> Term:  # type: ignore[override]  # no bool
        return self.node("Equal", other, dtype=np.bool_)

    def __lt__(self, other: Other) -> Term:
        return self.node("Less", other, dtype=np.bool_)

    def __gt__(self, other: Other) -> Term:
        return self.node("Greater", other, dtype=np.bool_)

    def __and__(self, other: Term) -> Term:
        return self.node("And", other)

    def __or__(self, other: Term) -> Term:
        return self.node("Or", other)

    def __xor__(self, other: Term) -> Term:
        return self.node("Xor", other)

    def __invert__(self) -> Term:
        return self.node("Not")


def formula(op: Primitive[Any], wide: bool = False) -> Callable[[Callable[..., Term]], Callable[..., Term]]:
    """Register a formula as the converter of an op: a function of Terms, one for each array, and of settings.

    Terms have the dtype of the result, or single precision where that is lower; with `wide`, double precision.
    """

    def register(compute: Callable[..., Term]) -> Callable[..., Term]:
        def convert(graph: Graph, *inputs: Operand, **settings: Any) -> Value:
            dtype = graph.dtype
            if dtype.kind == "f":
                dtype = np.dtype(np.float64) if wide else np.promote_types(dtype, np.float32)
            return compute(*(Term(graph, graph.cast(x, dtype)) for x in inputs), **settings).value

        CONVERTERS[op] = convert
        return compute

    return register


# Functions of Terms ---------------------------------------------------------------------------------------------------
def exp(x: Term) -> Term:
    """e to the power of ``x``."""
    return x.node("Exp")


def log(x: Term) -> Term:
    """Natural logarithm."""
    return x.node("Log")


def absolute(x: Term) -> Term:
    """Absolute value."""
    return x.node("Abs")


def where(mask: Term, x: Other, y: Other) -> Term:
    """``x`` where the mask holds, else ``y``; at least one of them is a Term."""
    graph = mask.graph
    dtype = next(part.dtype for part in (x, y) if isinstance(part, Term))
    values = [part.value if isinstance(part, Term) else graph.value(part, dtype) for part in (x, y)]
    return Term(graph, graph.add("Where", mask.value, *values, dtype=dtype))


def select(x: Term, mask: Term) -> Term:
    """``x`` where the mask holds, else 0."""
    return where(mask, x, 0)


def limited(x: Term, size: float) -> Term:
    """Limit to numbers from -size to size, not by Clip: onnxruntime loads none behind a Relu of double precision."""
    return x.node("Max", -size).node("Min", size)


def polynomial(coefficients: Sequence[float], x: Term) -> Term:
    """Evaluate a polynomial with these coefficients, the highest first."""
    out = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        out = out * x + coefficient
    return out


def tail(z: Term) -> Term:
    """``exp(z**2) * erfc(z)`` for z >= 0, as exact as the dtype of the result needs."""
    terms = smooth.TERMS.get(z.graph.dtype, len(smooth.CHEBYSHEV))
    small = smooth.SCALE / (z + smooth.SCALE)
    return polynomial(smooth.tail_polynomial(terms), 1 - 2 * small) * small


# Shapes ---------------------------------------------------------------------------------------------------------------
def fitted(x: Term, factors: Sequence[Term], dims: Dims) -> Term:
    """Sum or repeat a product of factors, so that it has the shape `dims`."""
    found = broadcast(*(factor.value.dims or () for factor in factors))
    new = len(found) - len(dims)  # negative where there are fewer axes
    repeated = [axis for axis, n in enumerate(found) if axis < new or n != 1 == dims[axis - new]]
    x = x.reduce("ReduceSum", repeated)
    if new > 0:
        x = x.node("Squeeze", Term(x.graph, x.graph.ints(*range(new))))
    kept = [1 if axis in repeated else n for axis, n in enumerate(found)][max(new, 0) :]
    return x if kept == list(dims) else x.node("Expand", Term(x.graph, x.graph.shape(dims)))
