"""Optimisers. State is kept by parameter name, so it can be saved, and survives a model being rebuilt.

A step gives a parameter a new array; the old one is left as it was.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .tensor import Array, Operand, Tensor, as_tensor

__all__ = ["SGD", "AdaGrad", "Adam", "AdamW"]


class Optimizer:
    """What all optimisers share: parameters and state by name, gradients checked before anything changes.

    A subclass names its settings in `settings`, its state arrays in `slots`, and says in `update` what to subtract from
    a parameter (beside what `weight_decay` takes off).
    """

    settings: tuple[str, ...] = ("lr",)
    slots: tuple[str, ...] = ()
    weight_decay: float = 0.0  # a step also takes lr * weight_decay of each parameter off itself

    def __init__(self, params: Mapping[str, Tensor], lr: float) -> None:
        if not isinstance(params, Mapping) or not all(isinstance(p, Tensor) for p in params.values()):
            raise TypeError(
                f"{type(self).__name__}: params must be a dict of name to Tensor; pass tg.nn.parameters(model)"
            )
        if not (np.isfinite(lr) and lr >= 0):
            raise ValueError(f"{type(self).__name__}: lr is {lr!r}; it must be a finite number of at least 0")
        self.params = dict(params)
        self.lr = lr
        self.steps = 0
        self.state: dict[str, dict[str, Array]] = {
            name: {slot: np.zeros_like(p.data) for slot in self.slots} for name, p in self.params.items()
        }

    def step(self, grads: Mapping[str, Operand] | None = None) -> None:
        """Change every parameter once.

        Parameters
        ----------
        grads : dict of str to array_like, optional
            Gradients by parameter name. Left out: each parameter's `.grad`. A parameter without a gradient stays as it
            is.

        Raises
        ------
        ValueError
            If a name is unknown or a shape differs, or there is no gradient at all; nothing has changed then.
        """
        given = {n: p.grad for n, p in self.params.items() if p.grad is not None} if grads is None else grads
        kind = type(self).__name__
        if not given and self.params:
            raise ValueError(f"{kind}: there is no gradient to step along; call backward() first, or pass grads")
        arrays = {}
        for name, g in given.items():
            if name not in self.params:
                raise ValueError(
                    f"{kind}: there is a gradient for {name!r}, but no such parameter; known are "
                    f"{', '.join(self.params)}"
                )
            p, arrays[name] = self.params[name], as_tensor(g).data
            if arrays[name].shape != p.shape:
                raise ValueError(
                    f"{kind}: the gradient of {name} has shape {arrays[name].shape}, the parameter {p.shape}"
                )
        self.steps += 1
        for name, g in arrays.items():
            p, state = self.params[name], self.state[name]
            change = self.update(g.astype(p.dtype, copy=False), state)
            if self.weight_decay:
                change = change + self.lr * self.weight_decay * p.data
            p.data = np.asarray(p.data - change, p.dtype)
            state.update(
                {slot: np.asarray(value, p.dtype) for slot, value in state.items()}
            )  # whatever a setting's type is

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """Return what to subtract from a parameter with gradient `g`, and put new arrays into its `state`."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.params.values():
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on later.

        Kind, settings, number of steps, and the state arrays (copied) by parameter name.
        """
        state = {name: {slot: array.copy() for slot, array in slots.items()} for name, slots in self.state.items()}
        return {
            "kind": type(self).__name__,
            **{s: getattr(self, s) for s in self.settings},
            "steps": self.steps,
            "state": state,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; a ValueError lists what does not fit, and nothing has changed then."""
        if missing := [key for key in ("kind", *self.settings, "steps", "state") if key not in saved]:
            raise ValueError(f"{type(self).__name__}: the saved state does not fit: it lacks {', '.join(missing)}")
        state = {
            name: {slot: np.array(array) for slot, array in slots.items()} for name, slots in saved["state"].items()
        }
        wrong = [] if saved["kind"] == type(self).__name__ else [f"it is the state of {saved['kind']}"]
        for setting in self.settings:
            values, ours = (
                v if isinstance(v, (list, tuple)) else None for v in (saved[setting], getattr(self, setting))
            )
            alike = (values is None) == (ours is None) and len(values or ()) == len(ours or ())
            least = 0 if setting in ("lr", "weight_decay") else -np.inf  # as when one is made
            if not alike or not all(
                isinstance(v, (int, float)) and np.isfinite(v) and v >= least for v in values or [saved[setting]]
            ):
                wrong.append(f"{setting} is {_short(saved[setting])}")
        wrong += (
            [f"steps is {_short(saved['steps'])}"] if not isinstance(saved["steps"], int) or saved["steps"] < 0 else []
        )
        wrong += [f"parameter {name} is only on one side" for name in sorted(state.keys() ^ self.state.keys())]
        for name in state.keys() & self.state.keys():
            shapes = [{slot: array.shape for slot, array in s[name].items()} for s in (state, self.state)]
            if shapes[0] != shapes[1]:
                wrong.append(f"{name} has {shapes[0]} in place of {shapes[1]}")
        if wrong:
            raise ValueError(f"{type(self).__name__}: the saved state does not fit: " + "; ".join(wrong))
        for setting in self.settings:
            setattr(self, setting, saved[setting])
        self.steps = saved["steps"]
        self.state = {  # in the parameters' order in memory, as it was
            name: {slot: np.positive(a, out=np.empty_like(self.params[name].data)) for slot, a in slots.items()}
            for name, slots in state.items()
        }


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())  # an array's takes lines


class SGD(Optimizer):
    """Stochastic gradient descent: ``v = momentum * v + g; w -= lr * v``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr, momentum : float
    """

    settings = ("lr", "momentum")
    slots = ("velocity",)

    def __init__(self, params: Mapping[str, Tensor], lr: float = 0.01, momentum: float = 0.0) -> None:
        super().__init__(params, lr)
        self.momentum = momentum

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """One parameter's step."""
        state["velocity"] = self.momentum * state["velocity"] + g
        return self.lr * state["velocity"]


class AdaGrad(Optimizer):
    """Adaptive gradient (Duchi et al., 2011): ``h += g * g; w -= lr * g / (sqrt(h) + eps)``.

    Parameters
    ----------
    params : dict of str to Tensor
    lr, eps : float

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> AdaGrad({"w": w}, lr=0.1).step({"w": 5.0})  # the first step is lr long, whatever the gradient
    >>> round(w.item(), 6)
    0.9
    """

    settings = ("lr", "eps")
    slots = ("h",)

    def __init__(self, params: Mapping[str, Tensor], lr: float = 0.01, eps: float = 1e-7) -> None:
        super().__init__(params, lr)
        self.eps = eps

    def update(self, g: Array, state: dict[str, Array]) -> Array:
        """One parameter's step."""
        state["h"] = state["h"] + g * g
        return self.lr * g / (np.sqrt(state["h"]) + self.eps)


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba, 2015), with bias correction.

    Parameters
    ----------
    params : dict of str to Tensor
    lr : float
    betas : (float, float)
        Decay of the running means of the gradient and of its square.
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
        """One parameter's step."""
        beta1, beta2 = self.betas
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * (g * g)
        m = state["m"] / (1 - beta1**self.steps)
        return self.lr * m / (np.sqrt(state["v"] / (1 - beta2**self.steps)) + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): a step also takes ``lr * weight_decay * w`` off
    each ``w``.

    Parameters
    ----------
    params : dict of str to Tensor
        All of them decay, biases too. To let only some decay, use two optimisers.
    lr, betas, eps
        As of `Adam`.
    weight_decay : float
        At least 0.

    Examples
    --------
    >>> w = Tensor(1.0, requires_grad=True)
    >>> AdamW({"w": w}, lr=0.1, weight_decay=0.5).step({"w": 0.0})  # the gradient asks for nothing
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
        if not (np.isfinite(weight_decay) and weight_decay >= 0):
            raise ValueError(f"AdamW: weight_decay is {weight_decay!r}; it must be a finite number of at least 0")
        super().__init__(params, lr, betas, eps)
        self.weight_decay = weight_decay
