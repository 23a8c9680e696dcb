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
LINE = 0.18  # of each further line of a title
STYLES = {"train": ("#d95f02", "s"), "validation": ("#1b9e77", "o"), "test": ("#7570b3", "^")}
OTHERS = ("#e7298a", "#66a61e", "#e6ab02", "#a6761d")  # for other names

Rows = Sequence[Mapping[str, Any]]
Curves = dict[str, list[tuple[float, float]]]  # name to epochs and values


def plot_curves(
    rows: Rows, path: str | os.PathLike[str], title: str = "", *, loss: str = "loss", note: str = ""
) -> None:
    """Draw the loss of every step, and mean loss and what is measured of every epoch, into a PNG.

    The mean loss stands at the middle of the steps that it is of, also where training ended within an epoch. Losses
    that are measured stand beside it; they are those of inference, and not on the same level where training drops
    units, smooths labels or distorts images. Accuracy has a panel, and so has each metric of your own.

    The axis of the losses is logarithmic where all are above 0 and the largest is more than 3 times the smallest: so
    the first steps leave room for the others. Else it is linear, and shows the losses that there are, not 0.

    Parameters
    ----------
    rows : sequence of dict
        `Trainer.history`, or the lines of ``metrics.jsonl``, as `tinygrad_mnist.runs.read_metrics` returns them, with
        the loss of every step.
    path : str or PathLike
    title : str
        May have several lines.
    loss : str
        What the loss is, and its unit, such as ``"cross-entropy (nats)"``.
    note : str
        What stands above the legend of the losses, such as what makes those in training higher.

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
    make_figure = figure_class("plot_curves")
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
    top = TOP + LINE * title.count("\n")
    height = down * HEIGHT + top - TOP
    figure = make_figure(figsize=(across * WIDTH, height))
    margins = {"left": LEFT / WIDTH / across, "right": 1 - RIGHT / WIDTH / across, "wspace": 0.18}
    margins |= {"bottom": BOTTOM / height, "top": 1 - top / height, "hspace": 0.3}
    axes = figure.subplots(down, across, squeeze=False, gridspec_kw=margins).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    left, *rest = axes[:panels]
    for axis in rest:
        axis.sharex(left)  # the same epochs below each other, also of a single one
    _draw_losses(left, rows, epochs, losses, loss)
    if accuracy or tests:
        _draw_accuracy(rest.pop(0), accuracy, tests)
    for axis, (kind, lines) in zip(rest, curves.items(), strict=True):
        _draw_lines(axis, lines)
        axis.set(title=kind, xlabel="epoch")
    for axis in axes[:panels]:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:  # not before the first epoch's end
            axis.legend(title=note if axis is left else None, fontsize="small", title_fontsize="small")
    if epochs and epochs[-1]["epoch"] >= 2:  # else whole numbers may be too few
        left.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path, title)


def figure_class(caller: str) -> Any:
    """Matplotlib's `Figure`, or an ImportError that says how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        words = "install it with pip install 'tinygrad_mnist[train]'"
        raise ImportError(f"{caller}: drawing needs Matplotlib; {words}") from error
    return Figure


def save_figure(figure: Any, path: str | os.PathLike[str], title: str) -> None:
    """Write a figure with its title, which may be the name of any folder, as PNG."""
    figure.suptitle(title.encode(errors="replace").decode(), fontsize=10, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png", pil_kwargs={"compress_level": 1})  # in a third of the time
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
        axis.plot(x, y, color="#9ecae1", linewidth=0.8, label="each step, in training")
    trained = [row for row in epochs if "mean_loss" in row]  # not epoch 0, the untrained network
    middles = [(math.ceil(r["epoch"]) - 1 + r["epoch"]) / 2 for r in trained]
    means = [r["mean_loss"] for r in trained]
    axis.plot(middles, means, color="#08519c", marker="o", label="mean of an epoch, in training")
    _draw_lines(axis, measured, words=", in inference")
    axis.set(title="Loss", xlabel="epoch", ylabel=label)
    values = [value for line in axis.lines for value in line.get_ydata()]
    least, most = min(values, default=0), max(values, default=0)
    if 0 < 3 * least < most:
        axis.set_yscale("log", subs=(1.5, 2, 3, 4, 5, 7) if most < 10 * least else (2, 5))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}" if most < 1000 * least else "")  # powers of ten are enough then


def _draw_accuracy(axis: Any, curves: Curves, tests: Rows) -> None:
    _draw_lines(axis, curves, factor=100)
    for row in tests:  # several, if a run that had ended was given more epochs
        percent, last = 100 * row["test_accuracy"], row is tests[-1]
        label = f"test, at the end: {percent:.2f} %" if last else f"test, at an earlier end: {percent:.2f} %"
        axis.axhline(percent, color="#555555" if last else "#bbbbbb", linestyle="--", label=label)
    values = [value for line in axis.lines for value in line.get_ydata()]
    margin = max(0.1, 0.05 * (max(values) - min(values)))
    axis.set_ylim(min(values) - margin, min(max(values) + margin, 100 + margin / 4))  # room for a marker at 100 %
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
