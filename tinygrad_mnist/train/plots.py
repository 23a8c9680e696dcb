"""Pictures of a training run (Matplotlib, from the ``train`` extra)."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..storage.files import write_atomically

__all__ = ["plot_curves"]

# of a figure, in inches; Matplotlib finds them itself with layout="constrained", which takes as long as drawing
WIDTH, HEIGHT, COLUMNS = 5.0, 4.0, 3  # of a panel; panels side by side
LEFT, RIGHT, BOTTOM, TOP = 0.75, 0.15, 0.52, 0.56
STYLES = {"train": ("#d95f02", "s"), "validation": ("#1b9e77", "o"), "test": ("#7570b3", "^")}
OTHERS = ("#e7298a", "#66a61e", "#e6ab02", "#a6761d")  # for other names

Rows = Sequence[Mapping[str, Any]]
Curves = dict[str, list[tuple[float, float]]]  # name to epochs and values


def plot_curves(rows: Rows, path: str | os.PathLike[str], title: str = "", *, loss: str = "loss") -> None:
    """Draw the loss of every step, and mean loss and what is measured of every epoch, into a PNG.

    The mean loss stands at the middle of the steps that it is of, also where training ended within an epoch. Accuracy
    has a panel, and so has each metric of your own. Without an accuracy, losses that are measured stand beside the mean
    loss of training.

    Parameters
    ----------
    rows : sequence of dict
        `Trainer.history`, or the lines of ``metrics.jsonl``, as `tinygrad_mnist.runs.read_metrics` returns them, with
        the loss of every step.
    path : str or PathLike
    title : str
    loss : str
        What the loss is, and its unit, such as ``"cross-entropy (nats)"``.

    Raises
    ------
    ImportError
        If Matplotlib is not installed (``pip install 'tinygrad_mnist[train]'``).
    TypeError
        If `rows` are something else.

    Examples
    --------
    >>> rows = [{"epoch": e, "mean_loss": 1 / e, "validation_loss": 2 / e, "validation_error": 3 / e} for e in (1, 2)]
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_curves(rows, pathlib.Path(folder, "curves.png"), "an example")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_curves: drawing needs Matplotlib; install it with pip install 'tinygrad_mnist[train]'"
        ) from error
    listed = rows if isinstance(rows, Sequence) else [rows]
    if wrong := [row for row in listed if not isinstance(row, Mapping) or not {"event", "epoch"} & row.keys()]:
        words = "pass trainer.history, or what runs.read_metrics returns"
        raise TypeError(f"plot_curves: {wrong[0]!r} is no row of a history; {words}")
    epochs = [row for row in rows if row.get("event", "epoch") == "epoch"]
    tests = [row for row in rows if row.get("event") == "test"]
    curves = _curves(epochs)
    accuracy, losses = curves.pop("accuracy", {}), curves.pop("loss", {})
    panels = 1 + bool(accuracy or tests) + len(curves)
    down, across = -(-panels // COLUMNS), min(panels, COLUMNS)
    figure = Figure(figsize=(across * WIDTH, down * HEIGHT))
    margins = {"left": LEFT / WIDTH / across, "right": 1 - RIGHT / WIDTH / across, "wspace": 0.18}
    margins |= {"bottom": BOTTOM / HEIGHT / down, "top": 1 - TOP / HEIGHT / down, "hspace": 0.3}
    axes = figure.subplots(down, across, squeeze=False, gridspec_kw=margins).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    left, *rest = axes[:panels]
    _draw_losses(left, rows, epochs, {} if accuracy or tests else losses, loss)
    if accuracy or tests:
        _draw_accuracy(rest.pop(0), accuracy, tests)
    for axis, (kind, lines) in zip(rest, curves.items(), strict=True):
        _draw_lines(axis, lines)
        axis.set(title=kind, xlabel="epoch")
    for axis in (left, *axes[1:panels]):
        if axis.get_legend_handles_labels()[0]:  # not before the first epoch's end
            axis.legend()
        if axis is not left:
            axis.grid(alpha=0.3)
            if epochs and epochs[-1]["epoch"] >= 2:  # else whole numbers may be too few
                axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(
        title.encode(errors="replace").decode(), fontsize=10, parse_math=False
    )  # it may be the name of any folder
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    write_atomically(path, buffer.getbuffer(), sync_folder=False)  # it can be drawn again


def _curves(epochs: Rows) -> dict[str, Curves]:
    """Return what is measured, by kind: accuracy, loss and metrics of one's own."""
    ends = ("_loss", "_accuracy")
    keys = {key: None for row in epochs for key in row if key != "mean_loss"}
    names = {key.removesuffix(end): None for key in keys for end in ends if key.endswith(end)}
    found: dict[str, Curves] = {}
    for name in sorted(names, key=lambda name: [*STYLES, name].index(name)):
        for key in [key for key in keys if key.startswith(f"{name}_")]:
            points = [(row["epoch"], row[key]) for row in epochs if key in row]
            found.setdefault(key.removeprefix(f"{name}_"), {})[name] = points
            del keys[key]
    return found


def _draw_lines(axis: Any, curves: Curves, factor: float = 1, words: str = "") -> None:
    for number, (name, points) in enumerate(curves.items()):
        color, marker = STYLES.get(name, (OTHERS[number % len(OTHERS)], "D"))
        x, y = [epoch for epoch, _ in points], [factor * value for _, value in points]
        axis.plot(x, y, color=color, marker=marker, label=f"{name}{words}")


def _draw_losses(axis: Any, rows: Rows, epochs: Rows, measured: Curves, label: str) -> None:
    steps = [row for row in rows if row.get("event") == "step"]
    if steps:
        per_epoch = _steps_per_epoch(rows)
        x, y = [r["step"] / per_epoch for r in steps], [r["loss"] for r in steps]
        axis.plot(x, y, color="#9ecae1", linewidth=0.8, label="each step")
    trained = [row for row in epochs if "mean_loss" in row]  # not epoch 0, the untrained network
    middles = [(math.ceil(r["epoch"]) - 1 + r["epoch"]) / 2 for r in trained]
    axis.plot(middles, [r["mean_loss"] for r in trained], color="#08519c", marker="o", label="mean of an epoch")
    _draw_lines(axis, measured, words=", after an epoch")
    axis.set(title="Loss" if measured else "Training loss", xlabel="epoch", ylabel=label)
    if all(value >= 0 for line in axis.lines for value in line.get_ydata()):
        axis.set(ylim=(0, None))


def _draw_accuracy(axis: Any, curves: Curves, tests: Rows) -> None:
    _draw_lines(axis, curves, factor=100)
    for row in tests:  # several, if a run that had ended was given more epochs
        percent, last = 100 * row["test_accuracy"], row is tests[-1]
        label = f"test, at the end: {percent:.2f} %" if last else f"test, at an earlier end: {percent:.2f} %"
        axis.axhline(percent, color="#555555" if last else "#bbbbbb", linestyle="--", label=label)
    axis.set(title="Accuracy", xlabel="epoch", ylabel="correct (%)")


def _steps_per_epoch(rows: Sequence[Mapping[str, Any]]) -> float:
    """Exact if a whole epoch has ended, else from where training ended within the first one."""
    step, found = 0, 0.0
    for row in rows:
        if row.get("event") == "step":
            step = row["step"]
        elif row.get("event") == "epoch" and row["epoch"] > 0:
            found = step / row["epoch"]
            if row["epoch"] == 1:
                break
    return found or max(step, 1)
