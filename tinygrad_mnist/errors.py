"""Errors that name the op, what it was given, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any

import numpy as np

from .tensor import Tensor

__all__ = ["describe", "explained", "wrong_arguments"]

ALIASES = {"dim": "axis", "dims": "axis", "axes": "axis", "keepdim": "keepdims"}  # other libraries' names


def describe(a: Any) -> str:
    """Describe an argument in an error: arrays by dtype and shape, everything else as Python shows it."""
    if isinstance(a, (Tensor, np.ndarray)):
        return f"{a.dtype} {a.shape}"
    if isinstance(a, (list, tuple)) and any(isinstance(part, (Tensor, np.ndarray, list)) for part in a):
        return f"[{', '.join(map(describe, a))}]"
    return repr(a)


def explained(error: Exception, name: str, args: Sequence[Any]) -> Exception:
    """Return the same kind of error, naming the op and what it was given."""
    text = str(error)
    if text.startswith(name):
        return error
    if text.startswith("cannot compute with"):  # it names the argument
        return TypeError(f"{name}: {text}")
    if "broadcast" in text:
        text += "; shapes must be equal or broadcastable: aligned at the right, each pair of lengths equal or one of "
        text += "them 1 (see reshape)"
    kind = next(kind for kind in (IndexError, TypeError, ValueError) if isinstance(error, kind))
    return kind(f"{name}({', '.join(map(describe, args))}): {text}")


def wrong_arguments(op: Any, args: Sequence[Any], keywords: dict[str, Any]) -> TypeError:
    """Say in Python's words what is wrong with the arguments of a call of the primitive `op`."""
    for name in keywords.keys() - op.settings.keys():
        likely = [ALIASES.get(name, name), *get_close_matches(name, op.settings)]
        meant = next((f"; did you mean {other}?" for other in likely if other in op.settings), "")
        return TypeError(f"{op.__name__}() got an unexpected keyword argument '{name}'{meant}")
    try:
        signature(op).bind(*args, **keywords)
    except (TypeError, ValueError) as error:  # ValueError: a NumPy function whose signature Python cannot tell
        return TypeError(f"{op.__name__}() {error}")
    return TypeError(f"{op.__name__}() takes {op.arrays} arrays, but {len(args)} arguments were given by position")
