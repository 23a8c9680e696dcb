"""The gallery: conv2d, forward and backward, over shapes that are common in networks."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .convolutions import CONVOLUTIONS, Case, largest_error
from .measuring import OURS, Worker, measure_in_turns, start_workers
from .report import COLORS, NOTE, OTHER_COLOR, use_plain_numbers

Row = Mapping[str, Any]  # shape, case; "ms": framework -> one value for each round; "errors": framework -> error
CASES = (
    Case(8, 3, 112, 112, 64, 7, stride=2, padding=3),
    Case(1, 3, 224, 224, 32, 3, stride=2, padding=1),
    Case(500, 1, 28, 28, 16, 3),
    Case(128, 1, 28, 28, 6, 5, padding=2),
    Case(128, 6, 14, 14, 16, 5),
    Case(500, 16, 26, 26, 16, 3),
    Case(1, 16, 256, 256, 16, 3, padding=1),
    Case(32, 32, 14, 14, 64, 5, padding=2),
    Case(64, 64, 32, 32, 64, 3, padding=1),
    Case(64, 64, 32, 32, 128, 3, stride=2, padding=1),
    Case(64, 64, 32, 32, 128, 1, stride=2),
    Case(32, 128, 16, 16, 128, 3, padding=1),
    Case(64, 128, 16, 16, 128, 1),
    Case(64, 128, 16, 16, 256, 1),
    Case(16, 256, 8, 8, 256, 3, padding=1),
)
TOLERANCE, REDUCED_TOLERANCE = 1e-3, 1e-1  # of the largest element; other work is off by more; the latter for bfloat16
PYTORCH = ("pytorch", "pytorch-channels-last")  # the better of them is what the others are compared with
MUCH = 1.2  # times as long as PyTorch


def choose_cases(wanted: str | None) -> list[Case]:
    """Return the shapes that have one of the words in `wanted`, separated by commas: ``1x1,3x3/2,64x64x32x32``."""
    words = [] if wanted is None else wanted.split(",")
    found = [
        case
        for case in CASES
        if wanted is None
        or any(re.search(rf"(?<!\S){re.escape(word)}(?![\w])", str(case).replace("×", "x")) for word in words)
    ]
    if not found:
        known = "; ".join(str(case).replace("×", "x") for case in CASES)
        raise ValueError(f"--shapes: no shape has a word of {wanted}; known are {known}")
    return found


def measure_gallery(names: Sequence[str], cases: Sequence[Case], args: argparse.Namespace) -> list[Row]:
    """Measure each shape in turns, in new processes. A framework that fails, or whose results differ, is left out."""
    rows: list[Row] = []
    for case in cases:
        starts = {name: partial(Worker, "convolution", name, args.threads, *case) for name in names}
        with start_workers(starts, "convolution") as workers:
            errors = check_results(workers, case)
            agreed = {name: worker for name, worker in workers.items() if name in errors}
            times = measure_in_turns(agreed, "convolution", args)
        rows.append({"shape": str(case), "case": case._asdict(), "ms": times, "errors": errors})
    return rows


def check_results(workers: Mapping[str, Worker], case: Case) -> dict[str, float]:
    """Return the largest relative error of each framework that computes what all should compute, and name the others.

    The error is that of output or gradients to a float64 computation by hand.
    """
    exact, errors = case.exact(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            file = Path(folder) / "results.npz"
            worker.request("results", str(file))
            with np.load(file) as arrays:
                error = largest_error([*arrays.values()], exact)
            if error <= (REDUCED_TOLERANCE if CONVOLUTIONS[name].reduced else TOLERANCE):
                errors[name] = error
            else:  # NaN, too
                print(f"{name} is left out for {case}: its results are off by {error:.1e}", file=sys.stderr)
    return errors


def compare_with_pytorch(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the ratio of medians to the better float32 PyTorch: framework -> shape -> ratio."""
    ratios: dict[str, dict[str, float]] = {}
    for row in rows:
        times = {name: median(samples) for name, samples in row["ms"].items()}
        peers = [times[name] for name in PYTORCH if name in times]
        for name, ms in times.items() if peers else ():
            ratios.setdefault(name, {})[row["shape"]] = ms / min(peers)
    return ratios


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return median and worst ratio to the better PyTorch, and the shapes where it is above `MUCH`, by framework."""
    return {
        name: {
            "median": median(ratios.values()),
            "worst": max(ratios.values()),
            "worst shape": max(ratios, key=ratios.__getitem__),
            "above": [shape for shape, ratio in ratios.items() if ratio > MUCH],
            "shapes": len(ratios),
        }
        for name, ratios in compare_with_pytorch(rows).items()
        if name not in PYTORCH
    }


def format_gallery(rows: Sequence[Row]) -> str:
    """Format the medians and the ratios of ours to the better PyTorch, a line for each shape, and a summary."""
    names = [name for name in CONVOLUTIONS if any(name in row["ms"] for row in rows)]
    ratios = compare_with_pytorch(rows)
    compared = [name for name in names if name.startswith(OURS) and name in ratios]
    titles = [CONVOLUTIONS[name].title for name in names]
    titles += [f"{CONVOLUTIONS[name].title}, ratio" for name in compared] + ["error"]
    table = [["conv2d, forward and backward (ms)", *titles]]
    for row in rows:
        shape, errors = row["shape"], row["errors"]
        cells = [f"{median(row['ms'][name]):.2f}" if name in row["ms"] else "" for name in names]
        cells += [f"{ratios[name][shape]:.2f}" if shape in ratios[name] else "" for name in compared]
        error = max((errors[name] for name in errors if not CONVOLUTIONS[name].reduced), default=None)
        table.append([shape, *cells, "" if error is None else f"{error:.0e}"])
    widths = [max(len(title), 7) for title in titles]
    lines = ["  ".join([f"{line[0]:<35}", *map(str.rjust, line[1:], widths)]) for line in table]
    for name, about in summarize(rows).items():
        summary = f"median {about['median']:.2f}, worst {about['worst']:.2f} ({about['worst shape']})"
        slow = f"above {MUCH}: {len(about['above'])} of {about['shapes']} shapes"
        lines.append(f"{CONVOLUTIONS[name].title} / better PyTorch: {summary}; {slow}")
    lines.append("ratio: time / that of the better PyTorch, eager or channels last, in float32")
    lines.append("error: the largest in float32, relative to the largest element of its array")
    return "\n".join(lines + [NOTE] * any(CONVOLUTIONS[name].reduced for name in names))


def plot_gallery(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw the ratio of every framework to the better PyTorch, a row of marks for each shape."""
    from matplotlib.figure import Figure

    ratios, shapes = compare_with_pytorch(rows), [row["shape"] for row in rows]
    figure = Figure(figsize=(11, 1.2 + 0.36 * len(shapes)), layout="constrained")
    panel = figure.subplots()
    for place, line in ((1, "-"), (MUCH, ":")):
        panel.axvline(place, color="black", linewidth=0.8, linestyle=line)
    marks = dict(zip(CONVOLUTIONS, "oosDdP", strict=True))
    for name, found in ratios.items():
        kind, color = CONVOLUTIONS[name], COLORS.get(name, OTHER_COLOR)
        style = {"marker": marks[name], "edgecolors": color, "facecolors": "none" if kind.reduced else color}
        places = [shapes.index(shape) for shape in found]
        panel.scatter([*found.values()], places, 70 if name == OURS else 35, **style, zorder=2, label=kind.title)
    panel.set_yticks(range(len(shapes)), shapes)
    panel.set_xscale("log", base=2)
    panel.set_xlabel("forward and backward: time / that of the better PyTorch")
    panel.invert_yaxis()
    panel.grid(alpha=0.3)
    use_plain_numbers(panel.xaxis)
    figure.legend(loc="outside right upper", title=NOTE)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=90)
