"""Converters of elementwise ops: arithmetic, functions of one variable and choices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...ops import elementwise
from ...record import Primitive, add, astype, copy
from ..onnx_graph import Graph, Operand, Value
from ..program import Dims
from .formulas import Term, absolute, exp, fitted, formula, select, where
from .registry import CONVERTERS, Converter, onnx_converter

__all__: list[str] = []


# One node -------------------------------------------------------------------------------------------------------------
OF_BOOLEANS = {"Add": "Or", "Mul": "And", "Max": "Or", "Min": "And", "Abs": "Identity"}


def _alike(kind: str) -> Converter:
    """Make a converter to one node, whose inputs are converted to the dtype of the result first."""

    def convert(graph: Graph, *inputs: Operand) -> Value:
        values = [graph.cast(x, graph.dtype) for x in inputs]
        return graph.add(OF_BOOLEANS[kind] if graph.dtype == np.bool_ else kind, *values)

    return convert


ALIKE: dict[Primitive[Any], str] = {
    add: "Add",
    ops.subtract: "Sub",
    ops.multiply: "Mul",
    ops.divide: "Div",
    ops.exp: "Exp",
    ops.log: "Log",
    ops.sqrt: "Sqrt",
    ops.sin: "Sin",
    ops.cos: "Cos",
    ops.tanh: "Tanh",
    ops.sigmoid: "Sigmoid",
    ops.abs: "Abs",
    ops.sign: "Sign",
    ops.maximum: "Max",
    ops.minimum: "Min",
    elementwise._at_least: "Max",
    elementwise._at_most: "Min",
}

for _op, _kind in ALIKE.items():
    CONVERTERS[_op] = _alike(_kind)


@onnx_converter(copy)
@onnx_converter(astype)
@onnx_converter(ops.positive)
def _same(graph: Graph, x: Value, dtype: Any = None) -> Value:
    return graph.cast(x, graph.dtype)


@onnx_converter(ops.negative)
def _negative(graph: Graph, x: Value) -> Value:
    signed = graph.cast(x, np.int64) if x.dtype.kind == "u" else x  # there is no Neg of unsigned numbers
    return graph.add("Neg", signed)


@onnx_converter(ops.relu)
def _relu(graph: Graph, x: Value) -> Value:
    if x.dtype.kind == "f":
        return graph.add("Relu", x)
    return graph.add("Max", x, 0)


# Selection ------------------------------------------------------------------------------------------------------------
def _choice(graph: Graph, condition: Operand, x: Operand, y: Operand) -> Value:
    mask = Term(graph, graph.cast(condition, np.bool_))
    first, second = (Term(graph, graph.cast(part, graph.dtype)) for part in (x, y))
    if graph.dtype == np.bool_:  # runtimes have no Where of booleans
        return ((mask & first) | (~mask & second)).value
    return where(mask, first, second).value


CONVERTERS[ops.where] = _choice


@onnx_converter(elementwise._select)
def _select(graph: Graph, g: Operand, mask: Operand) -> Value:
    return _choice(graph, mask, g, 0)


@onnx_converter(elementwise._omit)
def _omit(graph: Graph, g: Operand, mask: Operand) -> Value:
    return _choice(graph, mask, 0, g)


# Division -------------------------------------------------------------------------------------------------------------
def _divided(x: Term, y: Term) -> tuple[Term, Term]:
    """Quotient, rounded down, and remainder, as Python and NumPy define them."""
    if x.dtype.kind != "f":
        nonzero = ~(y == 0)
        divisor = where(nonzero, y, 1)  # a division by the integer 0 would end the process
        rest = x.node("Mod", divisor)
        return select((x - rest) / divisor, nonzero), select(rest, nonzero)
    rest = x.node("Mod", y, fmod=1)
    other_sign = ~(rest == 0) & ((rest < 0) ^ (y < 0))
    quotient = (x - rest) / y
    quotient = where(other_sign, quotient - 1, quotient)
    floor = quotient.node("Floor")
    floor = where(quotient - floor > 0.5, floor + 1, floor)  # where the quotient was rounded
    return where(y == 0, x / y, floor), where(other_sign, rest + y, rest)


@formula(ops.floor_divide)
def _floor_divide(x: Term, y: Term) -> Term:
    return _divided(x, y)[0]


@formula(ops.remainder)
def _remainder(x: Term, y: Term) -> Term:
    return _divided(x, y)[1]


@formula(elementwise._remainder_gradient, wide=True)
def _remainder_gradient(g: Term, x: Term, y: Term) -> Term:
    quotient = _divided(x, y)[0]
    return select(-g * quotient, ~(quotient == 0))


@formula(ops.round)
def _round(x: Term, decimals: int) -> Term:
    if x.dtype.kind != "f":
        return x if decimals >= 0 else _rounded(x.to(np.float64), decimals)
    return _rounded(x, decimals)


def _rounded(x: Term, decimals: int) -> Term:
    power = 10.0 ** abs(decimals)
    if decimals == 0:
        return x.node("Round")
    return (x * power).node("Round") / power if decimals > 0 else (x / power).node("Round") * power


def _quotient_sum(g: Term, x: Term, y: Term, *, n: int, shape: Dims) -> Term:
    if n == 0:
        terms = g * x
    elif n == 1:
        terms = g / y if x.known(1) else g / y * x
    else:
        terms = g / -y * x / y
    for k in range(2, n):
        terms = terms / y * -k
    return fitted(terms, (g, x, y), shape)


@onnx_converter(elementwise._quotients)
def _quotients(graph: Graph, g: Operand, x: Operand, y: Operand, *, n: int, shape: Dims) -> Value:
    several = n > 1 or (n == 1 and isinstance(x, Value))  # products of several factors, which may overflow on the way
    dtype = np.float64 if several else graph.dtype
    terms = (Term(graph, graph.cast(part, dtype)) for part in (g, x, y))
    return _quotient_sum(*terms, n=n, shape=shape).value


# Gradients of functions of one variable -------------------------------------------------------------------------------
@formula(elementwise._signed)
def _signed(g: Term, x: Term) -> Term:
    return select(g * x.node("Sign"), absolute(x) > 0)


@formula(elementwise._relu_gradient)
def _relu_gradient(g: Term, x: Term) -> Term:
    return where(x.node("LessOrEqual", 0, dtype=np.bool_), 0, g)


@formula(elementwise._exp_gradient)
def _exp_gradient(g: Term, x: Term, e: Term) -> Term:
    root = exp(x * 0.5)  # e may be infinite where g is 0
    return g * root * root


def _times_sech2(g: Term, x: Term) -> Term:
    small = exp(-absolute(x))
    sech = 2 * small / (1 + small * small)
    return g * sech * sech


formula(elementwise._tanh_gradient)(_times_sech2)


@formula(elementwise._sigmoid_gradient)
def _sigmoid_gradient(g: Term, x: Term) -> Term:
    return _times_sech2(g, x * 0.5) * 0.25
