"""Pictures of a training run (Matplotlib, from the ``train`` extra)."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..storage.files import write_atomically

__all__ = ["plot_curves"]

# of the figure; Matplotlib finds them itself with layout="constrained", which takes as long as drawing
MARGINS = {"left": 0.06, "right": 0.985, "bottom": 0.13, "top": 0.86, "wspace": 0.18}


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str) -> None:
    """Draw the loss of every step, and mean loss and accuracy of every epoch, into a PNG.

    The mean loss stands at the middle of the steps that it is of, also where training ended within an epoch.

    Parameters
    ----------
    rows : sequence of dict
        The lines of ``metrics.jsonl``, as `tinygrad_mnist.runs.read_metrics` returns them.
    path : str or PathLike
    title : str
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_curves: drawing needs Matplotlib; install it with pip install 'tinygrad_mnist[train]'"
        ) from error
    steps = [row for row in rows if row["event"] == "step"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    per_epoch = _steps_per_epoch(rows)
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2, gridspec_kw=MARGINS)
    left.plot(
        [r["step"] / per_epoch for r in steps],
        [r["loss"] for r in steps],
        color="#9ecae1",
        linewidth=0.8,
        label="each step",
    )
    trained = [row for row in epochs if "mean_loss" in row]  # not epoch 0, the untrained network
    left.plot(
        [(math.ceil(r["epoch"]) - 1 + r["epoch"]) / 2 for r in trained],
        [r["mean_loss"] for r in trained],
        color="#08519c",
        marker="o",
        label="mean of an epoch",
    )
    left.set(title="Training loss", xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0, None))
    left.legend()
    for name, color, marker in (("train", "#d95f02", "s"), ("validation", "#1b9e77", "o"), ("test", "#7570b3", "^")):
        if known := [row for row in epochs if f"{name}_accuracy" in row]:
            right.plot(
                [r["epoch"] for r in known],
                [100 * r[f"{name}_accuracy"] for r in known],
                color=color,
                marker=marker,
                label=name,
            )
    tests = [row for row in rows if row["event"] == "test"]
    for row in tests:  # several, if a run that had ended was given more epochs
        percent, last = 100 * row["test_accuracy"], row is tests[-1]
        label = f"test, at the end: {percent:.2f} %" if last else f"test, at an earlier end: {percent:.2f} %"
        right.axhline(percent, color="#555555" if last else "#bbbbbb", linestyle="--", label=label)
    right.set(title="Accuracy", xlabel="epoch", ylabel="correct (%)")
    right.grid(alpha=0.3)
    if epochs and epochs[-1]["epoch"] >= 2:  # else whole numbers may be too few
        right.xaxis.get_major_locator().set_params(integer=True)
    if right.get_legend_handles_labels()[0]:  # not before the first epoch's end
        right.legend()
    figure.suptitle(
        title.encode(errors="replace").decode(), fontsize=10, parse_math=False
    )  # it may be the name of any folder
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    write_atomically(path, buffer.getbuffer(), sync_folder=False)  # it can be drawn again


def _steps_per_epoch(rows: Sequence[Mapping[str, Any]]) -> float:
    """Exact if a whole epoch has ended, else from where training ended within the first one."""
    step, found = 0, 0.0
    for row in rows:
        if row["event"] == "step":
            step = row["step"]
        elif row["event"] == "epoch" and row["epoch"] > 0:
            found = step / row["epoch"]
            if row["epoch"] == 1:
                break
    return found or max(step, 1)
