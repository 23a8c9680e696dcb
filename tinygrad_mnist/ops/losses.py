"""Softmax and what is computed with it. All are compositions: none of them states a gradient of its own.

Half precision is computed in single precision, as in PyTorch: a sum of exponentials may exceed 65,504.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..record import as_tensor, astype, primitive
from ..tensor import Operand, Tensor, attach
from ..validation import real
from .elementwise import exp, log, where
from .indexing import getitem
from .operators import in_rules
from .reduction import Axis, max, mean, sum

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "softmax"]


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


def cross_entropy(logits: Operand, target: Operand, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of the negative log-probability of the target class.

    Parameters
    ----------
    logits : array_like, shape (N, K)
        Unnormalized scores.
    target : array_like, shape (N,) of integers or (N, K)
        Class indices 0 … K - 1, or one-hot rows (any weights are accepted).
    label_smoothing : float in [0, 1]
        The share s of a target that is spread evenly over all classes: a row t becomes ``(1 - s) * t + s / K``, as in
        PyTorch (Szegedy et al., 2016).

    Returns
    -------
    Tensor, shape ()
        In nats; log(K) when nothing is known.

    Raises
    ------
    ValueError
        If the batch is empty, the shapes do not fit, an index is not a class, or `label_smoothing` is out of range.

    Examples
    --------
    >>> round(cross_entropy(np.zeros((2, 10)), [3, 7]).item(), 4)
    2.3026
    >>> sure = np.array([[9.0, 0.0, 0.0]])  # a prediction that smooth targets call too sure
    >>> [round(cross_entropy(sure, [0], label_smoothing=s).item(), 4) for s in (0, 0.1)]
    [0.0002, 0.6002]
    """
    logits, target = as_tensor(logits), as_tensor(target)
    smoothing = real("cross_entropy", "label_smoothing", label_smoothing, least=0, most=1)
    if logits.dtype == np.float16:
        return astype(cross_entropy(astype(logits, np.float32), target, smoothing), np.float16)
    if logits.ndim != 2 or not logits.size:
        raise ValueError(
            f"cross_entropy: logits have shape {logits.shape}; they must be (N, K) with at least one row and one class"
        )
    n, classes = logits.shape
    one_hot = target.shape == (n, classes)
    if not one_hot and (target.shape != (n,) or target.dtype.kind not in "iu"):
        raise ValueError(
            f"cross_entropy: target is {target.dtype} {target.shape}, logits are {logits.shape}; "
            f"pass integer class indices ({n},) or one-hot rows ({n}, {classes})"
        )
    if not one_hot and (target.data.min() < 0 or target.data.max() >= classes):
        wrong = int(np.argmax((target.data < 0) | (target.data >= classes)))
        raise ValueError(
            f"cross_entropy: target[{wrong}] is {target.data[wrong]}, but the classes are 0 to {classes - 1}"
        )
    log_probabilities = log_softmax(logits)  # floats, also where logits are integers
    if one_hot:
        loss = sum(log_probabilities * astype(target, log_probabilities.dtype)) / -n
    else:
        loss = -mean(getitem(log_probabilities, (np.arange(n), target)))
    return (1 - smoothing) * loss - smoothing * mean(log_probabilities) if smoothing else loss


@attach
class LossMethods:
    """Methods of `Tensor` that are defined here."""

    softmax = softmax
    log_softmax = log_softmax
    logsumexp = logsumexp
