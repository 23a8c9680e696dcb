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
from .formulas import Term, absolute, exp, formula, limited, log, polynomial, select, tail, where
from .registry import onnx_converter

__all__: list[str] = []


# Functions of one variable --------------------------------------------------------------------------------------------
def log1p(x: Term) -> Term:
    """``log(1 + x)``: the rounding error of ``1 + x`` is made up for (W. Kahan)."""
    total = 1 + x
    kept = total - 1
    lost = kept == 0
    ratio = where(kept == x, 1, x / where(lost, 1, kept))  # also where both are infinite
    return where(lost, x, log(total) * ratio)


formula(ops.log1p)(log1p)


@formula(ops.expm1)
def _expm1(x: Term) -> Term:
    e = exp(x)
    less = e - 1
    lost = less == 0
    ratio = x / log(where(lost, 2, e))  # makes up for the rounding error of e (W. Kahan)
    return where(absolute(x) < 0.5, where(lost, x, less * ratio), less)


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
    if x.dtype != np.float64:
        return x.node("Erf")
    size = limited(x, 8)  # runtimes have no Erf of double precision
    square = size * size
    series = polynomial(smooth.erf_series(20), square.node("Min", 1)) * size
    large = 1 - exp(-square) * tail(absolute(size))
    return where(absolute(size) < 1, series, large * size.node("Sign"))


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
    if isinstance(y, float) and y == 0.5 and isinstance(x, Value) and graph.dtype.kind == "f":
        return graph.add("Sqrt", graph.cast(x, graph.dtype))  # as NumPy does: NaN at minus infinity
    small = graph.dtype.kind != "f" and graph.dtype != np.int32
    dtype = np.dtype(np.int64) if small else graph.dtype  # there is no Pow of smaller integers
    return graph.add("Pow", graph.cast(x, dtype), graph.cast(y, dtype))


def _finite(power: Term, g: Term, x: Term, y: Term) -> Term:
    """Let ``x**y`` be 0 where it overflows and ``g`` is 0, as far as its fourth root is finite, as in the op."""
    root = absolute(x).node("Pow", y * 0.25)
    overflow = power.node("IsInf", dtype=np.bool_) & ~root.node("IsInf", dtype=np.bool_)
    return select(power, ~(overflow & (g == 0)))


@formula(powers._base_gradient)
def _base_gradient(g: Term, x: Term, y: Term) -> Term:
    if y.known(2):
        return g * 2 * x
    g, x, y = (part.to(np.float64) for part in (g, x, y))
    lower = y - 1
    exact = ((lower + 1 == y) & (absolute(y) < 2**50)) | (x * 2 == x)  # or x is 0 or infinite
    exponent = where(exact, lower, y)
    power = x.node("Pow", exponent)
    power = _finite(where(exact, power, power / x), g, x, exponent)
    return select(g * (y * power), ~(y == 0))


@formula(powers._exponent_gradient, wide=True)
def _exponent_gradient(g: Term, x: Term, y: Term) -> Term:
    return select(g * log(x) * _finite(x.node("Pow", y), g, x, y), ~(x == 0))
