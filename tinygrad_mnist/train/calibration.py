"""Whether probabilities can be believed: the temperature that makes them so, and how far off they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.conversion import as_array
from ..validation import integer

__all__ = ["calibration_error", "fit_temperature"]

COLDEST, HOTTEST = 0.01, 100.0  # bounds of a temperature
HALVINGS = 50  # of the logarithm of their ratio: to the last digit


def fit_temperature(logits: Any, labels: Any) -> float:
    """Find the temperature T by which logits are divided so that the softmax is calibrated (Guo et al., 2017).

    It minimises the mean negative log-likelihood of the labels, a convex function of 1 / T, by bisection of its
    derivative. Dividing changes no prediction. Fit it on examples that were not trained on.

    Parameters
    ----------
    logits : array_like, shape (N, K)
    labels : array_like of int, shape (N,)
        The true classes.

    Returns
    -------
    float
        Above 1 for a model that is too sure, below 1 for one that is too modest. From 0.01 to 100: it is 0.01 where
        each label has the largest logit by far enough that a lower temperature is always better, and 100 where the
        logits say nothing about the labels, or the contrary. 1 if each row's logits are equal, where no temperature
        makes a difference.

    Raises
    ------
    TypeError, ValueError
        If there are no examples, or not one class for each, or logits are not finite.

    Examples
    --------
    >>> logits = np.array([[2.0, 0.0]] * 4)  # sure of class 0 with odds of e**2 to 1, but right with 3 to 1
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 6), round(2 / math.log(3), 6)
    (1.820478, 1.820478)
    """
    scores, classes = _checked("fit_temperature", "logits", logits, labels)
    scores = scores - scores.max(axis=1, keepdims=True)
    if not scores.any():
        return 1.0
    right = scores[np.arange(len(classes)), classes]

    def slope(temperature: float) -> float:
        """Derivative of the mean negative log-likelihood by 1 / T."""
        odds = np.exp(scores / temperature)
        expected = (odds * scores).sum(axis=1) / odds.sum(axis=1)
        return float(np.mean(expected - right))

    low, high = math.log(COLDEST), math.log(HOTTEST)
    if slope(COLDEST) <= 0:
        return COLDEST
    if slope(HOTTEST) >= 0:
        return HOTTEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def calibration_error(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """Compute the expected calibration error: by how much the confidence differs from the accuracy (Guo et al., 2017).

    The confidence is the largest probability of an example. Examples are put into `bins` of equal width by it. The
    result is the mean over the bins, weighted by the number of examples, of the absolute difference between the mean
    confidence and the accuracy.

    Parameters
    ----------
    probabilities : array_like, shape (N, K)
        The softmax of logits: not negative, each row adds up to 1.
    labels : array_like of int, shape (N,)
        The true classes.
    bins : int

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If there are no examples, or not one class for each, or rows are no probabilities.

    Examples
    --------
    >>> sure = np.array([[0.75, 0.25]] * 4)
    >>> calibration_error(sure, [0, 0, 0, 1]), calibration_error(sure, [0, 0, 0, 0])
    (0.0, 0.25)
    """
    found, classes = _checked("calibration_error", "probabilities", probabilities, labels)
    bins = integer("calibration_error", "bins", bins, 1)
    if found.min() < 0 or np.abs(found.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(
            "calibration_error: probabilities are negative or do not add up to 1; pass the softmax of the logits"
        )
    confidence = found.max(axis=1)
    which = np.searchsorted(np.arange(1, bins) / bins, confidence)  # a bin contains its upper edge
    gaps = np.bincount(which, (found.argmax(axis=1) == classes) - confidence)
    return float(np.abs(gaps).sum() / len(classes))


def _checked(
    caller: str, name: str, scores: Any, labels: Any
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.integer[Any]]]:
    """Return finite scores (N, K) in float64, and the classes of as many examples."""
    found, classes = as_array(caller, name, scores), as_array(caller, "labels", labels)
    if found.ndim != 2 or not len(found) or found.shape[1] < 2:
        raise ValueError(
            f"{caller}: {name} have shape {found.shape}; pass (N, K), of at least one example and 2 classes"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{caller}: {name} are NaN or infinite in {(~np.isfinite(found)).sum()} places")
    if classes.shape != (len(found),):
        raise ValueError(
            f"{caller}: labels have shape {classes.shape}; pass one class for each of {len(found)} examples"
        )
    if classes.dtype.kind not in "iu":
        raise TypeError(f"{caller}: labels are {classes.dtype}; pass classes, integers")
    if classes.min() < 0 or classes.max() >= found.shape[1]:
        raise ValueError(
            f"{caller}: labels are from {classes.min()} to {classes.max()}; the classes are 0 to {found.shape[1] - 1}"
        )
    return found.astype(np.float64), classes
