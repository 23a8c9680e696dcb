"""Optimizers: SGD, AdaGrad, Adam, AdamW, Muon.

State is kept by parameter name, so that it can be saved and loaded into a rebuilt model. A step gives a parameter a new
array and does not modify the old one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .tensor import Array, Operand, Tensor, numeric
from .validation import each, integer, real, state_mismatches

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW", "Muon"]

BOUNDS: dict[str, dict[str, float]] = {
    "lr": {"least": 0},
    "momentum": {"least": 0, "most": 1},
    "betas": {"least": 0, "below": 1},
    "eps": {"above": 0},
    "weight_decay": {"least": 0},
}
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.775, 2.0315), 5  # steepest at 0: Jordan et al., 2024
SMALLEST = {np.dtype(kind): float(np.finfo(kind).smallest_subnormal) for kind in (np.float16, np.float32, np.float64)}


class Optimizer:
    """Base class: parameters and state by name; gradients are checked before anything changes.

    A subclass names its hyperparameters in `settings` and its state arrays in `slots`. Its `update` returns what to
    subtract from a parameter, without the weight decay. Hyperparameters are checked whenever they are set, and kept as
    Python's floats, which leave float32 as it is.
    """

    settings: tuple[str, ...] = ("lr",)
    slots: tuple[str, ...] = ()
    weight_decay: float = 0.0  # decoupled: a step also subtracts lr * weight_decay * parameter
    lr: float

    def __init__(self, params: Mapping[str, Tensor], lr: float) -> None:
        if not isinstance(params, Mapping) or not all(isinstance(p, Tensor) for p in params.values()):
            raise TypeError(
                f"{type(self).__name__}: params must be a dict of name to Tensor; pass tg.nn.parameters(model)"
            )
        self.params = dict(params)
        self.lr = lr
        self.steps: int = 0
        self.updates = dict.fromkeys(self.params, 0)  # steps in which a parameter had a gradient
        self.count = 0  # that number, in `update`
        self.state: dict[str, dict[str, Array]] = {
            name: {slot: np.zeros_like(p.data) for slot in self.slots} for name, p in self.params.items()
        }

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._checked(name, value) if name in BOUNDS or name == "steps" else value)

    def _checked(self, name: str, value: Any) -> Any:
        """Return what to set an attribute to: hyperparameters as Python's numbers, within their bounds."""
        owner, bounds = type(self).__name__, BOUNDS.get(name)
        if name == "steps":
            return integer(owner, name, value)
        if bounds is None or name not in self.settings:
            return value
        if name != "betas":
            return real(owner, name, value, **bounds)
        betas = each(owner, name, value, real, **bounds)
        if len(betas) != 2:
            raise ValueError(f"{owner}: betas is {value!r}; it must be a pair of numbers")
        return betas

    def step(self, grads: Mapping[str, Operand] | None = None) -> None:
        """Update every parameter once.

        Parameters
        ----------
        grads : dict of str to array_like, optional
            Gradients by parameter name; by default each parameter's `.grad`. A parameter without a gradient is not
            updated.

        Raises
        ------
        ValueError
            If a name is unknown, a shape differs, or there is no gradient at all; nothing has changed then.
        """
        given = {n: p.grad for n, p in self.params.items() if p.grad is not None} if grads is None else grads
        kind = type(self).__name__
        if not given and self.params:
            raise ValueError(f"{kind}: there is no gradient; call backward() first, or pass grads")
        arrays = {}
        for name, g in given.items():
            if name not in self.params:
                raise ValueError(
                    f"{kind}: there is a gradient for {name!r}, but no such parameter; known are "
                    f"{', '.join(self.params)}"
                )
            p, arrays[name] = self.params[name], numeric(g)
            if arrays[name].shape != p.shape:
                raise ValueError(
                    f"{kind}: the gradient of {name} has shape {arrays[name].shape}, the parameter {p.shape}"
                )
        self.steps += 1
        for name, g in arrays.items():
            p, state = self.params[name], self.state[name]
            self.updates[name] += 1
            self.count = self.updates[name]
            change = self.update(g.astype(p.dtype, copy=False), state)
            if self.weight_decay:
                change = change + self.lr * self.weight_decay * p.data
            p._array = np.asarray(p._array - change, p.dtype)  # right as it is: no check is needed
            for slot, value in state.items():  # a setting of dtype float64 has promoted it
                state[slot] = np.asarray(value, p.dtype)

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return what to subtract from a parameter with gradient `g`, its `count`-th; put new arrays into `state`."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.params.values():
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue later: kind, settings, number of steps, and copies of the state arrays."""
        state = {name: {slot: array.copy() for slot, array in slots.items()} for name, slots in self.state.items()}
        return {
            "kind": type(self).__name__,
            **{s: getattr(self, s) for s in self.settings},
            "steps": self.steps,
            "updates": dict(self.updates),
            "state": state,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises
        ------
        ValueError
            Listing every difference (see `state_mismatches`); nothing has changed then.
        """
        if wrong := self.state_mismatches(saved):
            raise ValueError(
                f"{type(self).__name__}: the saved state does not fit: {'; '.join(wrong)}; make the optimizer as the "
                "saved one was made, for the same parameters"
            )
        for name in (*self.settings, "steps"):
            setattr(self, name, saved[name])
        self.updates = {name: int(count) for name, count in self._with_updates(saved)["updates"].items()}
        self.state = {  # in the memory order of the parameters
            name: {
                slot: np.positive(saved["state"][name][slot], out=np.empty_like(self.params[name].data))
                for slot in slots
            }
            for name, slots in self.state.items()
        }

    def state_mismatches(self, saved: Any) -> list[str]:
        """List how a saved state differs from one that `load_state_dict` accepts; empty if it fits.

        Floating-point arrays may have any floating dtype: they are converted to that of the parameters.
        """
        saved = self._with_updates(saved)
        numbers = [*(name for name in self.settings if name in BOUNDS), "steps"]  # checked below
        others = {name: getattr(self, name) for name in self.settings if name not in BOUNDS}
        live = {"kind": type(self).__name__, **dict.fromkeys(numbers), **others, "updates": self.updates}
        live["state"] = self.state
        counts = [f"updates/{name}" for name in self.updates]
        wrong = state_mismatches(live, saved, "the optimizer", unchecked=numbers, nonnegative=counts, any_float=True)
        for name in numbers:
            if isinstance(saved, Mapping) and name in saved:
                try:
                    self._checked(name, saved[name])
                except (TypeError, ValueError) as error:
                    wrong.append(str(error).removeprefix(f"{type(self).__name__}: "))
        return wrong

    def _with_updates(self, saved: Any) -> Any:
        """Complete a state of an earlier version, which counted the steps of all parameters together."""
        if not isinstance(saved, Mapping) or "steps" not in saved:
            return saved
        return {"updates": dict.fromkeys(self.params, saved["steps"]), **saved}


def _nonzero(eps: float, g: Array) -> float:
    """Return `eps` so that it is not 0 in the dtype of a gradient: 0 would be divided by 0 (1e-8 is 0 in float16)."""
    return max(eps, SMALLEST.get(g.dtype, 0.0))


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
        return self.lr * g / (np.sqrt(state["h"]) + _nonzero(self.eps, g))


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
        return self.lr * m / (np.sqrt(state["v"] / (1 - beta2**self.count)) + _nonzero(self.eps, g))


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


class Muon(AdamW):
    """Momentum, orthogonalized (Jordan et al., 2024), for matrices and filters; `AdamW` for everything else.

    The running mean of the gradients of a weight is taken as a matrix: (F, C * KH * KW) for the filters of a
    convolution. A step follows the orthogonal matrix nearest to it, in which all directions are equally long.
    Newton-Schulz iterations approximate that: singular values come out near 1, mostly between 0.7 and 1.2.

    Parameters
    ----------
    params : dict of str to Tensor
        Those with two axes or more are orthogonalized, those with fewer (biases) are updated as by `AdamW`.
    lr : float
        Right for both kinds: the update of a matrix (A, B) is multiplied by ``0.2 * sqrt(max(A, B))``, which gives its
        numbers the size that they have in `AdamW` (Liu et al., 2025; in PyTorch ``adjust_lr_fn="match_rms_adamw"``).
    momentum : float
        The decay rate of the running mean, from 0 to 1; the update looks one step ahead (Nesterov).
    betas, eps, weight_decay
        See `AdamW`; the weight decay is that of all parameters, the others are those of the second kind.

    Examples
    --------
    >>> w = Tensor(np.zeros((2, 2)), requires_grad=True)
    >>> Muon({"w": w}, lr=1.0).step({"w": [[3.0, 0.0], [0.0, -0.5]]})  # both directions become nearly as long
    >>> (w.data / (0.2 * 2**0.5)).round(2).tolist()
    [[-0.71, 0.0], [0.0, 1.04]]
    """

    settings = (*AdamW.settings, "momentum")

    def __init__(
        self,
        params: Mapping[str, Tensor],
        lr: float = 0.001,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        self.momentum = momentum
        for name, p in self.params.items():
            if p.ndim > 1:  # no running mean of squares
                del self.state[name]["v"]

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return the step of one parameter."""
        if g.ndim < 2:
            return super().update(g, state)
        state["m"] = self.momentum * state["m"] + (1 - self.momentum) * g
        ahead = self.momentum * state["m"] + (1 - self.momentum) * g
        matrix = ahead.reshape(len(g), math.prod(g.shape[1:]))
        return self.lr * 0.2 * math.sqrt(max(matrix.shape)) * _orthogonal(matrix).reshape(g.shape)


def _orthogonal(matrix: Array) -> Array:
    """Approximate U @ V.T of the singular value decomposition U @ diag(S) @ V.T by Newton-Schulz iterations.

    An iteration multiplies X by P = a I + b A + c A A, with A = X X.T. All of these are polynomials of the first A, a
    small square matrix, so that only A is iterated, and X multiplied once, by the product of all P.
    """
    x = matrix.astype(np.result_type(matrix, np.float32), copy=False)
    x = x / (abs(x).max(initial=0) or 1)  # the sum of squares below neither overflows nor vanishes
    x = x / (np.linalg.norm(x) or 1)
    x = x.T if len(x) > x.shape[1] else x
    a, b, c = NEWTON_SCHULZ
    gram = product = x @ x.T
    for iteration in range(ITERATIONS):
        factor = gram @ gram
        factor *= c
        factor += b * gram
        factor.flat[:: len(x) + 1] += a  # the diagonal
        product = factor @ product if iteration else factor
        gram = factor @ gram @ factor if iteration < ITERATIONS - 1 else gram
    x = product @ x
    return np.asarray(x if x.shape == matrix.shape else x.T, matrix.dtype)
