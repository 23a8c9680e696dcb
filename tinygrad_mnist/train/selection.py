"""Model selection by validation scores: which epoch is best, and when to stop early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..validation import check_call, integer

__all__ = ["best_epoch", "check_ranking", "ranking", "should_stop"]


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


def ranking(row: Mapping[str, Any], select: str | None) -> tuple[float, ...]:
    """Return what an epoch is compared by, the higher the better, from its row of `Trainer.history`.

    Raises
    ------
    ValueError
        If what selects has not been measured.

    Examples
    --------
    >>> row = {"epoch": 1, "validation_loss": 0.25, "validation_accuracy": 0.5, "validation_error": 2.0}
    >>> ranking(row, None), ranking(row, "-error"), ranking(row, "-loss")
    ((0.5, -0.25), (-2.0, -0.25), (-0.25, -0.25))
    """
    loss: float = -row["validation_loss"]
    if select is None:
        return (row["validation_accuracy"], loss) if "validation_accuracy" in row else (loss,)
    name = f"validation_{select.removeprefix('-')}"
    if name not in row:
        raise ValueError(f"Trainer: select is {select!r}, but {name} is not measured; {sorted(row)} are")
    return (-row[name] if select.startswith("-") else row[name]), loss


def check_ranking(monitored: Sequence[str], metrics: Any, select: Any) -> dict[str, Any] | None:
    """Return the metrics of a `Trainer` if their names and `select` make sense."""
    if metrics is not None and (
        not isinstance(metrics, Mapping) or not all(isinstance(n, str) and callable(f) for n, f in metrics.items())
    ):
        raise TypeError("Trainer: metrics must be a dict of name to metric(outputs, labels)")
    for name, metric in (metrics or {}).items():
        check_call("Trainer", f"metrics[{name!r}]", metric, "outputs", "labels")
    kinds = ["loss", *(["accuracy"] if metrics is None else metrics)]
    keys = ["epoch", "mean_loss", *(f"{name}_{kind}" for name in monitored for kind in kinds)]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"Trainer: a row of the history would have {', '.join(twice)} twice; rename what is monitored")
    if select is not None:
        good = ["-loss", *(sign + kind for kind in kinds[1:] for sign in ("", "-"))]
        if select not in good:
            raise ValueError(f"Trainer: select is {select!r}; it must be one of {good}, a minus where lower is better")
        if "validation" not in monitored:
            raise ValueError(f"Trainer: select is {select!r}, so monitor must have images called 'validation'")
    if metrics and not monitored:
        raise ValueError("Trainer: metrics are measured on what is monitored; pass monitor={name: (images, labels)}")
    return None if metrics is None else dict(metrics)
