"""Activation functions: gelu, silu and their kin. Formulas and defaults are those of PyTorch.

At infinities, where PyTorch's are NaN, these have their limits: at minus infinity silu, gelu, mish and hardswish and
their derivatives are 0, at infinity the derivatives are 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels
from ..record import primitive
from ..tensor import Operand, Tensor
from ..validation import real
from .elementwise import _times_sech2, clip, where
from .functions import expm1, logaddexp, near, times_gaussian, times_weight
from .logic import greater, less, less_equal, logical_and
from .operators import in_rules, in_single
from .scores import _scores as as_floats

__all__ = ["elu", "gelu", "hardswish", "leaky_relu", "mish", "silu", "softplus"]


@primitive
def _times_normal(g: Any, x: Any, /) -> Any:
    """``g`` times the probability that a number of the standard normal distribution is less than ``x``."""
    return kernels.times_normal(g, x)


@primitive
def _times_tanh_softplus(g: Any, x: Any, /) -> Any:
    """``g * tanh(softplus(x))``."""
    return kernels.times_tanh_softplus(g, x)


times_normal = in_rules(_times_normal)
times_tanh_softplus = in_rules(_times_tanh_softplus)
_times_normal.defvjp(
    lambda h, out, g, x: times_normal(h, x),
    in_single(lambda h, out, g, x: times_gaussian(near(h, g, x), x, factor=0.5) / math.sqrt(2 * math.pi)),
)
_times_tanh_softplus.defvjp(
    lambda h, out, g, x: times_tanh_softplus(h, x),
    in_single(lambda h, out, g, x: times_weight(_times_sech2(near(h, g, x), logaddexp(x, 0.0)), x, 0.0)),
)


def gelu(x: Operand, approximate: str = "none") -> Tensor:
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
    x = as_floats(x)
    if approximate == "none":
        return times_normal(x, x)
    if approximate != "tanh":
        raise ValueError(f'gelu: approximate is {approximate!r}; it must be "none" or "tanh"')
    if x.dtype == np.float16:  # the cube would overflow
        return gelu(x.astype(np.float32), approximate).astype(np.float16)
    inner = clip(x, -100, 100)  # farther out the probability is 0 or 1
    return times_weight(x, math.sqrt(8 / math.pi) * (inner + 0.044715 * inner**3), 0.0)


def silu(x: Operand) -> Tensor:
    """``x * sigmoid(x)``, also known as swish.

    Examples
    --------
    >>> silu([-1.0, 0.0, 1.0])
    Tensor([-0.26894142,  0.        ,  0.73105858], dtype=float64)
    """
    x = as_floats(x)
    return times_weight(x, x, 0.0)


def mish(x: Operand) -> Tensor:
    """``x * tanh(softplus(x))``.

    Notes
    -----
    D. Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019.

    Examples
    --------
    >>> mish([-1.0, 0.0, 1.0])
    Tensor([-0.30340146,  0.        ,  0.86509839], dtype=float64)
    """
    x = as_floats(x)
    return times_tanh_softplus(x, x)


def softplus(x: Operand, beta: float = 1.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, a smooth approximation of `relu`.

    It is exact everywhere; PyTorch returns ``x`` itself where ``beta * x`` is above a threshold of 20.

    Examples
    --------
    >>> softplus([-1000.0, 0.0, 1000.0])
    Tensor([0.00000000e+00, 6.93147181e-01, 1.00000000e+03], dtype=float64)
    """
    beta = real("softplus", "beta", beta, above=0)
    return logaddexp(as_floats(x) * beta, 0.0) / beta


def elu(x: Operand, alpha: float = 1.0) -> Tensor:
    """``x`` where that is positive, else ``alpha * (exp(x) - 1)``; at 0 all derivatives are `alpha`.

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
    below = less_equal(x, 0)
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
    """``x * clip(x + 3, 0, 6) / 6``; the derivative is 0 at -3 and 1 at 3.

    Notes
    -----
    A. Howard et al., "Searching for MobileNetV3", 2019.

    Examples
    --------
    >>> hardswish([-3.0, -1.0, 1.0, 3.0])
    Tensor([ 0.        , -0.33333333,  0.66666667,  3.        ], dtype=float64)
    """
    x = as_floats(x)
    inside = logical_and(greater(x, -3), less(x, 3))
    middle = where(inside, x, 0.0)
    return where(inside, middle * ((middle + 3) / 6), where(less(x, 3), 0.0, x))
