"""Check that a trainer can go on from a saved state; count steps where training may end within an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..validation import state_mismatches

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["is_measured", "mismatches", "steps_in"]


def steps_in(epochs: float, per_epoch: int) -> int:
    """Return how many steps so many epochs have: a whole number, and at least 1 unless there are 0 epochs.

    Examples
    --------
    >>> steps_in(2, 430), steps_in(0.6, 430), steps_in(0.001, 430), steps_in(0, 430)
    (860, 258, 1, 0)
    """
    return max(round(epochs * per_epoch), int(epochs > 0))


def is_measured(history: Sequence[Mapping[str, Any]], step: int, per_epoch: int) -> bool:
    """Return whether the last row of a history is from after this step.

    Examples
    --------
    >>> history = [{"epoch": 1}, {"epoch": 1.5}]
    >>> is_measured(history, 6, per_epoch=4), is_measured(history, 7, per_epoch=4), is_measured([], 6, per_epoch=4)
    (True, False, False)
    """
    return bool(history) and steps_in(history[-1]["epoch"], per_epoch) == step


def mismatches(trainer: Trainer, state: Mapping[str, Any]) -> list[str]:
    """List everything for which a trainer cannot go on from a state; empty if it can."""
    counts: list[Any] = [state.get(key) for key in ("epoch", "batch", "step")]
    epoch, batch, step = counts
    per_epoch, total = len(trainer.cuts), trainer.total_steps
    wrong, unchecked = list[str](), {"optimizer", "order", "rng"}  # these three are checked below
    if not (
        all(isinstance(count, (int, np.integer)) and not isinstance(count, bool) for count in counts)
        and epoch >= 1
        and 0 <= batch < per_epoch
        and step == (epoch - 1) * per_epoch + batch <= total
    ):
        plan = f"{trainer.epochs} epochs of {per_epoch} batches"
        wrong.append(" ".join(f"step {step}, epoch {epoch}, batch {batch} are none of {plan}".split()))
        unchecked |= {"epoch", "batch", "step", "losses", "history", "best"}
        epoch, batch, step = 1, 0, 0
    ends = _ends(state.get("history"), step, per_epoch)
    if batch and step == total and step not in ends:
        wrong.append(
            f"step {step} is the last of {trainer.epochs} epochs, but nothing was measured there: pass more epochs"
        )
    live = _expected_state(trainer, epoch, batch, list(ends.values()), state.get("history"))
    equal = {"images", "batch_size", *(f"history/{i}/epoch" for i in range(len(ends)))}
    wrong += state_mismatches(
        live, state, "the trainer", equal=equal, nonnegative=["lr"], finite=True, unchecked=unchecked
    )
    wrong += [f"optimizer: {line}" for line in trainer.optimizer.state_mismatches(state.get("optimizer"))]
    order: Any = state.get("order")  # None before the first batch of an epoch
    images = np.arange(trainer.examples.size)
    integers = isinstance(order, np.ndarray) and order.dtype.kind == "i" and order.shape == images.shape
    if not (integers and np.array_equal(np.sort(order), images) or order is None and batch == 0):
        wrong.append(f"order is not a permutation of {len(images)} images")
    generator = trainer.rng.bit_generator
    try:
        type(generator)().state = state.get("rng", {})
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        wrong.append(f"rng is no state of {type(generator).__name__} ({error})")
    return wrong


def _ends(history: Any, step: int, per_epoch: int) -> dict[int, float]:
    """Return what a history up to a step should list, by step: each whole epoch, and ends within one as it has them."""
    ends: dict[int, float] = {whole * per_epoch: whole for whole in range(1, step // per_epoch + 1)}
    rows = history if isinstance(history, (list, tuple)) else []
    for epoch in (row.get("epoch") for row in rows if isinstance(row, Mapping)):
        if isinstance(epoch, float) and 0 < epoch <= step and (end := steps_in(epoch, per_epoch)) <= step:
            ends.setdefault(end, epoch)
    return dict(sorted(ends.items()))


def _expected_state(trainer: Trainer, epoch: int, batch: int, ends: Sequence[float], history: Any) -> dict[str, Any]:
    """Return a template of the state dict after some batches of an epoch; None stands for what is checked apart."""
    weights = trainer.model_state.arrays()
    kinds = ["loss", *(["accuracy"] if trainer.metrics is None else trainer.metrics)]
    row = dict.fromkeys(["epoch", "mean_loss", *(f"{name}_{kind}" for name in trainer.monitor for kind in kinds)], 0.0)
    return {
        **dict.fromkeys(["optimizer", "order", "rng"]),
        "weights": weights,
        "averaged": None if trainer.average is None else weights,
        "lr": 0.0,
        "epoch": epoch,
        "batch": batch,
        "step": 0,
        "losses": np.zeros(batch),
        "history": [_expected_row(trainer, row | {"epoch": end}, i, history) for i, end in enumerate(ends)],
        "images": trainer.examples.size,
        "batch_size": trainer.batch_size,
        "best": weights if ends and "validation" in trainer.monitor else None,
    }


def _expected_row(trainer: Trainer, row: dict[str, Any], number: int, history: Any) -> dict[str, Any]:
    """Leave accuracies out that a saved row lacks, where outputs or labels may have been no classes."""
    sure = trainer.metrics is not None or (trainer.loss is None and getattr(trainer.model, "loss", None) is None)
    saved = history[number] if isinstance(history, (list, tuple)) and number < len(history) else None
    if sure or not isinstance(saved, Mapping):
        return row
    return {key: value for key, value in row.items() if key in saved or not key.endswith("_accuracy")}
