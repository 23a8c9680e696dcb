"""Plain arrays of a model. No file holds them, for they are constants: one that a call changes is found and refused."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..tensor import Array, Tensor
from ..walk import walk

REMEDY = "no file would hold that; make it a tg.nn.Buffer and set its .data, or compute it anew in each call"

# id of an object -> a weak reference, whose callback removes the entry, and the digests of its arrays when it was new
_noted: dict[int, tuple[Any, dict[str, bytes]]] = {}


def digest(array: Array) -> bytes:
    """Return a fingerprint of dtype, shape and values."""
    kind = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(kind + array.tobytes(), digest_size=16).digest()


def _digests(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: digest(array) for name, array in arrays.items()}


def _holders(model: Any) -> list[tuple[str, Any, dict[str, Array]]]:
    """List the objects of a model: path, object, and its arrays and NumPy scalars (those in its lists and dicts, too).

    A part with a state dict of its own, such as an optimizer, is left out with everything in it.
    """
    found: list[tuple[str, Any, dict[str, Array]]] = []
    above: list[tuple[str, Any, dict[str, Array]]] = []  # the objects around the present one
    for path, value in walk(model):
        while above and not path.startswith(above[-1][0]):
            above.pop()
        prefix, owner, arrays = above[-1] if above else ("", None, {})
        if isinstance(value, (np.ndarray, np.generic)):
            if value.dtype.kind in "biufc":
                arrays[path.removeprefix(prefix)] = np.asarray(value)
        elif not isinstance(value, (list, tuple, dict, Tensor)) and (owner is not None or not above):
            apart = path and hasattr(type(value), "state_dict")
            above.append((f"{path}." if path else "", None if apart else value, {}))
            if not apart:
                found.append(above[-1])
    return found


def digests(model: Any) -> dict[str, bytes]:
    """Return the digests of the plain arrays of a model, by path."""
    return {prefix + name: digest(a) for prefix, _, arrays in _holders(model) for name, a in arrays.items()}


def changes(before: Mapping[str, bytes], now: Mapping[str, bytes], prefix: str = "") -> list[str]:
    """List the arrays that are new or other ones."""
    names = {name: "has changed" if name in before else "is new" for name in now if before.get(name) != now[name]}
    return [f"{prefix}{name}, a plain array, {how}" for name, how in names.items()]


def note(model: Any) -> None:
    """Remember the plain arrays of the objects of a model as long as these live, unless they are remembered already."""
    for _, owner, arrays in _holders(model):
        key = id(owner)
        if key not in _noted:
            try:
                reference = weakref.ref(owner, lambda _, key=key: _noted.pop(key, None))  # type: ignore[misc]
            except TypeError:  # a number, or an object with __slots__
                continue
            _noted[key] = reference, _digests(arrays)


def check(model: Any, caller: str) -> None:
    """Raise a ValueError if plain arrays of a model have changed since they were noted."""
    wrong = [
        line
        for prefix, owner, arrays in _holders(model)
        if id(owner) in _noted
        for line in changes(_noted[id(owner)][1], _digests(arrays), prefix)
    ]
    if wrong:
        raise ValueError(f"{caller}: {'; '.join(wrong)} since the parameters were first asked for; {REMEDY}")
