"""Plain arrays and numbers of a model. No file holds them, for they are constants.

An array that a call changes is found and refused. Of a number that has changed there is a warning: it may be a mere
counter, or a setting that the user has changed.
"""

from __future__ import annotations

import hashlib
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..tensor import Array, Tensor
from ..walk import walk

REMEDY = "no file would hold that; make it a tg.nn.Buffer and set its .data, or compute it anew in each call"


class Owner(NamedTuple):
    """An object of a model, and what its attributes hold, directly or in lists, tuples and dicts."""

    prefix: str  # of the paths of its attributes
    value: Any
    arrays: dict[str, Array]  # plain ones, and NumPy's scalars
    numbers: dict[str, float]  # Python's
    leaves: set[str]  # names of Tensors that no op has made
    results: dict[str, str]  # names of the other Tensors, and the op that has made them


# id of an object -> a weak reference, whose callback removes the entry; digests of its arrays, its numbers, and the
# names of its Tensors, when it was new
_noted: dict[int, tuple[Any, dict[str, bytes], dict[str, float], set[str]]] = {}


def digest(array: Array) -> bytes:
    """Return a fingerprint of dtype, shape and values."""
    kind = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(kind + array.tobytes(), digest_size=16).digest()


def _digests(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: digest(array) for name, array in arrays.items()}


def _weak(value: Any, callback: Callable[[Any], object] | None = None) -> Any:
    """Return a weak reference; None to a list, tuple, dict, number or other object that allows none."""
    try:
        return weakref.ref(value, callback)
    except TypeError:
        return None


def _owners(model: Any) -> list[Owner]:
    """List the objects of a model, but for parts with a state dict of their own, such as an optimizer."""
    found: list[Owner] = []
    above: list[Owner] = []  # the objects around the present one
    for path, value in walk(model):
        while above and not path.startswith(above[-1].prefix):
            above.pop()
        owner = above[-1] if above else Owner("", None, {}, {}, set(), {})
        name = path.removeprefix(owner.prefix)
        if isinstance(value, (np.ndarray, np.generic)):
            if value.dtype.kind in "biufc":
                owner.arrays[name] = np.asarray(value)
        elif isinstance(value, (int, float)):
            owner.numbers[name] = value
        elif isinstance(value, Tensor):
            if value.op is None:
                owner.leaves.add(name)
            else:
                owner.results[name] = value.op.__name__
        elif _weak(value) is not None and (owner.value is not None or not above):
            apart = path and hasattr(type(value), "state_dict")
            above.append(Owner(f"{path}." if path else "", None if apart else value, {}, {}, set(), {}))
            if not apart:
                found.append(above[-1])
    return found


def digests(model: Any) -> dict[str, bytes]:
    """Return the digests of the plain arrays of a model, by path."""
    return {owner.prefix + name: digest(a) for owner in _owners(model) for name, a in owner.arrays.items()}


def numbers(model: Any) -> dict[str, float]:
    """Return the plain numbers of a model, by path."""
    return {owner.prefix + name: number for owner in _owners(model) for name, number in owner.numbers.items()}


def warn_of_numbers(caller: str, before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Warn of numbers that are other ones; new ones may be a growing list of results."""
    if changed := [name for name, value in now.items() if before.get(name, value) != value]:
        warnings.warn(
            f"{caller}: plain numbers of the model have changed, and no file holds them: {', '.join(changed[:5])}; "
            "make them tg.nn.Buffer, and set its .data, where results depend on them",
            stacklevel=4,
        )


def changes(before: Mapping[str, bytes], now: Mapping[str, bytes], prefix: str = "") -> list[str]:
    """List the arrays that are new or have changed."""
    names = {name: "has changed" if name in before else "is new" for name in now if before.get(name) != now[name]}
    return [f"{prefix}{name}, a plain array, {how}" for name, how in names.items()]


def note(model: Any) -> None:
    """Remember what the objects of a model hold, for as long as they live; what is remembered already stays."""
    for owner in _owners(model):
        key = id(owner.value)
        if key not in _noted:
            reference = _weak(owner.value, lambda _, key=key: _noted.pop(key, None))  # type: ignore[misc]  # its default
            _noted[key] = reference, _digests(owner.arrays), owner.numbers, owner.leaves


def check(model: Any, caller: str) -> None:
    """Raise a ValueError if plain arrays have changed since `note`, or results of ops have replaced Tensors."""
    wrong: list[str] = []
    before: dict[str, float] = {}
    now: dict[str, float] = {}
    for owner in _owners(model):
        _, arrays, plain, leaves = _noted.get(id(owner.value), (None, None, {}, set()))
        if arrays is not None:
            wrong += changes(arrays, _digests(owner.arrays), owner.prefix)
        before |= {owner.prefix + name: number for name, number in plain.items()}
        now |= {owner.prefix + name: number for name, number in owner.numbers.items()}
        results = [(name, op) for name, op in owner.results.items() if name in leaves]
        wrong += [f"{owner.prefix}{name}, a Tensor, has become a result of {op}" for name, op in results]
    if wrong:
        raise ValueError(f"{caller}: {'; '.join(wrong)} since the parameters were first asked for; {REMEDY}")
    warn_of_numbers(caller, before, now)


def later_check(model: Any) -> Callable[[str], None]:
    """Return a function that checks a model, if it still exists, in the name of its caller."""
    reference = _weak(model) or (lambda: model)
    return lambda caller: None if reference() is None else check(reference(), caller)
