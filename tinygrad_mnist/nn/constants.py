"""Plain arrays of a model. No file holds them, for they are constants: one that a call changes is found and refused."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..tensor import Array
from ..walk import walk

REMEDY = "no file would hold that; make it a tg.nn.Buffer and set its .data, or compute it anew in each call"

# id of a model -> a weak reference, whose callback removes the entry, and the digests of its arrays when it was new
_noted: dict[int, tuple[Any, dict[str, bytes]]] = {}


def digest(array: Array) -> bytes:
    """Return a fingerprint of dtype, shape and values."""
    kind = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(kind + array.tobytes(), digest_size=16).digest()


def digests(model: Any) -> dict[str, bytes]:
    """Find the plain arrays and NumPy scalars of a model, by path; not those of a part with a state dict of its own."""
    found: dict[str, bytes] = {}
    apart: tuple[str, ...] = ()
    for path, value in walk(model):
        if path and hasattr(type(value), "state_dict"):  # an optimizer, say
            apart += (f"{path}.",)
        elif isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
            if not path.startswith(apart):
                found[path] = digest(np.asarray(value))
    return found


def changed(before: Mapping[str, bytes], now: Mapping[str, bytes], prefix: str = "") -> list[str]:
    """List the arrays that are new or other ones."""
    names = {name: "has changed" if name in before else "is new" for name in now if before.get(name) != now[name]}
    return [f"{prefix}{name}, a plain array, {how}" for name, how in names.items()]


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield a model with the path to its parts, or if it is a list, tuple or dict the models in it."""
    inside = None
    for path, value in walk(model):
        if inside is not None and path.startswith(inside):
            continue
        if not isinstance(value, (list, tuple, dict)):
            inside = f"{path}." if path else ""
            yield inside, value
            if not path:
                return


def note(model: Any) -> None:
    """Remember the plain arrays of a model as long as it lives, unless they are remembered already."""
    for _, part in _parts(model):
        if id(part) not in _noted:
            key = id(part)
            try:
                reference = weakref.ref(part, lambda _, key=key: _noted.pop(key, None))  # type: ignore[misc]
            except TypeError:  # a number, or a class with __slots__
                continue
            _noted[key] = reference, digests(part)


def check(model: Any, caller: str) -> None:
    """Raise a ValueError if plain arrays of a model have changed since they were noted."""
    wrong = [
        line
        for prefix, part in _parts(model)
        if id(part) in _noted
        for line in changed(_noted[id(part)][1], digests(part), prefix)
    ]
    if wrong:
        raise ValueError(f"{caller}: {'; '.join(wrong)} since the parameters were first asked for; {REMEDY}")
