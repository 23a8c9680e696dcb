"""Methods that update each number of a parameter by its own gradients: SGD, AdaGrad, Adam, AdamW."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..tensor import Array, Tensor
from .optimizer import Optimizer, nonzero

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW"]


class SGD(Optimizer):
    """Stochastic gradient descent: ``v = momentum * v + g; w -= lr * v``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
        At least 0, here and in the other optimizers.
    momentum : float
        From 0 to 1.
    """

    settings = ("lr", "momentum")
    slots = ("velocity",)

    def __init__(self, params: Mapping[str, Tensor], lr: float = 0.01, momentum: float = 0.0) -> None:
        super().__init__(params, lr)
        self.momentum = momentum

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        state["velocity"] = self.momentum * state["velocity"] + g
        return self.lr * state["velocity"]


class AdaGrad(Optimizer):
    """Adaptive gradient (Duchi et al., 2011): ``h += g * g; w -= lr * g / (sqrt(h) + eps)``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
    eps : float
        Above 0, here and in the other optimizers.

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> AdaGrad({"w": w}, lr=0.1).step({"w": 5.0})  # the first step has length lr
    >>> round(w.item(), 6)
    0.9
    """

    settings = ("lr", "eps")
    slots = ("h",)

    def __init__(self, params: Mapping[str, Tensor], lr: float = 0.01, eps: float = 1e-7) -> None:
        super().__init__(params, lr)
        self.eps = eps

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        state["h"] = state["h"] + g * g
        return self.lr * g / (np.sqrt(state["h"]) + nonzero(self.eps, g))


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba, 2015), with bias correction for the gradients that each parameter has had.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
    betas : (float, float)
        Decay rates of the running means of the gradient and of its square, each at least 0 and below 1.
    eps : float
    """

    settings: tuple[str, ...] = ("lr", "betas", "eps")
    slots = ("m", "v")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr)
        self.betas, self.eps = betas, eps

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        beta1, beta2 = self.betas
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * (g * g)
        m = state["m"] / (1 - beta1**self.count)
        return self.lr * m / (np.sqrt(state["v"] / (1 - beta2**self.count)) + nonzero(self.eps, g))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    A step also subtracts ``lr * weight_decay * w`` from each parameter ``w``.

    Parameters
    ----------
    params : dict of str to Tensor
        All of them decay, biases too. To let only some decay, use two optimizers.
    lr, betas, eps
        See `Adam`.
    weight_decay : float
        At least 0.

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> AdamW({"w": w}, lr=0.1, weight_decay=0.5).step({"w": 0.0})  # only the decay acts
    >>> round(w.item(), 6)
    0.95
    """

    settings = (*Adam.settings, "weight_decay")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps)
        self.weight_decay = weight_decay
