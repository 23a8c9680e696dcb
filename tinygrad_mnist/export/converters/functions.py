"""Converters of functions beside those of elementwise.py, and of powers.

What cancels in its own formula, such as ``log(1 + x)``, is computed by one that does not.
"""

from __future__ import annotations

import math

import numpy as np

from ... import ops
from ...kernels import smooth
from ...ops import functions, powers
from ..onnx_graph import Graph, Operand, Value
from .formulas import Term, absolute, exp, formula, log, select, where
from .registry import onnx_converter

__all__: list[str] = []


# Functions of one variable --------------------------------------------------------------------------------------------
def log1p(x: Term) -> Term:
    """``log(1 + x)``: the rounding error of ``1 + x`` is made up for (W. Kahan)."""
    total = 1 + x
    kept = total - 1
    ratio = where(kept == x, 1, x / kept)  # also where both are infinite
    return where(kept == 0, x, log(total) * ratio)


formula(ops.log1p)(log1p)


@formula(ops.expm1)
def _expm1(x: Term) -> Term:
    e = exp(x)
    less = e - 1
    exact = where(e == 1, x, less * (x / log(e)))  # its rounding error is made up for (W. Kahan)
    return where(absolute(x) < 0.5, exact, less)


@formula(ops.log2, wide=True)
def _log2(x: Term) -> Term:
    return log(x) / math.log(2)


@formula(ops.square)
def _square(x: Term) -> Term:
    return x * x


@formula(ops.reciprocal)
def _reciprocal(x: Term) -> Term:
    if x.dtype.kind == "f":
        return x.node("Reciprocal")
    ones = x == 1
    return select(x, ones if x.dtype.kind == "u" else ones | (x == -1))


@formula(ops.erf)
def _erf(x: Term) -> Term:
    return x.node("Erf")


@formula(ops.floor)
def _floor(x: Term) -> Term:
    return x.node("Floor") if x.dtype.kind == "f" else x


@formula(ops.ceil)
def _ceil(x: Term) -> Term:
    return x.node("Ceil") if x.dtype.kind == "f" else x


@formula(functions._times_gaussian, wide=True)
def _times_gaussian(g: Term, x: Term, factor: float) -> Term:
    root = exp(x * x * (-factor / 2))  # g * root * root: g may be large where the Gaussian is 0
    return g * root * root


# Functions of two variables -------------------------------------------------------------------------------------------
@formula(ops.logaddexp)
def _logaddexp(x: Term, y: Term) -> Term:
    distance = absolute(where(x == y, 0, x - y))  # both may be the same infinity
    return x.node("Max", y) + log1p(exp(-distance))


@formula(functions._times_weight, wide=True)
def _times_weight(g: Term, x: Term, y: Term) -> Term:
    difference = x - y
    root = exp(absolute(difference) * -0.5)  # g may be large where its square is 0
    g = where(difference < -smooth.BOUND, 0, g)
    return where(difference < 0, g * root * root, g) / (1 + root * root)


# Powers ---------------------------------------------------------------------------------------------------------------
@onnx_converter(ops.power)
def _power(graph: Graph, x: Operand, y: Operand) -> Value:
    small = graph.dtype.kind != "f" and graph.dtype != np.int32
    dtype = np.dtype(np.int64) if small else graph.dtype  # there is no Pow of smaller integers
    return graph.add("Pow", graph.cast(x, dtype), graph.cast(y, dtype))


@formula(powers._base_gradient, wide=True)
def _base_gradient(g: Term, x: Term, y: Term) -> Term:
    return select(g * (y * x.node("Pow", y - 1)), ~(y == 0))


@formula(powers._exponent_gradient, wide=True)
def _exponent_gradient(g: Term, x: Term, y: Term) -> Term:
    return select(g * log(x) * x.node("Pow", y), ~(x == 0))
