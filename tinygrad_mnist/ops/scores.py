"""Softmax and its logarithm. All are compositions: none of them states a gradient of its own.

Half precision is computed in single precision, as in PyTorch: a sum of exponentials may exceed 65,504.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..record import as_tensor, astype, primitive
from ..tensor import Operand, Tensor, attach
from .elementwise import exp, log, where
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


@primitive
def _balance(g: Any, heavy: Any, /, *, axis: Axis) -> Any:
    """Replace a heavy element by the negative sum of the others along `axis`."""
    return np.where(heavy, -kernels.add_up(np.where(heavy, 0, g), axis, keepdims=True), g)


def _shift_gradient(g: Tensor, out: Tensor, x: Tensor, top: Tensor, axis: Axis) -> Tensor:
    e = np.exp(out.data)
    total = kernels.add_up(e, axis, keepdims=True)
    if np.count_nonzero(total < 2):  # the largest e is 1: it may outweigh the others
        return _balanced(g, 2 * e > total, axis=axis)
    return g


_balanced = in_rules(_balance)
_balance.defvjp(
    lambda h, out, g, heavy, axis: where(heavy, 0.0, h - sum(where(heavy, h, 0.0), axis, keepdims=True)), None
)
_shift.defvjp(_shift_gradient, None)


def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Logarithm of the sum of exponentials over the given axes (None: all), without overflow.

    Examples
    --------
    >>> logsumexp(np.array([1000.0, 1000.0])) - 1000
    Tensor(0.69314718, dtype=float64)
    """
    if (x := _scores(x)).dtype == np.float16:
        return astype(logsumexp(astype(x, np.float32), axis, keepdims), np.float16)
    top = max(x.detach(), axis=axis, keepdims=True).data
    top = np.where(np.isfinite(top), top, 0)  # all -inf, or +inf: nothing to shift by
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
