"""How a model is walked: any object, by its attributes, lists, tuples and dicts. No base class, no registration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from .tensor import Tensor

__all__ = ["Parameters", "leaves", "walk"]


def walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every object of a model once, with its path, such as ``"layers.0.weight"``, in the order of attributes.

    Arrays, Tensors, classes, modules and NumPy's scalars are yielded, but not entered.
    """
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        path, value = waiting.pop()
        if id(value) not in seen:
            yield path, value
            children = [(f"{path}.{name}" if path else str(name), child) for name, child in _children(value)]
            if children or isinstance(value, Tensor):  # small numbers and strings are the same object in many places
                seen.add(id(value))
            waiting += reversed(children)


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (list, tuple, deque)):
        yield from enumerate(value)
    elif isinstance(value, dict):
        yield from value.items()
    elif not isinstance(value, (type, ModuleType, np.ndarray, np.generic, Tensor)):
        for kind in reversed(type(value).__mro__):
            slots = kind.__dict__.get("__slots__", ())
            names = [slots] if isinstance(slots, str) else slots
            yield from ((name, getattr(value, name)) for name in names if hasattr(value, name))
        yield from getattr(value, "__dict__", {}).items()


def leaves(model: Any, caller: str) -> dict[str, Tensor]:
    """Find every Tensor of a model that no op has made: trained and frozen parameters, buffers, constants.

    The order is that of `walk`. A Tensor that is used in several places is listed once, under its first path. Two that
    have the same path are refused in the name of `caller`.
    """
    found: dict[str, Tensor] = {}
    for path, value in walk(model):
        if isinstance(value, Tensor) and value.op is None:
            if path in found:
                raise ValueError(
                    f"{caller}: two different Tensors are both called {path}; rename an attribute or a key"
                )
            found[path] = value
    return found


class Parameters(dict[str, Tensor]):
    """The trained parameters of a model by name. `left_out` names what a file of them would lack.

    `check` raises an error, in the name of its caller, if the model has other state that no file would hold.
    """

    left_out: tuple[str, ...] = ()
    check: Callable[[str], None] = staticmethod(lambda caller: None)

    def __getstate__(self) -> dict[str, Any]:  # a copy is of no model
        return {"left_out": self.left_out}
