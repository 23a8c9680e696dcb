"""What all optimizers share: parameters and state by name, so that it can be saved and loaded into a rebuilt model.

A step gives a parameter a new array and does not modify the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..tensor import Array, Operand, Tensor, numeric
from ..validation import each, integer, real, state_mismatches
from .groups import Groups, by_parameter, relative

__all__: list[str] = []

BOUNDS: dict[str, dict[str, float]] = {
    "lr": {"least": 0},
    "momentum": {"least": 0, "most": 1},
    "alpha": {"least": 0, "below": 1},
    "betas": {"least": 0, "below": 1},
    "eps": {"above": 0},
    "weight_decay": {"least": 0},
}
CHECKED = {*BOUNDS, "nesterov", "steps"}
NOTHING: dict[str, float] = {}
SMALLEST = {np.dtype(kind): float(np.finfo(kind).smallest_subnormal) for kind in (np.float16, np.float32, np.float64)}


class Optimizer:
    """Base class: parameters and state by name; gradients are checked before anything changes.

    A subclass names its hyperparameters in `settings` and its state arrays in `slots`. Its `update` returns what to
    subtract from a parameter, without the weight decay, in proportion to `lr`. Hyperparameters are checked whenever
    they are set, and kept as Python's floats, which leave float32 as it is.

    Parameters
    ----------
    params : dict of str to Tensor
        Names and parameters, as from `tinygrad_mnist.nn.parameters`.
    lr : float
        The learning rate, at least 0.
    groups : dict of str to dict, optional
        ``{pattern: {"lr": ..., "weight_decay": ...}}``: for the parameters whose names match the pattern (see
        `fnmatch`), a learning rate and, where the optimizer has one, a weight decay of their own. Where several
        patterns match, the last one that sets a value counts. A group's learning rate is kept as a multiple of `lr`:
        setting `lr`, as a schedule does, scales all of them.

    Examples
    --------
    >>> from tinygrad_mnist.optim import AdamW
    >>> params = {name: Tensor(np.ones(2), requires_grad=True) for name in ("out.weight", "out.bias")}
    >>> optimizer = AdamW(params, lr=0.1, weight_decay=0.5, groups={"*.bias": {"lr": 0.01, "weight_decay": 0}})
    >>> optimizer.step({name: np.zeros(2) for name in params})  # only the decay acts
    >>> {name: p.data.tolist() for name, p in params.items()}
    {'out.weight': [0.95, 0.95], 'out.bias': [1.0, 1.0]}
    """

    settings: tuple[str, ...] = ("lr",)
    slots: tuple[str, ...] = ()
    since: Mapping[str, Any] = {}  # settings that earlier versions did not save, with what they stood for
    weight_decay: float = 0.0
    decoupled = True  # the decay: a step also subtracts lr * weight_decay * w; else it is added to the gradient
    lr: float

    def __init__(self, params: Mapping[str, Tensor], lr: float, groups: Groups | None = None) -> None:
        if not isinstance(params, Mapping) or not all(isinstance(p, Tensor) for p in params.values()):
            raise TypeError(
                f"{type(self).__name__}: params must be a dict of name to Tensor; pass tg.nn.parameters(model)"
            )
        self.params = dict(params)
        self.lr = lr
        self.groups = relative(type(self).__name__, groups or {}, self.params, self.settings, self.lr)
        self._own = by_parameter(self.groups, self.params)  # what groups set for a parameter
        self.steps: int = 0
        self.updates = dict.fromkeys(self.params, 0)  # steps in which a parameter had a gradient
        self.count = 0  # that number, in `update`
        self.state: dict[str, dict[str, Array]] = {
            name: {slot: np.zeros_like(p.data) for slot in self.slots} for name, p in self.params.items()
        }

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._checked(name, value) if name in CHECKED else value)

    def _checked(self, name: str, value: Any) -> Any:
        """Return what to set an attribute to: hyperparameters as Python's numbers, within their bounds."""
        owner = type(self).__name__
        bounds = BOUNDS.get(name)
        if name == "steps":
            return integer(owner, name, value)
        if name == "nesterov":
            return flag(owner, name, value)
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
        if grads is None:
            given: Mapping[str, Operand] = {n: p.grad for n, p in self.params.items() if p.grad is not None}
        else:
            given = grads
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
            p, array = self.params[name], numeric(g)
            if array.shape != p.shape:
                raise ValueError(f"{kind}: the gradient of {name} has shape {array.shape}, the parameter {p.shape}")
            arrays[name] = array
        self.steps += 1
        for name, g in arrays.items():
            p = self.params[name]
            state = self.state[name]
            own = self._own.get(name, NOTHING)
            self.updates[name] += 1
            self.count = self.updates[name]
            g = g.astype(p.dtype, copy=False)
            decay = own.get("weight_decay", self.weight_decay)
            if decay and not self.decoupled:
                g = g + decay * p.data
            change = self.update(g, state)
            if decay and self.decoupled:
                change = change + self.lr * decay * p.data
            if "lr_factor" in own:
                change = own["lr_factor"] * change
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
        found: dict[str, Any] = {"kind": type(self).__name__}
        found |= {name: getattr(self, name) for name in self.settings}
        if self.groups:
            found["groups"] = {pattern: dict(group) for pattern, group in self.groups.items()}
        found["steps"] = self.steps
        found["updates"] = dict(self.updates)
        found["state"] = {
            name: {slot: array.copy() for slot, array in slots.items()} for name, slots in self.state.items()
        }
        return found

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
        saved = self._completed(saved)
        for name in (*self.settings, "steps"):
            setattr(self, name, saved[name])
        groups = {}
        for pattern, group in self.groups.items():
            found = saved["groups"][pattern]
            groups[pattern] = {key: float(found[key]) for key in group}
        self.groups = groups
        self._own = by_parameter(self.groups, self.params)
        self.updates = {name: int(count) for name, count in saved["updates"].items()}
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
        saved = self._completed(saved)
        numbers = [*(name for name in self.settings if name in CHECKED), "steps"]  # checked below
        others = {name: getattr(self, name) for name in self.settings if name not in CHECKED}
        live = {"kind": type(self).__name__, **dict.fromkeys(numbers), **others, "updates": self.updates}
        live["state"] = self.state
        if self.groups:
            live["groups"] = self.groups
        least_0 = [f"updates/{name}" for name in self.updates]
        least_0 += [f"groups/{pattern}/{key}" for pattern, group in self.groups.items() for key in group]
        wrong = state_mismatches(live, saved, "the optimizer", unchecked=numbers, nonnegative=least_0, any_float=True)
        for name in numbers:
            if isinstance(saved, Mapping) and name in saved:
                try:
                    self._checked(name, saved[name])
                except (TypeError, ValueError) as error:
                    wrong.append(str(error).removeprefix(f"{type(self).__name__}: "))
        return wrong

    def _completed(self, saved: Any) -> Any:
        """Complete a state of an earlier version: with later settings, and with the steps of each parameter."""
        if not isinstance(saved, Mapping) or "steps" not in saved:
            return saved
        return {**self.since, "updates": dict.fromkeys(self.params, saved["steps"]), **saved}


def nonzero(eps: float, g: Array) -> float:
    """Return `eps` so that it is not 0 in the dtype of a gradient: 0 would be divided by 0 (1e-8 is 0 in float16)."""
    return max(eps, SMALLEST.get(g.dtype, 0.0))


def flag(owner: str, name: str, value: Any) -> bool:
    """Return a setting that is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{owner}: {name} is {value!r}; it must be True or False")
    return bool(value)
