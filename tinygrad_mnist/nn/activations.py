"""Activation functions as layers: plain callables with the function's settings. ReLU is in layers.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..tensor import Operand, Tensor
from ..validation import real

__all__ = ["ELU", "GELU", "Hardswish", "LeakyReLU", "Mish", "SiLU", "Sigmoid", "Softplus", "Tanh"]


class _Activation:
    """A function applied elementwise, with or without a generator."""

    function: Callable[..., Tensor]

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return type(self).function(x, **vars(self))

    def __repr__(self) -> str:
        settings: list[Any] = [f"{name}={value!r}" for name, value in vars(self).items()]
        return f"{type(self).__name__}({', '.join(settings)})"


class ELU(_Activation):
    """``x``, and ``alpha * (exp(x) - 1)`` where that is negative: see `elu`."""

    function = staticmethod(ops.elu)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("ELU", "alpha", alpha)


class GELU(_Activation):
    """``x`` times the probability that a standard normal number is less: see `gelu`, also for `approximate`."""

    function = staticmethod(ops.gelu)

    def __init__(self, approximate: str = "none") -> None:
        ops.gelu(0.0, approximate)  # refuses a wrong setting here, not in the first training step
        self.approximate = approximate


class Hardswish(_Activation):
    """``x * clip(x + 3, 0, 6) / 6``: see `hardswish`."""

    function = staticmethod(ops.hardswish)


class LeakyReLU(_Activation):
    """``x``, and ``negative_slope * x`` where that is negative: see `leaky_relu`."""

    function = staticmethod(ops.leaky_relu)

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)


class Mish(_Activation):
    """``x * tanh(softplus(x))``: see `mish`."""

    function = staticmethod(ops.mish)


class SiLU(_Activation):
    """``x * sigmoid(x)``: see `silu`."""

    function = staticmethod(ops.silu)


class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``: see `sigmoid`."""

    function = staticmethod(ops.sigmoid)


class Softplus(_Activation):
    """``log(1 + exp(beta * x)) / beta``: see `softplus`."""

    function = staticmethod(ops.softplus)

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = real("Softplus", "beta", beta, above=0)


class Tanh(_Activation):
    """The hyperbolic tangent: see `tanh`."""

    function = staticmethod(ops.tanh)
