"""Compare a saved state with a live one: one function, which lists every difference."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Container, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ArraySpec", "parameter_mismatches", "state_mismatches"]


class ArraySpec(NamedTuple):
    """Shape and dtype of an array whose values have not been read yet."""

    shape: tuple[int, ...]
    dtype: Any


def state_mismatches(
    live: Any,
    saved: Any,
    owner: str,
    *,
    unchecked: Container[str] = (),
    equal: Container[str] = (),
    nonnegative: Container[str] = (),
    finite: bool = False,
    any_float: bool = False,
) -> list[str]:
    """List how a saved state differs from a live one, each difference with its path, such as ``state/weight/h``.

    Dicts must have the same keys, lists and tuples the same length, arrays the same shape and dtype, strings the same
    characters. Of a number only the kind must agree: an integer, or any finite number where the live one is a float.

    Parameters
    ----------
    live, saved : nested dicts, lists, tuples, arrays, Tensors, `ArraySpec`, numbers, strings, booleans and None
    owner : str
        Whose the live state is, for the messages: "the model".
    unchecked : container of str
        Paths that must exist, but may hold anything.
    equal : container of str
        Paths of numbers that must also have the same value.
    nonnegative : container of str
        Paths of numbers that must not be negative.
    finite : bool
        Whether floating-point arrays must hold no NaN and no infinity.
    any_float : bool
        Whether a floating-point array may have any floating dtype, because the caller converts it.

    Returns
    -------
    list of str
        Empty if the saved state fits.

    Examples
    --------
    >>> live = {"lr": 0.1, "steps": 3, "h": np.zeros(2)}
    >>> state_mismatches(live, {"lr": 1, "steps": 0, "h": np.ones(2)}, "the optimizer")
    []
    >>> state_mismatches(live, {"lr": "fast", "steps": 0.5, "m": 0}, "the optimizer")
    ['h is missing', 'm is not in the optimizer', "lr is 'fast', not a finite number", 'steps is 0.5, not an integer']
    """
    wrong: list[str] = []

    def differs(path: str, found: Any, wanted: str) -> None:
        wrong.append(f"{path or 'the state'} is {_short(found)}, not {wanted}")

    def compare(live: Any, saved: Any, path: str) -> None:
        if path in unchecked:
            return
        if isinstance(live, Mapping):
            if not isinstance(saved, Mapping):
                return differs(path, saved, "a dict")
            wrong.extend(f"{_join(path, key)} is missing" for key in live if key not in saved)
            wrong.extend(f"{_join(path, key)} is not in {owner}" for key in saved if key not in live)
            for key in live:
                if key in saved:
                    compare(live[key], saved[key], _join(path, key))
        elif _is_array(live):
            if not _is_array(saved):
                return differs(path, saved, "an array")
            if saved.shape != live.shape:
                wrong.append(f"{path} has shape {saved.shape}, {owner}'s is {live.shape}")
            if saved.dtype != live.dtype and not (any_float and live.dtype.kind == saved.dtype.kind == "f"):
                wrong.append(f"{path} is {saved.dtype}, {owner}'s is {live.dtype}")
            elif finite and live.dtype.kind == "f" and not np.isfinite(np.asarray(saved)).all():
                wrong.append(f"{path} has values that are NaN or infinite")
        elif isinstance(live, (list, tuple)):
            if not isinstance(saved, (list, tuple)) or len(saved) != len(live):
                return differs(path, saved, f"a list of {len(live)}")
            for position, parts in enumerate(zip(live, saved, strict=True)):
                compare(*parts, _join(path, position))
        elif path not in equal and isinstance(live, Real) and not isinstance(live, bool):
            least = " of at least 0" if path in nonnegative else ""
            kind, name = (Integral, "an integer") if isinstance(live, Integral) else (Real, "a finite number")
            if not _is_number(saved, kind) or (least and saved < 0):
                differs(path, saved, name + least)
        elif not isinstance(saved, type(live)) or saved != live:
            wrong.append(f"{path} is {_short(saved)}, {owner}'s is {_short(live)}")

    compare(live, saved, "")
    return wrong


def parameter_mismatches(
    wanted: Mapping[str, tuple[tuple[int, ...], Any]], found: Mapping[str, tuple[tuple[int, ...], Any]]
) -> list[str]:
    """List how arrays that were found, given as shape and dtype by name, differ from the parameters of a model.

    Examples
    --------
    >>> parameter_mismatches({"w": ((2, 3), "float32")}, {"w": ((3, 2), "float32"), "b": ((3,), "float32")})
    ['b is not in the model', "w has shape (3, 2), the model's is (2, 3)"]
    """
    live, saved = ({name: ArraySpec(*spec) for name, spec in side.items()} for side in (wanted, found))
    return state_mismatches(live, saved, "the model")


def _is_array(value: Any) -> bool:
    return not isinstance(value, Real) and hasattr(value, "shape") and hasattr(value, "dtype")


def _is_number(value: Any, kind: type) -> bool:
    """Whether a value is a finite number of a kind, and no boolean."""
    try:
        number: Any = value  # the kinds that are asked for are numbers
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(number)
    except OverflowError:  # an integer that is larger than any float
        return kind is Integral


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())  # the repr of an array has several lines
