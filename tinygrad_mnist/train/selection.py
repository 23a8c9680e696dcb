"""Model selection by validation scores: which epoch is best, and when to stop early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..validation import integer

__all__ = ["best_epoch", "should_stop"]


def best_epoch(scores: Sequence[Any]) -> int:
    """Return the index of the highest score, the first of equal ones.

    Raises
    ------
    ValueError
        If there are no scores.

    Examples
    --------
    >>> best_epoch([0.97, 0.98, 0.98])
    1
    """
    if not scores:
        raise ValueError("best_epoch: there are no scores yet")
    return max(range(len(scores)), key=scores.__getitem__)


def should_stop(scores: Sequence[Any], patience: int) -> bool:
    """Return whether none of the last `patience` scores is higher than the best one before them.

    Examples
    --------
    >>> should_stop([0.97, 0.98, 0.98], patience=2), should_stop([0.97, 0.98, 0.98, 0.97], patience=2)
    (False, True)
    """
    patience = integer("should_stop", "patience", patience, 1)
    return len(scores) > patience and best_epoch(scores) < len(scores) - patience
