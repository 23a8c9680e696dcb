"""Split a data set into training and validation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..validation import integer
from .conversion import as_array

__all__ = ["hold_out"]


def hold_out(
    labels: npt.ArrayLike, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split examples into training and validation, stratified by class.

    Parameters
    ----------
    labels : array_like, shape (N,)
    count : int
        Number of validation examples, at least 0 and less than N. Each class has its share of them, to within one.
    rng : numpy.random.Generator

    Returns
    -------
    training, validation : ndarray of intp, shapes (N - count,) and (count,)
        Sorted indices; together each index once.

    Raises
    ------
    ValueError
        If `count` is negative or leaves nothing to train on, or labels have more than one axis.

    Examples
    --------
    >>> training, validation = hold_out(np.array([0, 1, 0, 1, 0, 1]), 2, np.random.default_rng(0))
    >>> len(training), len(validation)
    (4, 2)
    """
    labels, count = as_array("hold_out", "labels", labels), integer("hold_out", "count", count)
    if labels.ndim != 1:
        raise ValueError(f"hold_out: labels have shape {labels.shape}; pass one class for each example, (N,)")
    if count >= len(labels):
        raise ValueError(
            f"hold_out: cannot hold out {count} of {len(labels)} examples; at least one must remain for training"
        )
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    validation = by_class[(np.arange(count) * len(labels)) // max(count, 1)]  # evenly spaced over the classes
    kept = np.ones(len(labels), bool)
    kept[validation] = False
    return np.flatnonzero(kept), np.sort(validation)
