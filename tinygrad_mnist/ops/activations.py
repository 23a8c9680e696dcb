"""Activation functions: gelu, silu and their kin. Formulas, defaults and values at infinities are those of PyTorch.

At minus infinity silu, gelu, mish and hardswish are NaN. The derivatives of the first three are NaN at both infinities.
"""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..record import primitive
from ..tensor import Operand, Tensor
from ..validation import real
from .elementwise import _times_sech2, _times_sigmoids, clip, sigmoid, tanh, where
from .functions import expm1, isinf, logaddexp, near, times_gaussian, times_weight
from .logic import equal, greater, greater_equal, less, less_equal, logical_not, logical_or
from .operators import in_rules, in_single
from .scores import _scores as as_floats

__all__ = ["elu", "gelu", "hardswish", "leaky_relu", "mish", "silu", "softplus"]


# Products with a smooth step ------------------------------------------------------------------------------------------
@primitive
def gelu(x: Any, /, approximate: str = "none") -> Any:
    """``x`` times the probability that a number of the standard normal distribution is less than ``x``.

    Parameters
    ----------
    x : array_like
    approximate : {"none", "tanh"}
        With "tanh", the probability is ``(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``.

    Notes
    -----
    D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016.

    Examples
    --------
    >>> gelu([-1.0, 0.0, 1.0])
    Tensor([-0.15865525,  0.        ,  0.84134475], dtype=float64)
    >>> gelu([1.0], approximate="tanh")
    Tensor([0.84119199], dtype=float64)
    """
    if approximate not in GELU:
        raise ValueError(f'gelu: approximate is {approximate!r}; it must be "none" or "tanh"')
    return kernels.activation(GELU[approximate], x)


@primitive
def silu(x: Any, /) -> Any:
    """``x * sigmoid(x)``, also known as swish.

    Examples
    --------
    >>> silu([-1.0, 0.0, 1.0])
    Tensor([-0.26894142,  0.        ,  0.73105858], dtype=float64)
    """
    return kernels.activation("silu", x)


@primitive
def mish(x: Any, /) -> Any:
    """``x * tanh(softplus(x))``.

    Notes
    -----
    D. Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019.

    Examples
    --------
    >>> mish([-1.0, 0.0, 1.0])
    Tensor([-0.30340146,  0.        ,  0.86509839], dtype=float64)
    """
    return kernels.activation("mish", x)


@primitive
def _times_slope(g: Any, x: Any, /, *, kind: str) -> Any:
    """``g`` times the derivative of an activation function."""
    return kernels.activation(kind, x, g)


def _gelu_curvature(g: Tensor, x: Tensor) -> Tensor:
    """``g`` times the second derivative."""
    return times_gaussian(2 * g - g * x * x, x, factor=0.5) / math.sqrt(2 * math.pi)


def _gelu_tanh_curvature(g: Tensor, x: Tensor) -> Tensor:
    inner, factor = clip(x, -100, 100), math.sqrt(8 / math.pi)  # farther out the second derivative is 0
    square = inner * inner
    exponent, slope = factor * inner * (1 + 0.044715 * square), factor * (1 + 3 * 0.044715 * square)
    bend = inner * (6 * 0.044715 * factor * inner - tanh(exponent / 2) * slope * slope)
    return _times_sigmoids(2 * g * slope + g * bend, exponent)


def _silu_curvature(g: Tensor, x: Tensor) -> Tensor:
    return _times_sigmoids(2 * g - g * x * tanh(x / 2), x)


def _mish_curvature(g: Tensor, x: Tensor) -> Tensor:
    log = logaddexp(x, 0.0)
    bend = sigmoid(-x) - 2 * tanh(log) * sigmoid(x)
    return times_weight(_times_sech2(2 * g + g * x * bend, log), x, 0.0)


def _curvature(h: Tensor, g: Tensor, x: Tensor, kind: str) -> Tensor:
    """``h * g`` times the second derivative of an activation function; NaN at infinities, as the first is."""
    return where(isinf(x), math.nan, CURVATURES[kind](near(h, g, x), x))


GELU = {"none": "gelu", "tanh": "gelu_tanh"}
CURVATURES = {
    "gelu": _gelu_curvature,
    "gelu_tanh": _gelu_tanh_curvature,
    "silu": _silu_curvature,
    "mish": _mish_curvature,
}
times_slope = in_rules(_times_slope)
gelu.defvjp(lambda g, out, x, approximate: times_slope(g, x, kind=GELU[approximate]))
silu.defvjp(lambda g, out, x: times_slope(g, x, kind="silu"))
mish.defvjp(lambda g, out, x: times_slope(g, x, kind="mish"))
_times_slope.defvjp(
    lambda h, out, g, x, kind: times_slope(h, x, kind=kind),
    in_single(lambda h, out, g, x, kind: _curvature(h, g, x, kind)),
)


# Compositions ---------------------------------------------------------------------------------------------------------
def softplus(x: Operand, beta: float = 1.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, a smooth approximation of `relu`.

    It is exact everywhere; PyTorch returns ``x`` itself where ``beta * x`` is above a threshold of 20.

    Examples
    --------
    >>> softplus([-1000.0, 0.0, 1000.0])
    Tensor([0.00000000e+00, 6.93147181e-01, 1.00000000e+03], dtype=float64)
    """
    beta = real("softplus", "beta", beta, above=0)
    x = as_floats(x)
    return logaddexp(x, 0.0) if beta == 1 else logaddexp(x * beta, 0.0) / beta


def elu(x: Operand, alpha: float = 1.0) -> Tensor:
    """``x`` where that is positive, else ``alpha * (exp(x) - 1)``.

    At 0 all derivatives are `alpha`; in PyTorch the first is, the higher ones are 0 there.

    Notes
    -----
    D.-A. Clevert, T. Unterthiner and S. Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear
    Units", 2015.

    Examples
    --------
    >>> elu([-1.0, 0.0, 1.0])
    Tensor([-0.63212056,  0.        ,  1.        ], dtype=float64)
    """
    x, alpha = as_floats(x), real("elu", "alpha", alpha)
    below = logical_not(greater(x, 0))  # NaN, too
    return where(below, expm1(where(below, x, 0.0)) * alpha, x)


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> Tensor:
    """``x`` where that is positive, else ``negative_slope * x``; the derivative at 0 is `negative_slope`.

    Examples
    --------
    >>> leaky_relu([-1.0, 0.0, 1.0])
    Tensor([-0.01,  0.  ,  1.  ], dtype=float64)
    """
    x, slope = as_floats(x), real("leaky_relu", "negative_slope", negative_slope)
    return where(greater(x, 0), x, x * slope)


def hardswish(x: Operand) -> Tensor:
    """``x * clip(x + 3, 0, 6) / 6``; the derivative is 0 at -3 and 1 at 3, and 0 at minus infinity, as in PyTorch.

    Notes
    -----
    A. Howard et al., "Searching for MobileNetV3", 2019.

    Examples
    --------
    >>> hardswish([-3.0, -1.0, 1.0, 3.0])
    Tensor([ 0.        , -0.33333333,  0.66666667,  3.        ], dtype=float64)
    """
    x = as_floats(x)
    inside = logical_not(logical_or(less_equal(x, -3), greater_equal(x, 3)))  # NaN, too
    middle = where(inside, x, 0.0)
    finite = where(inside, middle * ((middle + 3) / 6), where(less(x, 3), 0.0, x))
    return where(equal(x, -math.inf), math.nan, finite)
