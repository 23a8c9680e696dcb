"""Training by the same recipe in several frameworks: from the start to the end of a process."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .measuring import SCRIPTS, WORKER, Results, show_status
from .peers import PEERS, Peer

RECIPE = "fast"


def measure_by_recipe(results: Results, rates: list[float], mnist: Any, args: argparse.Namespace) -> None:
    """Add to `results` the seconds from the start to the end of a process that trains by the recipe, and its accuracy.

    For every seed all frameworks take turns, in an order that changes. Those that would take longer than the limit are
    left out. The rate of NumPy's matrix products before each of these rounds, in GFLOP/s, is added to `rates`.
    """
    recipe, filters = describe_recipe(mnist)
    names = affordable(results, recipe["settings"]["epochs"] * len(mnist.images), args)
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder) / "mnist.npz", Path(folder) / "recipe.json"
        np.savez(data, filters=filters, **dict(list(mnist._asdict().items())[:4]))
        for seed in range(args.seeds):
            show_status(f"matrix products, seed {seed}")
            rates.append(run_worker(Peer.environment(args.threads), "sgemm")[0])
            recipe["settings"]["seed"] = seed
            file.write_text(json.dumps(recipe), encoding="utf-8")
            first = seed % max(len(names), 1)
            for name in names[first:] + names[:first]:
                show_status(f"training {name} by the recipe {RECIPE}, seed {seed}")
                environment = PEERS[name].environment(args.threads)
                try:
                    accuracy, seconds = run_worker(environment, "train", name, args.threads, data, file)
                except RuntimeError as error:
                    print(f"{name} failed in training by the recipe {RECIPE}: {error}", file=sys.stderr)
                    continue
                results[name].setdefault("recipe", []).append(seconds)
                results[name].setdefault("accuracy", []).append(accuracy)


def affordable(results: Results, images: float, args: argparse.Namespace) -> list[str]:
    """Return the frameworks that can train on so many images in the time limit, by their time for the largest batch."""
    size, names = args.batch_sizes[-1], []
    for name, result in results.items():
        if PEERS[name].by_recipe and f"step {size}" in result:
            seconds = median(result[f"step {size}"]) / 1000 * images / size
            if seconds <= args.limit:
                names.append(name)
            else:
                limit = f"about {seconds:.0f} s of steps, the limit is {args.limit:g} s"
                print(f"{name} is not trained by the recipe {RECIPE}: {limit}", file=sys.stderr)
    return names


def describe_recipe(mnist: Any) -> tuple[dict[str, Any], Any]:
    """Return the recipe as frameworks get it, see `Peer.train`, and the filters of the first convolution."""
    from training.build import make_trainer
    from training.settings import Settings

    settings = Settings.from_recipe(RECIPE)
    trainer = make_trainer(settings, mnist)
    steps = round(settings.epochs * len(trainer.cuts))
    assert trainer.schedule is not None
    recipe = {
        "settings": asdict(settings),
        "rates": [trainer.lr * trainer.schedule(step, steps) for step in range(steps)],
        "fresh": [1 - min(settings.average or 0.0, (step + 1) / (step + 10)) for step in range(steps)],
    }
    return recipe, trainer.model.layers[0].weight.data


def run_worker(environment: Mapping[str, str], *arguments: Any) -> tuple[Any, float]:
    """Run a worker; return its answer, and the seconds from its start to its end.

    Raises
    ------
    RuntimeError
        If it fails, with the last line of its errors.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [*WORKER, *map(str, arguments)]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**inherited, **environment}, cwd=SCRIPTS)
    seconds = time.perf_counter() - begin
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout), seconds
