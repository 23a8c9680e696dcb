"""Losses. All are compositions of ops: none of them states a gradient of its own."""

from __future__ import annotations

import numpy as np

from ..record import as_tensor, astype
from ..tensor import Operand, Tensor
from ..validation import real
from .indexing import getitem
from .reduction import mean, sum
from .scores import log_softmax

__all__ = ["cross_entropy"]


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
