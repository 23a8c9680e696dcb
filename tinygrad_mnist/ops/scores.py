"""Softmax and its logarithm. All are compositions: none of them states a gradient of its own.

Half precision is computed in single precision, as in PyTorch: a sum of exponentials may exceed 65,504.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..record import as_tensor, astype, primitive
from ..tensor import Array, Operand, Tensor, attach
from .elementwise import exp, log, where
from .functions import isfinite
from .operators import in_rules
from .reduction import Axis, max, sum

__all__ = ["log_softmax", "logsumexp", "softmax"]


def _scores(x: Operand) -> Tensor:
    """Return scores as floats: differences of small integers would wrap around."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else astype(x, np.float64)


@primitive
def _shift(x: Any, top: Any, /, *, axis: Axis) -> Any:
    """``x - top``, so that no exponential overflows, for functions that no shift of ``x`` along `axis` changes.

    The gradients of such a function add up to 0. That of an element which outweighs all others is computed from theirs:
    its own formula, as in 1 - softmax, would cancel.
    """
    return x - top


def _heavy(shifted: Array, axis: Axis) -> Array | None:
    """Return which elements have an exponential that outweighs all others along `axis`; None where none has."""
    e = np.exp(shifted)
    total = kernels.add_up(e, axis, keepdims=True)
    return 2 * e > total if np.count_nonzero(total < 2) else None  # the largest e is 1


@primitive
def _balance(g: Any, shifted: Any, /, *, axis: Axis) -> Any:
    """Replace a heavy element by the negative sum of the others along `axis`."""
    heavy = _heavy(shifted, axis)
    return g if heavy is None else np.where(heavy, -kernels.add_up(np.where(heavy, 0, g), axis, keepdims=True), g)


@primitive
def _spread(h: Any, shifted: Any, /, *, axis: Axis) -> Any:
    """Take a heavy element from the others along `axis`, and replace it by 0: the adjoint of `_balance`."""
    heavy = _heavy(shifted, axis)
    return h if heavy is None else np.where(heavy, 0, h - kernels.add_up(np.where(heavy, h, 0), axis, keepdims=True))


_balanced, _spread_out = in_rules(_balance), in_rules(_spread)
_balance.defvjp(lambda h, out, g, shifted, axis: _spread_out(h, shifted, axis=axis), None)
_spread.defvjp(lambda h, out, g, shifted, axis: _balanced(h, shifted, axis=axis), None)
_shift.defvjp(lambda g, out, x, top, axis: _balanced(g, out, axis=axis), None)


def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Logarithm of the sum of exponentials over the given axes (None: all), without overflow.

    Examples
    --------
    >>> logsumexp(np.array([1000.0, 1000.0])) - 1000
    Tensor(0.69314718, dtype=float64)
    """
    if (x := _scores(x)).dtype == np.float16:
        return astype(logsumexp(astype(x, np.float32), axis, keepdims), np.float16)
    top = max(x.detach(), axis=axis, keepdims=True)
    top = where(isfinite(top), top, 0.0)  # all -inf, or +inf: nothing to shift by
    out = log(sum(exp(x - top), axis, keepdims=True)) + top
    return out if keepdims else sum(out, axis)


def softmax(x: Operand, axis: Axis = -1) -> Tensor:
    """Exponentials divided by their sum along `axis`: positive numbers that add up to 1.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0], [1e4, 0.0]]))
    Tensor([[0.5, 0.5],
            [1. , 0. ]], dtype=float64)
    """
    if (x := _scores(x)).dtype == np.float16:
        return astype(softmax(astype(x, np.float32), axis), np.float16)
    e = exp(_shift(x, max(x.detach(), axis=axis, keepdims=True), axis=axis))
    return e / sum(e, axis, keepdims=True)


def log_softmax(x: Operand, axis: Axis = -1) -> Tensor:
    """Logarithm of `softmax`, exact where that would underflow.

    Examples
    --------
    >>> log_softmax(np.array([0.0, -1e4]))
    Tensor([     0., -10000.], dtype=float64)
    """
    if (x := _scores(x)).dtype == np.float16:
        return astype(log_softmax(astype(x, np.float32), axis), np.float16)
    shifted = _shift(x, max(x.detach(), axis=axis, keepdims=True), axis=axis)
    return shifted - log(sum(exp(shifted), axis, keepdims=True))


@attach
class ScoreMethods:
    """Methods of `Tensor` that are defined here."""

    softmax = softmax
    log_softmax = log_softmax
    logsumexp = logsumexp
