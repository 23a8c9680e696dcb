"""Converters of activation functions and of their derivatives: the formulas of `tinygrad_mnist.kernels.smooth`."""

from __future__ import annotations

import math

from ...kernels import smooth
from ...ops import activations
from .formulas import Term, absolute, exp, formula, limited, select, tail, where

__all__: list[str] = []


def _far_below(out: Term, exponent: Term, x: Term) -> Term:
    """Replace products with a step by exactly 0 where ``exp(exponent)`` is 0, but not at minus infinity."""
    return select(out, ~((exponent < -smooth.BOUND) & (x > -math.inf)))


def _times_step(g: Term, factor: Term, root: Term, below: Term) -> Term:
    """``g * factor``, and below 0 ``g * factor * root**2``, so that nothing overflows or underflows on the way."""
    return where(below, g * root * factor * root, g * factor)


def _logistic(x: Term, g: Term | None, exponent: Term, slope: Term | float) -> Term:
    """``x * sigmoid(exponent)``, or ``g`` times its derivative, where `slope` is the derivative of `exponent`."""
    below = exponent < 0
    root = exp(absolute(exponent) * -0.5)
    small = root * root
    if g is None:
        return _times_step(x, 1 / (1 + small), root, below)
    factor = (1 + x * (where(below, 1, small) * slope / (1 + small))) / (1 + small)
    return _far_below(_times_step(g, factor, root, below), exponent, x)


def _silu(x: Term, g: Term | None = None) -> Term:
    return _logistic(x, g, x, 1.0)


def _gelu_tanh(x: Term, g: Term | None = None) -> Term:
    near = limited(x, 100)  # farther out the sigmoid is 0 or 1
    square = near * near
    factor = math.sqrt(8 / math.pi)
    return _logistic(x, g, factor * near * (1 + 0.044715 * square), factor * (1 + 3 * 0.044715 * square))


def _gelu(x: Term, g: Term | None = None) -> Term:
    below = x < 0
    size = absolute(x)
    square = size * size
    share = tail(size * math.sqrt(0.5)) * 0.5  # of what is farther out, over exp(-square / 2)
    if g is not None:
        share = share - size * math.sqrt(0.5 / math.pi)
    root = exp(square * -0.25)
    factor = where(below, share, 1 - share * root * root)
    if g is None:
        return _times_step(x, factor, root, below)
    return _far_below(_times_step(g, factor, root, below), where(below, square * -0.5, x), x)


def _mish(x: Term, g: Term | None = None) -> Term:
    below = x < 0
    root = exp(absolute(x) * -0.5)
    small = root * root
    divisor = where(below, small * (small + 2) + 2, 1 + 2 * small * (1 + small))
    factor = where(below, small + 2, 1 + 2 * small)
    if g is None:
        return _times_step(x, factor / divisor, root, below)
    factor = factor + x * (4 * (small + 1) * where(below, 1, small * small) / divisor)
    return _far_below(_times_step(g, factor / divisor, root, below), x, x)


KINDS = {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "silu": _silu, "mish": _mish}


@formula(activations.gelu, wide=True)
def _any_gelu(x: Term, approximate: str) -> Term:
    return KINDS[activations.GELU[approximate]](x)


formula(activations.silu, wide=True)(_silu)
formula(activations.mish, wide=True)(_mish)


@formula(activations._times_slope, wide=True)
def _times_slope(g: Term, x: Term, kind: str) -> Term:
    return KINDS[kind](x, g)
