"""Split a data set into training and validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["hold_out"]


def hold_out(
    labels: npt.NDArray[Any], count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split examples into training and validation, stratified by class.

    Parameters
    ----------
    labels : ndarray, shape (N,)
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
        If `count` is negative or leaves nothing to train on.

    Examples
    --------
    >>> training, validation = hold_out(np.array([0, 1, 0, 1, 0, 1]), 2, np.random.default_rng(0))
    >>> len(training), len(validation)
    (4, 2)
    """
    if not 0 <= count < len(labels):
        raise ValueError(
            f"hold_out: cannot hold out {count} of {len(labels)} examples; at least one must remain for training"
        )
    labels = np.asarray(labels)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    validation = by_class[(np.arange(count) * len(labels)) // max(count, 1)]  # evenly spaced over the classes
    return np.setdiff1d(order, validation), np.sort(validation)
