"""How a model is walked: any object, by its attributes, lists, tuples and dicts. No base class, no registration."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy as shallow_copy
from functools import partial
from types import (
    BuiltinMethodType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any

import numpy as np

from .tensor import Tensor

__all__ = ["Parameters", "leaves", "walk", "with_others"]


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
            children = [(_below(path, name), child) for name, child in _children(value)]
            if children or isinstance(value, Tensor):  # small numbers and strings are the same object in many places
                seen.add(id(value))
            waiting += reversed(children)


def _below(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


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


# A copy with other Tensors --------------------------------------------------------------------------------------------
def with_others(model: Any, others: Mapping[int, Tensor], caller: str) -> Any:
    """Copy a model with other Tensors in the places of some of its own.

    Copied are only the objects on the way to these places, each once: what is shared stays shared. Bound methods
    and partial functions on the way are made anew for the copies.

    Parameters
    ----------
    model : object
    others : dict of int to Tensor
        What takes the place of a Tensor, by the id of that.
    caller : str
        Named in errors.

    Raises
    ------
    TypeError
        If something on the way cannot be copied with another content, such as a closure.
    """
    # Every object with a path, and what holds it, by ids.
    found: dict[int, tuple[str, Any]] = {}
    holders: dict[int, set[int]] = {}
    waiting = [("", model)]
    while waiting:
        path, value = waiting.pop()
        if id(value) not in found:
            found[id(value)] = path, value
            for name, part in (*_children(value), *_hidden(value)):
                holders.setdefault(id(part), set()).add(id(value))
                waiting.append((_below(path, name), part))
    # Those on the way, from the Tensors up to the model.
    order = [key for key in others if key in found]
    on_the_way = set(order)
    for key in order:  # the list grows while it is read
        more = holders.get(key, set()) - on_the_way
        on_the_way |= more
        order += more
    # Their copies, empty at first: they may hold each other.
    copies: dict[int, Any] = {**others}
    changed = []
    for key in order:
        path, value = found[key]
        if key not in others and not isinstance(value, REBUILT):
            copies[key] = _copy(value, path, caller)
            changed.append(value)

    def new(value: Any) -> Any:
        if id(value) in on_the_way and id(value) not in copies:
            copies[id(value)] = _rebuilt(value, new)
        return copies.get(id(value), value)

    for value in changed:
        made = copies[id(value)]
        if isinstance(value, (list, deque, dict)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for place, part in items:
                made[place] = new(part)
        for slot, part in _slots(value):
            slot.__set__(made, new(part))
        for name, part in getattr(value, "__dict__", {}).items():
            made.__dict__[name] = new(part)
    return new(model)


REBUILT = (tuple, MethodType, partial)  # they cannot be filled later


def _hidden(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what else an object holds: no parameter has a path through it."""
    if isinstance(value, Tensor):
        yield from enumerate(value.inputs or ())
    elif isinstance(value, FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with suppress(ValueError):  # nothing is in it yet
                yield name, cell.cell_contents
        yield from [("defaults", value.__defaults__), ("keyword defaults", value.__kwdefaults__)]
    elif isinstance(value, (MethodType, BuiltinMethodType, MethodWrapperType)):
        yield from [("self", value.__self__), ("function", getattr(value, "__func__", None))]
    elif isinstance(value, partial):
        yield from [("function", value.func), ("arguments", value.args), ("keywords", value.keywords)]
    elif isinstance(value, weakref.ref):
        yield "reference", value()
    elif isinstance(value, (set, frozenset)) or (isinstance(value, np.ndarray) and value.dtype == object):
        yield from enumerate(value.flat if isinstance(value, np.ndarray) else value)
    elif isinstance(value, (list, tuple, deque, dict)):
        yield from getattr(value, "__dict__", {}).items()
    yield from ((slot.__name__, part) for slot, part in _slots(value))


def _slots(value: Any) -> Iterator[tuple[MemberDescriptorType, Any]]:
    """Yield the slots of an object that hold something, private ones included."""
    for kind in type(value).__mro__:
        if "__slots__" in vars(kind) and not isinstance(value, Tensor):
            for slot in vars(kind).values():
                if isinstance(slot, MemberDescriptorType):
                    with suppress(AttributeError):
                        yield slot, slot.__get__(value)


def _copy(value: Any, path: str, caller: str) -> Any:
    """Copy an object whose content is going to be changed."""
    if isinstance(value, (list, deque, dict)):
        return shallow_copy(value)
    if isinstance(value, Tensor):
        kind = f"a result of {value.op.__name__}"
    else:
        kind = f"a {type(value).__name__}"
        with suppress(TypeError):  # of a type that has its own way to be made
            return object.__new__(type(value))
    raise TypeError(
        f"{caller}: {path or 'the model'}, {kind}, holds parameters that cannot be replaced there; let a method "
        "compute it from the parameters in each call"
    )


def _rebuilt(value: Any, new: Callable[[Any], Any]) -> Any:
    """Make a tuple, a bound method or a partial function of new contents."""
    if isinstance(value, MethodType):
        return MethodType(value.__func__, new(value.__self__))
    if isinstance(value, partial):
        keywords = {name: new(part) for name, part in value.keywords.items()}
        made = type(value)(new(value.func), *map(new, value.args), **keywords)
    else:
        made = tuple.__new__(type(value), map(new, value))
    for name, part in getattr(value, "__dict__", {}).items():
        made.__dict__[name] = new(part)
    return made
