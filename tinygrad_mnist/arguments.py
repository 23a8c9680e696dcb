"""The arguments of an op: how they are converted, and errors that name the op, what it was given, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from inspect import signature
from numbers import Number
from typing import Any

import numpy as np

from .tensor import NUMERIC, Tensor, wrap

__all__ = [
    "NUMBERS",
    "WORDS",
    "as_inputs",
    "defers",
    "describe",
    "explained",
    "holds_tensors",
    "stacked",
    "wrong_arguments",
]

NUMBERS = (float, int, bool)  # Python's own; np.float64 is a float, too, but not one of them
WORDS = (str, bytes, type(None))  # what nothing can be computed with: the op says so
ALIASES = {"dim": "axis", "dims": "axis", "axes": "axis", "keepdim": "keepdims"}  # other libraries' names


def as_inputs(args: Sequence[Any], as_tensor: Callable[[Any], Tensor]) -> tuple[Any, ...]:
    """Convert the arguments of an op: Tensors and Python's numbers stay as they are, all else becomes Tensors.

    NumPy's scalars and 0-d arrays become Python's numbers, which never change a dtype; floating-point ones decide the
    dtype themselves where no other floating-point array does. Numbers alone become Tensors.
    """
    inputs: list[Any] = []
    special = []
    for i, a in enumerate(args):
        kind = type(a)
        if kind is np.ndarray and a.ndim and a.dtype.kind in NUMERIC:  # nearly always
            a = wrap(a)
        elif kind is not Tensor and kind not in NUMBERS:
            a = as_tensor(a)
            special.append(i)
        inputs.append(a)
    if special:
        scalars = [i for i in special if inputs[i]._array.ndim == 0 and not isinstance(args[i], Tensor)]
        floating = any(isinstance(a, Tensor) and a.dtype.kind == "f" and i not in scalars for i, a in enumerate(inputs))
        for i in scalars:
            if inputs[i].dtype.kind != "f":
                inputs[i] = inputs[i].item()
            elif floating:
                inputs[i] = float(inputs[i].item())  # the item of a longdouble is one
        if own := [a for a in (args[i] for i in special) if _computes_itself(a)]:
            raise TypeError(f"cannot compute with {type(own[0]).__name__}: it has its own rules; pass np.asarray(...)")
    return tuple(inputs if any(isinstance(a, Tensor) for a in inputs) else map(as_tensor, args))


def _leaves(nest: Sequence[Any]) -> Iterator[Any]:
    for part in nest:
        if isinstance(part, (list, tuple)):
            yield from _leaves(part)
        else:
            yield part


def holds_tensors(x: Any) -> bool:
    """Whether this is a list or tuple with Tensors in it, at any depth."""
    if not isinstance(x, (list, tuple)):
        return False
    kinds = set(map(type, x))  # long lists hold few types
    if any(issubclass(kind, Tensor) for kind in kinds):
        return True
    return any(issubclass(kind, (list, tuple)) for kind in kinds) and any(map(holds_tensors, x))


def stacked(nest: Any, as_tensor: Callable[[Any], Tensor], stack: Callable[..., Tensor]) -> Tensor:
    """Stack lists and tuples that hold Tensors, arrays and numbers; the numbers do not change the dtype.

    The two ops are given, because they stand above this file.
    """
    leaves = as_inputs([*_leaves(nest)], as_tensor)
    numbers = {type(a): type(a)() for a in leaves if not isinstance(a, Tensor)}
    dtype = np.result_type(*{a.dtype for a in leaves if isinstance(a, Tensor)}, *numbers.values())
    return _join(nest, iter([a if isinstance(a, Tensor) else wrap(np.asarray(a, dtype)) for a in leaves]), stack)


def _join(part: Any, leaves: Iterator[Tensor], stack: Callable[..., Tensor]) -> Tensor:
    if not isinstance(part, (list, tuple)):
        return next(leaves)
    parts = [_join(inner, leaves, stack) for inner in part]
    shapes = [*dict.fromkeys(p.shape for p in parts)]
    if len(shapes) != 1:
        raise ValueError(
            f"cannot stack a {type(part).__name__} of parts of shapes {', '.join(map(str, shapes)) or 'none'}: "
            "they must have one shape; reshape them, or join them with tg.concatenate"
        )
    return stack(*parts, axis=0)


def _computes_itself(a: Any) -> bool:
    """Whether it is an object that is more than its values: NumPy's arrays leave computing to it, too.

    Its ``__array_ufunc__`` is None, or it is an array with one of its own, such as a quantity with a unit, or with
    other operators (np.matrix).
    """
    if isinstance(a, np.ndarray):
        return type(a).__array_ufunc__ is not np.ndarray.__array_ufunc__ or isinstance(a, np.matrix)
    return getattr(type(a), "__array_ufunc__", type) is None and not isinstance(a, Tensor)


def defers(other: Any) -> bool:
    """Whether an operator of a Tensor returns NotImplemented, so that the other operand has its turn.

    It does where that is no array, sequence or number but an object of its own kind (which may have a ``__radd__``),
    and where that wants to compute itself, as NumPy's arrays know it, too.
    """
    if _computes_itself(other):
        return True
    if isinstance(other, (Tensor, Sequence, Number, *WORDS)) or hasattr(other, "__array__"):
        return False
    try:
        memoryview(other)
    except TypeError:
        return not hasattr(other, "__array_interface__")
    return False


def describe(a: Any) -> str:
    """Describe an argument in an error: arrays by dtype and shape, everything else as Python shows it."""
    if isinstance(a, (Tensor, np.ndarray)):
        return f"{a.dtype} {a.shape}"
    if isinstance(a, (list, tuple)) and any(isinstance(part, (Tensor, np.ndarray, list)) for part in a):
        return f"[{', '.join(map(describe, a))}]"
    return repr(a)


def explained(error: Exception, op: Any, args: Sequence[Any], keywords: dict[str, Any]) -> Exception:
    """Return the same kind of error, naming the primitive `op` and what it was given."""
    text = str(error)
    if isinstance(error, TypeError) and (problem := _signature_error(op, args, keywords)):
        return TypeError(f"{op.__name__}() {problem}")
    if text.startswith(op.__name__):
        return error
    if text.startswith("cannot compute with"):  # it names the argument
        return TypeError(f"{op.__name__}: {text}")
    if "broadcast" in text:
        text += "; shapes must be equal or broadcastable: aligned at the right, each pair of lengths equal or one of "
        text += "them 1 (see reshape)"
    kind = next(kind for kind in (IndexError, TypeError, ValueError, OverflowError) if isinstance(error, kind))
    return kind(f"{op.__name__}({', '.join(map(describe, args))}): {text}")


def wrong_arguments(op: Any, args: Sequence[Any], keywords: dict[str, Any]) -> TypeError:
    """Say in Python's words what is wrong with the arguments of a call of the primitive `op`."""
    problem = (
        _signature_error(op, args, keywords)
        or f"takes {op.arrays} arrays, but {len(args)} arguments were given by position"
    )
    return TypeError(f"{op.__name__}() {problem}")


def _signature_error(op: Any, args: Sequence[Any], keywords: dict[str, Any]) -> str:
    """Return what is wrong with the arguments, if they do not fit the signature."""
    for name in keywords.keys() - op.settings.keys():
        likely = [ALIASES.get(name, name), *get_close_matches(name, op.settings)]
        meant = next((f"; did you mean {other}?" for other in likely if other in op.settings), "")
        return f"got an unexpected keyword argument '{name}'{meant}"
    try:
        signature(op).bind(*args, **keywords)
    except TypeError as error:
        return str(error)
    except ValueError:  # a NumPy function whose signature Python does not know
        pass
    return ""
