"""Elementwise functions of one or two variables beside those of elementwise.py: log1p to isinf."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels
from ..record import primitive, unbroadcast
from ..tensor import Tensor, attach
from .elementwise import _times_exp, _times_sigmoids, abs, exp, omit, select
from .logic import greater_equal
from .operators import in_rules, in_single, of_ufunc

__all__ = [
    "ceil",
    "erf",
    "expm1",
    "floor",
    "isfinite",
    "isinf",
    "isnan",
    "log1p",
    "log2",
    "logaddexp",
    "reciprocal",
    "square",
]


# Functions of one variable --------------------------------------------------------------------------------------------
@of_ufunc(kernels.dealt(np.log1p))
def log1p(x: Any, /) -> Any:
    """``log(1 + x)``, exact also where ``x`` is small.

    Examples
    --------
    >>> log1p([0.0, 1e-20])
    Tensor([0.e+00, 1.e-20], dtype=float64)
    """


@of_ufunc(kernels.dealt(np.expm1))
def expm1(x: Any, /) -> Any:
    """``exp(x) - 1``, exact also where ``x`` is small.

    Examples
    --------
    >>> expm1([0.0, 1e-20])
    Tensor([0.e+00, 1.e-20], dtype=float64)
    """


@of_ufunc(kernels.dealt(np.log2))
def log2(x: Any, /) -> Any:
    """Logarithm to base 2.

    Examples
    --------
    >>> log2([8.0])
    Tensor([3.], dtype=float64)
    """


@of_ufunc(np.square)
def square(x: Any, /) -> Any:
    """``x * x``.

    Examples
    --------
    >>> square([-3.0])
    Tensor([9.], dtype=float64)
    """


@of_ufunc(np.reciprocal)
def reciprocal(x: Any, /) -> Any:
    """``1 / x``; of integers an integer, rounded toward 0, as in NumPy.

    Examples
    --------
    >>> reciprocal([4.0])
    Tensor([0.25], dtype=float64)
    """


@primitive
def erf(x: Any, /) -> Any:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to ``x``.

    Examples
    --------
    >>> erf([0.0, 0.5, -6.0])
    Tensor([ 0.        ,  0.52049988, -1.        ], dtype=float64)
    """
    return kernels.erf(x)


@of_ufunc(np.floor)
def floor(x: Any, /) -> Any:
    """Round down to an integer; the derivative is 0.

    Examples
    --------
    >>> floor([1.7, -1.2])
    Tensor([ 1., -2.], dtype=float64)
    """


@of_ufunc(np.ceil)
def ceil(x: Any, /) -> Any:
    """Round up to an integer; the derivative is 0.

    Examples
    --------
    >>> ceil([1.2, -1.7])
    Tensor([ 2., -1.], dtype=float64)
    """


@primitive
def _times_gaussian(g: Any, x: Any, /, *, factor: float) -> Any:
    """``g * exp(-factor * x**2)``, where `factor` is 0.5 or 1."""
    return kernels.times_gaussian(g, x, factor)


def near(h: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """``h * g``, and exactly 0 where a Gaussian or the derivative of a sigmoid at ``x`` is 0 times anything."""
    far = greater_equal(abs(x.detach()), 1500)
    return omit(h, far) * omit(g, far)


times_gaussian = in_rules(_times_gaussian)
log1p.defvjp(lambda g, out, x: g / (1 + x))
expm1.defvjp(lambda g, out, x: _times_exp(g, x, exp(x)))
log2.defvjp(lambda g, out, x: g / x / math.log(2))
square.defvjp(lambda g, out, x: g * x * 2)
reciprocal.defvjp(lambda g, out, x: -g / x / x)
erf.defvjp(lambda g, out, x: times_gaussian(g, x, factor=1.0) * (2 / math.sqrt(math.pi)))
_times_gaussian.defvjp(
    lambda h, out, g, x, factor: times_gaussian(h, x, factor=factor),
    in_single(lambda h, out, g, x, factor: times_gaussian(near(-2 * factor * h, near(g, x, x), x), x, factor=factor)),
)
floor.defvjp(lambda g, out, x: select(g, False))
ceil.defvjp(lambda g, out, x: select(g, False))


# Functions of two variables -------------------------------------------------------------------------------------------
@primitive
def logaddexp(x: Any, y: Any, /) -> Any:
    """``log(exp(x) + exp(y))``, without overflow; where both are the same infinity, the gradients are NaN.

    Examples
    --------
    >>> logaddexp([0.0, 1000.0], [0.0, -1000.0])
    Tensor([6.93147181e-01, 1.00000000e+03], dtype=float64)
    """
    return kernels.logaddexp(x, y)


@primitive
def _times_weight(g: Any, x: Any, y: Any, /) -> Any:
    """``g / (1 + exp(y - x))``: ``g`` times the weight of ``x`` in the softmax of both."""
    return kernels.times_sigmoid(g, x, y)


times_weight = in_rules(_times_weight)
logaddexp.defvjp(
    lambda g, out, x, y: unbroadcast(times_weight(g, x, y), x),
    lambda g, out, x, y: unbroadcast(times_weight(g, y, x), y),
)
_times_weight.defvjp(
    lambda h, out, g, x, y: unbroadcast(times_weight(h, x, y), g),
    in_single(lambda h, out, g, x, y: unbroadcast(_times_sigmoids(near(h, g, x - y), x - y), x)),
    in_single(lambda h, out, g, x, y: unbroadcast(_times_sigmoids(-near(h, g, x - y), x - y), y)),
)


# Kinds of numbers -----------------------------------------------------------------------------------------------------
@of_ufunc(np.isnan)
def isnan(x: Any, /) -> Any:
    """Whether each element is NaN: booleans, without a gradient.

    Examples
    --------
    >>> isnan([0.0, np.nan, np.inf])
    Tensor([False,  True, False], dtype=bool)
    """


@of_ufunc(np.isinf)
def isinf(x: Any, /) -> Any:
    """Whether each element is infinite: booleans, without a gradient.

    Examples
    --------
    >>> isinf([0.0, np.nan, -np.inf])
    Tensor([False, False,  True], dtype=bool)
    """


@of_ufunc(np.isfinite)
def isfinite(x: Any, /) -> Any:
    """Whether each element is neither infinite nor NaN: booleans, without a gradient.

    Examples
    --------
    >>> isfinite([0.0, np.nan, np.inf])
    Tensor([ True, False, False], dtype=bool)
    """


for _kind in (isnan, isinf, isfinite):
    _kind.defvjp(None)


@attach
class FunctionMethods:
    """Methods of `Tensor` that are defined here."""

    ceil = ceil
    erf = erf
    expm1 = expm1
    floor = floor
    isfinite = isfinite
    isinf = isinf
    isnan = isnan
    log1p = log1p
    log2 = log2
    logaddexp = logaddexp
    reciprocal = reciprocal
    square = square
