#!/usr/bin/env python
"""Compare the recipes of train_mnist.py: seconds from the start of a process to its end, and test accuracy.

Every run is `train_mnist.py --recipe NAME --seed N`, in a process of its own. The recipes take turns, so that a machine
whose speed drifts is the same for all. Options behind -- are passed on to every run. With the folder of an earlier
comparison, runs are added to those that it holds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, installed or not
from training.settings import RECIPES

from tinygrad_mnist.train.runs import read_metrics

SCRIPT = Path(__file__).with_name("train_mnist.py")
COLORS = {"paper": "#7570b3", "fast": "#d95f02", "short": "#1b9e77", "best": "#e7298a"}

Result = dict[str, Any]  # recipe, seed, seconds, accuracy, data


def train(recipe: str, seed: int, folder: Path, options: Sequence[str]) -> Result:
    """Train in a process of its own; a run that fails raises RuntimeError."""
    out = folder / f"{recipe}-{seed}"
    command = [sys.executable, str(SCRIPT), "--recipe", recipe, "--seed", str(seed), "--out", str(out), *options]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{recipe}, seed {seed}: {(done.stderr.splitlines() or ['no message'])[-1]}")
    test = read_metrics(out / "metrics.jsonl")[-1]
    found = {"seconds": round(seconds, 2), "accuracy": test["test_accuracy"], "data": test["data"]}
    return {"recipe": recipe, "seed": seed, **found}


def by_recipe(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Group results, in the order in which recipes first occur."""
    names = dict.fromkeys(result["recipe"] for result in results)
    return {name: [result for result in results if result["recipe"] == name] for name in names}


def format_table(results: Sequence[Result]) -> str:
    """Format a table in Markdown: median seconds, mean and spread of the accuracy in percent."""
    lines = ["| recipe | seconds | test accuracy, % | standard deviation | least, most |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, runs in by_recipe(results).items():
        percent = [100 * run["accuracy"] for run in runs]
        spread = f"{stdev(percent):.3f}" if len(runs) > 1 else ""
        seconds = median(run["seconds"] for run in runs)
        lines.append(
            f"| {name} | {seconds:.1f} | {mean(percent):.3f} | {spread} | {min(percent):.2f}, {max(percent):.2f} |"
        )
    return "\n".join(lines)


def plot(results: Sequence[Result], path: Path, title: str) -> None:
    """Draw the accuracy of every run against its seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, runs in by_recipe(results).items():
        seconds, percent = [run["seconds"] for run in runs], [100 * run["accuracy"] for run in runs]
        color = COLORS.get(name)
        axes.plot(seconds, percent, "o", color=color, alpha=0.5)
        label = f"{name}: {mean(percent):.2f} % in {median(seconds):.3g} s"
        axes.plot(median(seconds), mean(percent), "_", color=color, markersize=28, markeredgewidth=2, label=label)
    axes.set(xscale="log", xlabel="seconds from process start to exit", ylabel="test accuracy (%)", title=title)
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if axes.get_xlim()[0] < t < axes.get_xlim()[1]]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Train, print the table, and write results.json and recipes.png."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = given[given.index("--") + 1 :] if "--" in given else []
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each recipe (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder (default: runs/recipes-DATE-TIME)")
    args = parser.parse_args(given[: len(given) - len(options) - 1] if "--" in given else given)
    folder = args.out or Path("runs") / datetime.now().strftime("recipes-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "results.json"
    results: list[Result] = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else []
    known = {(result["recipe"], result["seed"]) for result in results}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for recipe in [name for name in args.recipes if (name, seed) not in known]:
            try:
                results.append(train(recipe, seed, folder, options))
            except RuntimeError as error:
                print(f"compare_recipes.py: {error}", file=sys.stderr)
                return 1
            found = results[-1]
            print(f"{recipe}, seed {seed}: {found['accuracy']:.4f} in {found['seconds']:.1f} s", flush=True)
            stored.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results.sort(key=lambda result: (list(RECIPES).index(result["recipe"]), result["seed"]))
    print(format_table(results))
    data = " and ".join(sorted({result["data"] for result in results}))
    plot(results, folder / "recipes.png", f"the 21 layers on {data}: a dot for each run, a line at the mean")
    print(f"results: {folder}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: results.json holds the runs that have ended", file=sys.stderr)
        sys.exit(130)
