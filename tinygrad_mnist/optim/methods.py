"""Methods that update each number of a parameter by its own gradients: SGD, AdaGrad, RMSprop, Adam, AdamW."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..tensor import Array, Tensor
from .groups import Groups
from .optimizer import Optimizer, flag, nonzero

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent: ``v = momentum * v + g; w -= lr * v``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
        At least 0, here and in the other optimizers.
    momentum : float
        From 0 to 1.
    nesterov : bool
        Look one step ahead, as in PyTorch: ``w -= lr * (g + momentum * v)``.
    weight_decay : float
        At least 0. As in PyTorch, ``weight_decay * w`` is added to the gradient, and so to ``v``: an L2 penalty. (That
        of `AdamW` and `Muon` is decoupled from the gradient.)
    groups : dict, optional
        Other settings for some parameters, by name: see `Optimizer`.

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> optimizer = SGD({"w": w}, lr=0.1, momentum=0.5, nesterov=True)
    >>> optimizer.step({"w": 2.0})  # v is 2, the step 0.1 * (2 + 0.5 * 2)
    >>> round(w.item(), 6)
    0.7
    """

    settings = ("lr", "momentum", "nesterov", "weight_decay")
    since = {"nesterov": False, "weight_decay": 0.0}
    slots = ("velocity",)
    decoupled = False

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.01,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(params, lr, groups)
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov is True, and momentum 0; pass a momentum above 0")

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        velocity = state["velocity"] = self.momentum * state["velocity"] + g
        if self.nesterov:
            return self.lr * (g + self.momentum * velocity)
        return self.lr * velocity


class AdaGrad(Optimizer):
    """Adaptive gradient (Duchi et al., 2011): ``h += g * g; w -= lr * g / (sqrt(h) + eps)``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
    eps : float
        Above 0, here and in the other optimizers.
    groups : dict, optional
        See `Optimizer`.

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> AdaGrad({"w": w}, lr=0.1).step({"w": 5.0})  # the first step has length lr
    >>> round(w.item(), 6)
    0.9
    """

    settings = ("lr", "eps")
    slots = ("h",)

    def __init__(
        self, params: Mapping[str, Tensor], lr: float = 0.01, eps: float = 1e-7, *, groups: Groups | None = None
    ) -> None:
        super().__init__(params, lr, groups)
        self.eps = eps

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        state["h"] = state["h"] + g * g
        return self.lr * g / (np.sqrt(state["h"]) + nonzero(self.eps, g))


class RMSprop(Optimizer):
    """Gradients divided by the root of their running mean square (Tieleman and Hinton, 2012), as in PyTorch.

    ``s = alpha * s + (1 - alpha) * g * g; v = momentum * v + g / (sqrt(s) + eps); w -= lr * v``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
    alpha : float
        Decay rate of the mean square, at least 0 and below 1.
    eps : float
    momentum : float
        From 0 to 1.
    centered : bool
        Divide by the root of the variance: the mean square less the square of a running mean of the gradient. Where
        rounding makes that negative, it counts as 0 (in PyTorch the root is NaN).
    weight_decay : float
        Added to the gradient, see `SGD`.
    groups : dict, optional
        See `Optimizer`.

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> RMSprop({"w": w}, lr=0.1).step({"w": 5.0})  # the first step has length lr / sqrt(1 - alpha)
    >>> round(w.item(), 6)
    0.0
    """

    settings = ("lr", "alpha", "eps", "momentum", "centered", "weight_decay")
    decoupled = False

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        self.centered = flag("RMSprop", "centered", centered)
        self.slots = ("square", "mean", "velocity") if self.centered else ("square", "velocity")
        super().__init__(params, lr, groups)
        self.alpha = alpha
        self.eps = eps
        self.momentum = momentum
        self.weight_decay = weight_decay

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        square = state["square"] = self.alpha * state["square"] + (1 - self.alpha) * (g * g)
        if self.centered:
            state["mean"] = self.alpha * state["mean"] + (1 - self.alpha) * g
            square = np.maximum(square - state["mean"] * state["mean"], 0)
        state["velocity"] = self.momentum * state["velocity"] + g / (np.sqrt(square) + nonzero(self.eps, g))
        return self.lr * state["velocity"]


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba, 2015), with bias correction for the gradients that each parameter has had.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
    betas : (float, float)
        Decay rates of the running means of the gradient and of its square, each at least 0 and below 1.
    eps : float
    groups : dict, optional
        See `Optimizer`.
    """

    settings: tuple[str, ...] = ("lr", "betas", "eps")
    slots = ("m", "v")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(params, lr, groups)
        self.betas = betas
        self.eps = eps

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        beta1, beta2 = self.betas
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * (g * g)
        m = state["m"] / (1 - beta1**self.count)
        v = state["v"] / (1 - beta2**self.count)
        return self.lr * m / (np.sqrt(v) + nonzero(self.eps, g))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    A step also subtracts ``lr * weight_decay * w`` from each parameter ``w``.

    Parameters
    ----------
    params : dict of str to Tensor
        All of them decay, biases too, unless `groups` says otherwise.
    lr, betas, eps
        See `Adam`.
    weight_decay : float
        At least 0.
    groups : dict, optional
        See `Optimizer`.

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
        *,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, groups=groups)
        self.weight_decay = weight_decay
