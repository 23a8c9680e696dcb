"""Tables and pictures of the measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .by_recipe import RECIPE
from .measuring import OURS, Results
from .peers import PEERS

TARGET = 0.99  # test accuracy
METRICS = {  # measurement: title, unit, format
    "step": ("training step", "ms", "{:.1f}"),
    "inference": ("inference, 1,000 images", "ms", "{:.1f}"),
    "chain": ("small op, forward and backward", "µs", "{:.2f}"),
    "import": ("import, above numpy's", "s", "{:.3f}"),
    "memory": ("peak memory of training", "MiB", "{:.0f}"),
    "recipe": (f"process start to exit, recipe {RECIPE}, {TARGET:.0%}", "s", "{:.1f}"),
}
COLORS = {OURS: "#d95f02", f"{OURS}-loop": "#e6853b", f"{OURS}-numpy": "#f4a259"}
OTHER_COLOR = "#7f9fbf"
NOTE = "* reduced precision"


def measurements(results: Results) -> list[str]:
    """Return what was measured, in the order of METRICS; a batch size is the second word: "step 500"."""
    found = dict.fromkeys(what for result in results.values() for what, samples in result.items() if samples)
    known = [what for what in found if what.split()[0] in METRICS]
    return sorted(known, key=lambda what: list(METRICS).index(what.split()[0]))


def describe(what: str) -> tuple[str, str, str]:
    """Return title, unit and format of a measurement."""
    name, _, batch_size = what.partition(" ")
    title, unit, form = METRICS[name]
    return f"{title}, batches of {batch_size}" if batch_size else title, unit, form


def marked(name: str) -> str:
    """Return the name of a framework, with a star if it computes in reduced precision."""
    return f"{name} *" if PEERS[name].reduced else name


def format_samples(samples: Sequence[float], form: str) -> str:
    """Format median, minimum and maximum."""
    values = (median(samples), min(samples), max(samples))
    middle, least, most = map(form.format, values)
    return f"{middle} [{least}, {most}]"


def format_accuracies(accuracies: Sequence[float]) -> str:
    """Format the test accuracy of each seed, and say which of them miss the target."""
    return ", ".join(f"{value:.2%}{'' if value >= TARGET else ' (not reached)'}" for value in accuracies)


def format_table(results: Results, rates: Sequence[float] = ()) -> str:
    """Format median, minimum, maximum and the ratio to our median: a line for each framework and measurement.

    `rates` are those of matrix products while frameworks were trained by the recipe, in GFLOP/s.
    """
    lines = []
    for what in measurements(results):
        title, unit, form = describe(what)
        rows = {name: result[what] for name, result in results.items() if result.get(what)}
        beside = f"; sgemm: {median(rates):.0f} GFLOP/s" if what == "recipe" and rates else ""
        lines.append(f"{title} ({unit}){beside}")
        for name, samples in sorted(rows.items(), key=lambda row: median(row[1])):
            line = f"  {marked(name):<23} {format_samples(samples, form):>30} "
            if OURS in rows and median(rows[OURS]) > 0:
                line += f"{median(samples) / median(rows[OURS]):8.2f} x"
            if what == "recipe":
                line += f"   test accuracy {format_accuracies(results[name]['accuracy'])}"
            lines.append(line)
    return "\n".join(lines + [NOTE] * any(PEERS[name].reduced for name in results))


def format_growth(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format time and memory along each axis, and the exponent of their growth over its upper half."""
    lines = []
    for axis, system in dict.fromkeys((row["axis"], row["system"]) for row in rows):
        mine = [row for row in rows if (row["axis"], row["system"]) == (axis, system)]
        steps = ", ".join(f"{row['value']}: {median(row['ms']):.1f} ms {row['MiB']:.0f} MiB" for row in mine)
        lines.append(f"{system}, {axis}: {steps}")
        upper = mine[len(mine) // 2 :]
        values = np.log([row["value"] for row in upper])
        time, memory = np.log([median(row["ms"]) for row in upper]), np.log([row["MiB"] for row in upper])
        exponents = [float(np.polyfit(values, logs, 1)[0]) for logs in (time, memory)]
        growth = f"time grows with exponent {exponents[0]:.2f}, memory with {exponents[1]:.2f}"
        lines.append(f"  from {upper[0]['value']} on, {growth}")
    return "\n".join(lines)


def plot_comparison(results: Results, path: Path, title: str) -> None:
    """Draw bars for each measurement, on a logarithmic axis where they differ by more than a factor of 5."""
    from matplotlib.figure import Figure

    def medians(what: str) -> list[tuple[float, str]]:
        return sorted(
            ((median(result[what]), name) for name, result in results.items() if result.get(what)), reverse=True
        )

    shown = [what for what in measurements(results) if what != "import"]
    figure = Figure(figsize=(11, 1 + 1.4 * len(shown)), layout="constrained")
    panels = figure.subplots((len(shown) + 1) // 2, 2, squeeze=False).flat
    for what, panel in zip(shown, panels, strict=False):
        metric, unit, form = describe(what)
        values, names = zip(*medians(what), strict=True)
        bars = panel.barh(
            [marked(name) for name in names], values, color=[COLORS.get(name, OTHER_COLOR) for name in names]
        )
        panel.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
        panel.set_title(f"{metric} ({unit})")
        if max(values) > 5 * min(values):
            panel.set(xscale="log", xlim=(min(values) / 3, max(values) * 4))
        else:
            panel.set_xlim(0, max(values) * 1.2)
        use_plain_numbers(panel.xaxis)
        panel.tick_params(labelsize=8)
    for panel in panels:  # the unused ones
        panel.axis("off")
    if any(PEERS[name].reduced for name in results):
        figure.supxlabel(NOTE, fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=90)


def plot_growth(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw time and memory along each axis, on logarithmic scales."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, len(axes), squeeze=False)
    for axis, (upper, lower) in zip(axes, panels.T, strict=True):
        for system in dict.fromkeys(row["system"] for row in rows if row["axis"] == axis):
            mine = [row for row in rows if (row["axis"], row["system"]) == (axis, system)]
            values = [row["value"] for row in mine]
            style: dict[str, Any] = {"marker": "o", "label": system, "color": COLORS.get(system)}
            upper.loglog(values, [median(row["ms"]) for row in mine], **style)
            lower.loglog(values, [row["MiB"] for row in mine], **style)
        upper.set(title=axis, ylabel="training step (ms)")
        lower.set(xlabel=axis, ylabel="peak memory (MiB)")
        upper.legend(fontsize=8)
        for panel in (upper, lower):
            panel.set_xticks(sorted({row["value"] for row in rows if row["axis"] == axis}))
            use_plain_numbers(panel.xaxis)
            use_plain_numbers(panel.yaxis)
            panel.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=90)


def use_plain_numbers(axis: Any) -> None:
    """Label the major ticks alone, with 1000 instead of a power of 10."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
