"""Check a setting when it is given, and compare a saved state with a live one, listing every difference."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Container, Mapping, Sequence
from inspect import Parameter, signature
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import numpy as np

__all__ = ["ArraySpec", "check_call", "each", "integer", "parameter_mismatches", "real", "state_mismatches"]

LIMIT = 2**63  # of what is counted
Number = TypeVar("Number", int, float)


def integer(owner: str, name: str, value: Any, least: int = 0) -> int:
    """Return a setting as Python's integer; NumPy's integers, also as an array without axes, are as good.

    Raises
    ------
    TypeError
        If it is a boolean, a float or no number at all.
    ValueError
        If it is less than `least`, or 2**63 or more.

    Examples
    --------
    >>> integer("Trainer", "epochs", np.int64(2))
    2
    >>> integer("Trainer", "epochs", -1)
    Traceback (most recent call last):
    ...
    ValueError: Trainer: epochs is -1; it must be an integer of at least 0
    """
    words = f"{owner}: {name} is {_short(value)}; it must be an integer of at least {least}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(words) from None
    if isinstance(value, bool):
        raise TypeError(words)
    if not least <= number < LIMIT:
        raise ValueError(words + " and below 2**63" * (number >= LIMIT))
    return number


def real(
    owner: str,
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return a setting as Python's float, which never changes the dtype of an array that it is multiplied with.

    NumPy's numbers, also as an array without axes, are as good as Python's.

    Parameters
    ----------
    owner, name : str
        Whose setting it is and what it is called: for the errors.
    value : number
    least, most, above, below : float, optional
        Bounds: included, included, excluded, excluded.

    Raises
    ------
    TypeError
        If it is a boolean or no real number.
    ValueError
        If it is NaN, infinite or out of bounds.

    Examples
    --------
    >>> real("SGD", "lr", np.float32(0.5), least=0)
    0.5
    >>> real("Adam", "betas[0]", 1, least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: Adam: betas[0] is 1; it must be a finite number of at least 0 and below 1
    """
    scalar = value[()] if isinstance(value, np.ndarray) and not value.shape else value
    kind: type[Exception] = TypeError
    if isinstance(scalar, Real) and not isinstance(scalar, bool):
        kind = ValueError
        try:
            number = float(scalar)
        except OverflowError:  # an integer that is larger than any float
            number = math.inf
        if (
            math.isfinite(number)
            and (least is None or number >= least)
            and (most is None or number <= most)
            and (above is None or number > above)
            and (below is None or number < below)
        ):
            return number
    bounds = {"of at least": least, "above": above, "at most": most, "below": below}
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    raise kind(f"{owner}: {name} is {_short(value)}; it must be a finite number {words}".rstrip())


class ArraySpec(NamedTuple):
    """Shape and dtype of an array whose values have not been read yet."""

    shape: tuple[int, ...]
    dtype: Any


def each(
    owner: str, name: str, values: Any, check: Callable[..., Number], **bounds: float | None
) -> tuple[Number, ...]:
    """Return a setting of several numbers, each checked by `integer` or `real`.

    Examples
    --------
    >>> each("initial_weights", "shape", np.array([2, 3]), integer)
    (2, 3)
    >>> each("Adam", "betas", (0.9, "x"), real)
    Traceback (most recent call last):
    ...
    TypeError: Adam: betas[1] is 'x'; it must be a finite number
    """
    several = values.ndim > 0 if isinstance(values, np.ndarray) else isinstance(values, Sequence)
    if not several or isinstance(values, str):
        raise TypeError(f"{owner}: {name} is {_short(values)}; it must be a sequence of numbers")
    return tuple(check(owner, f"{name}[{i}]", value, **bounds) for i, value in enumerate(values))


def check_call(owner: str, name: str, function: Any, *arguments: str, remedy: str = "") -> None:
    """Raise a TypeError unless a function can be called with these arguments, given by their names, by position.

    An ``rng`` must meet a parameter that is required, or None by default: another one is no generator.

    Examples
    --------
    >>> check_call("Trainer", "loss", lambda outputs, labels: 0.0, "outputs", "labels")
    >>> check_call("Trainer", "loss", "mse", "outputs", "labels")
    Traceback (most recent call last):
    ...
    TypeError: Trainer: loss is 'mse'; it must be a function, called loss(outputs, labels)
    """
    call = f"{name}({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{owner}: {name} is {_short(function)}; it must be a function, called {call}{remedy}")
    try:
        found = signature(function)
    except ValueError:  # compiled functions may have none
        return
    try:
        bound = found.bind(*arguments).arguments
    except TypeError as error:
        raise TypeError(f"{owner}: {name} cannot be called {call}: {error}{remedy}") from None
    for parameter, argument in bound.items():
        default = found.parameters[parameter].default
        if argument == "rng" and default is not None and default is not Parameter.empty:  # another setting
            raise TypeError(f"{owner}: {name} cannot be called {call}: rng would be its {parameter}{remedy}")


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
        elif isinstance(live, Real) and not isinstance(live, bool):
            least = " of at least 0" if path in nonnegative else ""
            kind, name = (Integral, "an integer") if isinstance(live, Integral) else (Real, "a finite number")
            if path in equal and _is_number(saved, kind) and saved != live:
                wrong.append(f"{path} is {_short(saved)}, {owner}'s is {_short(live)}")
            elif not _is_number(saved, kind) or (least and saved < 0):
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
