"""Losses of classes and probabilities. All are compositions of ops."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..record import as_tensor, astype, mode
from ..tensor import Array, Operand, Tensor
from ..validation import integer, real
from .elementwise import exp, log, omit, where
from .functions import logaddexp
from .indexing import getitem
from .logic import equal
from .loss_reduction import REDUCTIONS, as_dtype, as_floats, check_reduction, reduced
from .reduction import mean, sum
from .scores import log_softmax

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "kl_div", "nll_loss"]


# Classes --------------------------------------------------------------------------------------------------------------
class _Targets(NamedTuple):
    """Class indices, checked, and how much each of them counts."""

    places: tuple[Array, ...]  # of their scores
    ignored: Array | None
    weights: Array | None
    total: Any  # what a mean divides by: a float, or a Tensor while a function is exported; None: how many they are


def _class_weights(op: str, weight: Operand | None, scores: Tensor) -> Array | None:
    """Return class weights as constants."""
    if weight is None:
        return None
    given, classes = as_tensor(weight), scores.shape[1]
    if given.requires_grad:
        raise ValueError(f"{op}: weight is a constant, no gradient passes to it; pass weight.detach()")
    values = given.data
    if values.shape != (classes,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"{op}: weight has shape {values.shape}; pass a finite number of at least 0 for each of the {classes} "
            "classes"
        )
    return values.astype(scores.dtype)


def _targets(
    op: str, scores: Tensor, target: Tensor, weights: Array | None, ignore_index: int | None, others: str = ""
) -> _Targets:
    """Check class indices against scores (N, K, ...)."""
    labels, ignored, classes = target.data, None, scores.shape[1]
    shape = (len(scores), *scores.shape[2:])
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{op}: target is {labels.dtype} {labels.shape}, {'logits are' if others else 'scores are'} "
            f"{scores.shape}; pass integer class indices {shape}{others}"
        )
    if ignore_index is not None:
        number = integer(op, "ignore_index", ignore_index, -(2**63))
        ignored = equal(target, number)._array  # by ops, so that hooks see where all of this comes from
        labels = where(ignored, 0, target)._array
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = np.argwhere((labels < 0) | (labels >= classes))[0].tolist()
        raise ValueError(
            f"{op}: target[{', '.join(map(str, wrong))}] is {labels[tuple(wrong)]}, but the classes are 0 to "
            f"{classes - 1}"
        )
    places = np.ix_(*map(np.arange, shape)) if len(shape) > 1 else [np.arange(shape[0])]
    each = None if weights is None else getitem(weights, (labels,))._array
    total: Any = None
    if each is not None or ignored is not None:
        counted = np.ones(shape) if each is None else each
        if mode.traced:
            total = sum(astype(counted if ignored is None else where(ignored, 0, counted), np.float64))
        else:
            total = float(np.sum(counted if ignored is None else np.where(ignored, 0, counted), dtype=np.float64))
    return _Targets((places[0], labels, *places[1:]), ignored, each, total)


def _at_targets(log_probabilities: Tensor, targets: _Targets) -> Tensor:
    """Return the weighted losses of the target classes, exactly 0 where one is ignored."""
    losses = -getitem(log_probabilities, targets.places)
    losses = losses if targets.weights is None else losses * targets.weights
    return losses if targets.ignored is None else omit(losses, targets.ignored)


def cross_entropy(
    logits: Operand,
    target: Operand,
    label_smoothing: float = 0.0,
    *,
    weight: Operand | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
) -> Tensor:
    """Negative log-probability of the target class, by default its mean over the batch.

    Parameters
    ----------
    logits : array_like, shape (N, K) or (N, K, d1, ...)
        Unnormalized scores of K classes.
    target : array_like, shape (N,) or (N, d1, ...) of integers, or that of `logits`
        Class indices 0 … K - 1, or one-hot rows (any weights are accepted), along axis 1.
    label_smoothing : float in [0, 1]
        The share s of a target that is spread evenly over all classes: a row t becomes ``(1 - s) * t + s / K``, as in
        PyTorch (Szegedy et al., 2016).
    weight : array_like, shape (K,), optional
        Class weights, constants of at least 0, with which the terms of the classes are multiplied.
    reduction : {"mean", "sum", "none"}
        With class indices the mean divides by the sum of the weights of the targets, with rows by their number, as in
        PyTorch.
    ignore_index : int, optional
        A target to leave out: its loss and gradient are 0, and the mean does not count it. For class indices alone. By
        default there is none (in PyTorch it is -100).

    Returns
    -------
    Tensor, shape (), or with ``reduction="none"`` (N,) or (N, d1, ...)
        In nats; log(K) when nothing is known.

    Raises
    ------
    ValueError
        If the mean would be of nothing, the shapes do not fit, an index is not a class, or a setting is out of range.

    Examples
    --------
    >>> round(cross_entropy(np.zeros((2, 10)), [3, 7]).item(), 4)
    2.3026
    >>> sure = np.array([[9.0, 0.0, 0.0]])  # a prediction that smooth targets call too sure
    >>> [round(cross_entropy(sure, [0], label_smoothing=s).item(), 4) for s in (0, 0.1)]
    [0.0002, 0.6002]
    >>> scores = np.log([[0.5, 0.5], [0.25, 0.75]])
    >>> cross_entropy(scores, [0, 1], weight=[2, 0], reduction="none").data.round(4).tolist()
    [1.3863, 0.0]
    """
    logits, dtype = as_floats(logits)
    target = as_tensor(target)
    smoothing = real("cross_entropy", "label_smoothing", label_smoothing, least=0, most=1)
    check_reduction("cross_entropy", reduction)
    if logits.ndim < 2 or not logits.shape[1] or (reduction == "mean" and not logits.size):
        raise ValueError(
            f"cross_entropy: logits have shape {logits.shape}; they must be (N, K) or (N, K, d1, ...) with at least "
            "one row and one class"
        )
    classes, rows = logits.shape[1], target.shape == logits.shape
    weights = _class_weights("cross_entropy", weight, logits)
    if rows and ignore_index is not None:
        raise ValueError("cross_entropy: ignore_index is for class indices; give rows to be ignored a target of zeros")
    if not rows:
        others = f" or one-hot rows {logits.shape}"
        targets = _targets("cross_entropy", logits, target, weights, ignore_index, others)
    log_probabilities = log_softmax(logits, axis=1 - logits.ndim)
    if weights is None and ignore_index is None and reduction == "mean":  # usually: with fewer ops
        if rows:
            loss = sum(log_probabilities * as_dtype(target, logits.dtype)) / -(logits.size // classes)
        else:
            loss = -mean(getitem(log_probabilities, targets.places))
        return as_dtype((1 - smoothing) * loss - smoothing * mean(log_probabilities) if smoothing else loss, dtype)
    weighted, total = log_probabilities, None
    if weights is not None:
        weighted = log_probabilities * weights.reshape(-1, *[1] * (logits.ndim - 2))
    if rows:
        losses = -sum(weighted * as_dtype(target, logits.dtype), axis=1)
    else:
        losses, total = _at_targets(log_probabilities, targets), targets.total
    if smoothing:
        spread = sum(weighted, axis=1)
        spread = spread if rows or targets.ignored is None else omit(spread, targets.ignored)
        losses = (1 - smoothing) * losses - smoothing / classes * spread
    return reduced("cross_entropy", losses, reduction, dtype, total)


def nll_loss(
    log_probabilities: Operand,
    target: Operand,
    *,
    weight: Operand | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
) -> Tensor:
    """Negative log-likelihood: `cross_entropy` of what are log-probabilities already, as from `log_softmax`.

    Parameters
    ----------
    log_probabilities : array_like, shape (N, K) or (N, K, d1, ...)
    target : array_like, shape (N,) or (N, d1, ...) of integers
        Class indices 0 … K - 1.
    weight, reduction, ignore_index
        See `cross_entropy`.

    Examples
    --------
    >>> round(nll_loss(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 0]).item(), 4)  # (log(2) + log(4)) / 2
    1.0397
    """
    scores, dtype = as_floats(log_probabilities)
    check_reduction("nll_loss", reduction)
    if scores.ndim < 2 or not scores.shape[1]:
        raise ValueError(
            f"nll_loss: log_probabilities have shape {scores.shape}; they must be (N, K) or (N, K, d1, ...)"
        )
    weights = _class_weights("nll_loss", weight, scores)
    targets = _targets("nll_loss", scores, as_tensor(target), weights, ignore_index)
    return reduced("nll_loss", _at_targets(scores, targets), reduction, dtype, targets.total)


# Probabilities --------------------------------------------------------------------------------------------------------
def _alike(op: str, first: str, x: Tensor, target: Operand) -> Tensor:
    """Return the target in the dtype of `x`, if it has its shape."""
    target = as_tensor(target)
    if target.shape != x.shape:
        raise ValueError(f"{op}: {first} has shape {x.shape}, target {target.shape}; reshape one of them")
    return as_dtype(target, x.dtype)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    lengths = zip(shape[::-1], to[::-1], strict=False)
    return len(shape) <= len(to) and all(n in (1, length) for n, length in lengths)


def binary_cross_entropy_with_logits(
    logits: Operand,
    target: Operand,
    *,
    weight: Operand | None = None,
    pos_weight: Operand | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of independent yes-or-no targets, ``-t * log(sigmoid(x)) - (1 - t) * log(sigmoid(-x))``.

    Parameters
    ----------
    logits : array_like
        Of any shape: unnormalized scores of "yes". Neither large ones overflow nor small losses cancel. At minus
        infinity the loss is infinite if ``t`` is above 0; PyTorch's is NaN.
    target : array_like
        Of the same shape: 0, 1, booleans, or probabilities.
    weight : array_like, optional
        The losses are multiplied by it; it broadcasts to the shape of the logits. The mean still divides by the number
        of losses, as in PyTorch.
    pos_weight : array_like, optional
        The terms of ``t`` (not those of ``1 - t``) are multiplied by it; it broadcasts to the shape of the logits.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        If the shapes do not fit, or there is nothing to average.

    Examples
    --------
    >>> binary_cross_entropy_with_logits([0.0, 1000.0], [1, 0], reduction="none")
    Tensor([6.93147181e-01, 1.00000000e+03], dtype=float64)
    """
    op = "binary_cross_entropy_with_logits"
    check_reduction(op, reduction)
    x, dtype = as_floats(logits)
    t = _alike(op, "logits", x, target)
    factors = []
    for name, given in (("weight", weight), ("pos_weight", pos_weight)):
        factor = None if given is None else as_dtype(as_tensor(given), x.dtype)
        if factor is not None and not _broadcasts(factor.shape, x.shape):
            raise ValueError(
                f"{op}: {name} has shape {factor.shape}; it must broadcast to that of the logits, {x.shape}"
            )
        factors.append(factor)
    yes, no = t * logaddexp(-x, 0.0), (1 - t) * logaddexp(x, 0.0)
    losses = (yes if factors[1] is None else yes * factors[1]) + no
    return reduced(op, losses if factors[0] is None else losses * factors[0], reduction, dtype)


def kl_div(log_probabilities: Operand, target: Operand, *, log_target: bool = False, reduction: str = "mean") -> Tensor:
    """Kullback-Leibler divergence of a model's log-probabilities from target probabilities, ``t * (log(t) - x)``.

    Parameters
    ----------
    log_probabilities : array_like
        Logarithms, as from `log_softmax`.
    target : array_like
        Probabilities of the same shape. ``0 * log(0)`` counts as 0, and so does its derivative.
    log_target : bool
        Whether the target, too, is given as logarithms.
    reduction : {"mean", "batchmean", "sum", "none"}
        ``"mean"`` divides by the number of elements, as in PyTorch; the divergence as it is defined is the sum over the
        classes, which ``"batchmean"`` averages over the examples (axis 0).

    Raises
    ------
    ValueError
        If the shapes differ, or there is nothing to average.

    Examples
    --------
    >>> round(kl_div(np.log([[0.5, 0.5]]), [[0.0, 1.0]], reduction="batchmean").item(), 4)
    0.6931
    """
    x, dtype = as_floats(log_probabilities)
    t = _alike("kl_div", "log_probabilities", x, target)
    check_reduction("kl_div", reduction, (*REDUCTIONS, "batchmean"))
    if reduction == "batchmean" and not x.ndim:
        raise ValueError("kl_div: log_probabilities have shape (); reduction='batchmean' averages over axis 0")
    if log_target:
        losses = exp(t) * (t - x)
    else:
        zero = equal(t, 0)
        losses = where(zero, 0.0, t * log(where(zero, 1.0, t))) - t * x
    if reduction == "batchmean":
        losses, reduction = sum(losses, axis=tuple(range(1, x.ndim))), "mean"
    return reduced("kl_div", losses, reduction, dtype)
