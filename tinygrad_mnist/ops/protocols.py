"""NumPy's functions on Tensors: ``np.exp(t)`` runs as ``tg.exp(t)``, so that code written with NumPy is differentiated.

NumPy hands every call that has a Tensor among its arguments to `__array_function__` or `__array_ufunc__`. The rule:

- A function that has an op here, by name or in `Compositions`, runs as that op and returns a Tensor. Arguments that the
  op lacks (``out``, ``where``, ``dtype``) are refused unless they are NumPy's defaults.
- Any other function is computed on the values. What it returns is passed on as it is if it carries no derivative:
  integers, booleans, shapes, dtypes, text, or (`zeros_like` and its kin) a new array that does not depend on the
  values. Anything else would lose the history and is refused, whether or not the Tensor requires a gradient.
- ``array += t`` works in place if ``t`` requires no gradient.

What calls neither, such as ``np.array([t, t])`` or ``array.dot(t)``, asks `Tensor.__array__` for an array, which a
Tensor that requires a gradient refuses. Where NumPy asks for one number, as in ``array[i] = t``, it gets ``float(t)``:
a plain number, as from ``t.item()``; PyTorch does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any

import numpy as np

from ..record import as_tensor, copy
from ..tensor import Operand, Tensor, attach
from . import arrangement, contraction, elementwise, shape, sorting
from .reduction import max, min

__all__: list[str] = []

Function = Callable[..., Any]
TABLE: dict[Function, Function] = {}  # NumPy's function -> ours
OPS: list[str] = []  # names of all ops, for errors
PLAIN = {Tensor, np.ndarray, list, tuple, int, float, bool, *np.sctypeDict.values()}  # no protocols of their own
LIKE = {np.empty_like, np.full_like, np.ones_like, np.zeros_like}
OF_SHAPES = {*(LIKE - {np.full_like}), np.shape, np.ndim, np.size}  # what these return depends on no values


class Compositions:
    """What NumPy names otherwise, or takes other parameters for: by NumPy's name, with NumPy's parameters.

    ``linalg_f`` stands for ``np.linalg.f`` where that differs from ``np.f``.
    """

    amax = max
    amin = min
    around = elementwise.round
    copy = copy

    @staticmethod
    def argsort(a: Operand, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Tensor:
        return sorting.argsort(a, axis)  # stable, whatever kind is asked for

    @staticmethod
    def clip(a: Operand, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Tensor:
        if not (a_min is a_max is None or min is max is None):
            raise ValueError("numpy.clip: pass a_min and a_max, or min and max, not both")
        return elementwise.clip(a, min if a_min is None else a_min, max if a_max is None else a_max)

    @staticmethod
    def divmod(x: Operand, y: Operand) -> tuple[Tensor, Tensor]:
        return elementwise.floor_divide(x, y), elementwise.remainder(x, y)

    @staticmethod
    def einsum(operands: tuple[Any, ...], optimize: Any = True) -> Tensor:  # ours chooses how to compute it
        return contraction.einsum(*operands)

    @staticmethod
    def matrix_transpose(x: Operand) -> Tensor:
        return shape.swapaxes(x, -1, -2)

    @staticmethod
    def linalg_diagonal(x: Operand, *, offset: int = 0) -> Tensor:
        return arrangement.diagonal(x, offset, -2, -1)

    @staticmethod
    def linalg_outer(x1: Operand, x2: Operand) -> Tensor:
        shapes = [as_tensor(x).shape for x in (x1, x2)]
        if [*map(len, shapes)] != [1, 1]:
            raise ValueError(f"numpy.linalg.outer: it takes vectors, not shapes {shapes[0]} and {shapes[1]}")
        return contraction.outer(x1, x2)

    @staticmethod
    def linalg_trace(x: Operand, *, offset: int = 0) -> Tensor:
        return contraction.trace(x, offset, -2, -1)

    @staticmethod
    def pad(array: Operand, pad_width: Any, *, constant_values: Any = 0.0) -> Tensor:
        if np.ndim(constant_values):
            raise TypeError("numpy.pad: constant_values must be one number; join Tensors with tg.concatenate")
        return shape.pad(array, pad_width, constant_values)

    @staticmethod
    def sort(a: Operand, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Tensor:
        return sorting.sort(a, axis)  # stable, whatever kind is asked for

    @staticmethod
    def where(condition: Any, x: Any = None, y: Any = None) -> Any:
        if x is y is None:  # the positions where the condition holds
            return np.where(as_tensor(condition).data)
        return elementwise.where(condition, x, y)


def register(ops: Mapping[str, Function], linalg: Mapping[str, Function]) -> None:
    """Note which functions of NumPy have the names of `ops`, of `Compositions` and, in ``np.linalg``, of `linalg`."""
    OPS.extend([*ops, *(f"linalg.{name}" for name in linalg)])
    own = {name: getattr(Compositions, name) for name in vars(Compositions) if not name.startswith("_")}
    for name, op in {**ops, **own, **{f"linalg_{name}": op for name, op in linalg.items()}}.items():
        places = [np.linalg] if name.startswith("linalg_") else [np, np.linalg]
        for function in [getattr(place, name.removeprefix("linalg_"), None) for place in places]:
            if callable(function):
                TABLE[function] = op


# Calls ----------------------------------------------------------------------------------------------------------------
def _name(function: Function) -> str:
    return f"{getattr(function, '__module__', None) or 'numpy'}.{function.__name__}"


def _tensors(arguments: Any) -> Iterator[Tensor]:
    """Yield the Tensors among arguments, also inside lists, tuples and dicts."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, (list, tuple, dict)):
        for argument in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from _tensors(argument)


def _values(arguments: Any, read_only: bool) -> Any:
    """Replace Tensors by read-only views of their values; if `read_only`, so are plain arrays."""
    if isinstance(arguments, (list, tuple)):
        parts = [_values(argument, read_only) for argument in arguments]
        return parts if isinstance(arguments, list) else tuple(parts)
    if isinstance(arguments, dict):
        return {name: _values(argument, read_only) for name, argument in arguments.items()}
    if not isinstance(arguments, Tensor) and not (read_only and isinstance(arguments, np.ndarray)):
        return arguments
    view = (arguments.data if isinstance(arguments, Tensor) else arguments).view()
    view.flags.writeable = False
    return view


def _without_derivative(result: Any) -> bool:
    if isinstance(result, (list, tuple)):
        return all(map(_without_derivative, result))
    if isinstance(result, (np.ndarray, np.generic)):
        return result.dtype.kind in "biu"
    return result is None or isinstance(result, (bool, int, str, type, np.dtype))


def _refusal(function: Function, problem: str) -> TypeError:
    similar = get_close_matches(function.__name__, OPS, 1, 0.75)
    ours = f"use tg.{similar[0]} or other ops of tg" if similar else "write it with ops of tg"
    return TypeError(f"{_name(function)}: {problem}; {ours}, or call .numpy() on Tensors to compute without gradients")


def _on_values(function: Function, args: Any, keywords: dict[str, Any]) -> Any:
    """Compute a function that has no op here, if its result carries no derivative."""
    read_only = any(t.requires_grad for t in _tensors([args, keywords]))
    if any(t.requires_grad for t in _tensors([args[1:], keywords])) and function in LIKE:
        raise _refusal(function, "a Tensor that requires a gradient cannot fill an array")
    try:
        result = function(*_values(args, read_only), **_values(keywords, read_only))
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise _refusal(function, "it would write into a Tensor, or write a Tensor's values without history") from error
    if function in LIKE or _without_derivative(result):
        return result
    raise _refusal(function, "this is no op for Tensors, and its result would have no gradient")


def _translated(function: Function, op: Function, args: Any, keywords: dict[str, Any]) -> Any:
    """Return the arguments for `op` of a call of NumPy's `function`, whose parameters may have other names and places.

    A parameter of `op` is that of the same name, or else that in the same place.
    """
    ours = signature(op).parameters
    try:
        theirs = signature(function).parameters
    except ValueError:  # older NumPys do not tell it; these functions take their first parameters as our ops do
        if lacking := keywords.keys() - ours.keys():
            raise _refusal(function, f"Tensors do not take {', '.join(lacking)} here") from None
        return args, keywords
    bound = signature(function).bind(*args, **keywords).arguments
    extra = next((name for name, p in theirs.items() if p.kind is Parameter.VAR_KEYWORD), "")
    given = {name: value for name, value in bound.items() if not _equal(value, theirs[name].default)}
    given |= given.pop(extra, {})
    positional: list[Any] = []
    named: dict[str, Any] = {}
    gap = False
    for place, (name, p) in enumerate(ours.items()):
        by_place = name not in theirs and name not in given and p.kind is not Parameter.KEYWORD_ONLY
        source = [*theirs][place] if by_place and place < len(theirs) else name
        if source not in given:
            gap = True
        elif gap or p.kind is Parameter.KEYWORD_ONLY:
            named[name] = given.pop(source)
        else:
            positional.append(given.pop(source))
    if given:
        raise _refusal(function, f"Tensors do not take {', '.join(given)} here")
    return positional, named


def _equal(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, (int, str)) and type(value) is type(default) and value == default)


def _foreign(kind: type, protocol: str) -> bool:
    """Whether objects of this type, neither Tensors nor arrays, want to compute themselves."""
    own = getattr(kind, protocol, False)
    return own is not False and own not in (getattr(Tensor, protocol), getattr(np.ndarray, protocol))


def _in_place(ufunc: np.ufunc, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Compute ``array += t``."""
    if any(t.requires_grad for t in _tensors(inputs)):
        problem = "a Tensor that requires a gradient cannot change an array in place"
        raise TypeError(f"{_name(ufunc)}: {problem}; write a = a + t, not a += t, or use t.detach()")
    return ufunc(*_values(inputs, False), **keywords)


@attach
class ProtocolMethods:
    """Methods of `Tensor` that are defined here."""

    def __array_function__(self, function: Function, types: Any, args: Any, keywords: dict[str, Any]) -> Any:
        if any(_foreign(kind, "__array_function__") for kind in types):
            return NotImplemented
        op = TABLE.get(function)
        if op is None:
            return _on_values(function, args, keywords)
        args, keywords = _translated(function, op, args, keywords)
        return op(*args, **keywords)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        op = TABLE.get(ufunc)
        if op is not None and not keywords and type(inputs[0]) in PLAIN and type(inputs[-1]) in PLAIN:
            if method == "__call__":  # nearly all calls, such as ndarray op Tensor
                return op(*inputs)
        out = keywords.get("out", ())
        if any(_foreign(type(x), "__array_ufunc__") for x in (*inputs, *out)):
            return NotImplemented
        if method != "__call__":
            raise _refusal(ufunc, f"Tensors do not take its method {method}")
        if len(out) == 1 and out[0] is inputs[0] and not isinstance(out[0], Tensor):
            return _in_place(ufunc, inputs, keywords)
        if op is None:
            if out:
                raise _refusal(ufunc, "Tensors do not take out here")
            return _on_values(ufunc, inputs, keywords)
        inputs, keywords = _translated(ufunc, op, inputs, keywords)
        return op(*inputs, **keywords)
