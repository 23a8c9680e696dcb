#!/usr/bin/env python
"""Train the models of models/, each in a process of its own, and write the table and the pictures of models/README.md.

With names of models behind it, it trains those, prints their rows and writes no table. With --weights runs it keeps the
trained weights of the classifiers of digits in a folder for each, as those of runs, for predict.py and draw.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works from any folder, installed or not
import tinygrad_mnist as tg
from models import maml, physics_informed, vae

FOLDER = ROOT / "models"
CLASSIFIERS = ["lenet", "resnet", "vision_transformer"]  # of digits
NAMES = [*CLASSIFIERS, "char_lstm", "vae", "logistic_newton", "maml", "physics_informed"]


def row(name: str, folder: Path | None = None) -> str:
    """Run a model, and return its row of the table: what it shows, its lines, seconds, result.

    The weights of a classifier of digits are kept in a folder of its name, in the folder that is given.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", f"models.{name}"]
    if folder is not None and name in CLASSIFIERS:
        own = folder.absolute() / name
        own.mkdir(parents=True, exist_ok=True)
        command += ["--weights", str(own / "weights.safetensors")]
    printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds = time.perf_counter() - started
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    shows = source.split('"""')[1].partition("\n\n")[0]
    result = re.sub(r" \(MNIST.*\)", "", printed.splitlines()[0].partition("; it ")[0])
    return f"| [`{name}.py`]({name}.py) | {shows} | {len(source.splitlines())} | {seconds:.0f} | {result} |"


def write_table(rows: list[str]) -> None:
    """Replace the rows of the table in models/README.md."""
    page = FOLDER / "README.md"
    text = page.read_text(encoding="utf-8")
    found = re.sub(r"(\| ---: \| --- \|\n)(\|.*\n)*", lambda m: m[1] + "".join(f"{line}\n" for line in rows), text)
    page.write_text(found, encoding="utf-8")


def draw(path: Path) -> None:
    """Draw what three of the models have learned."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    digits, sinusoids, oscillator = figure.subplots(1, 3)
    model = vae.train(tg.data.find_mnist().images)
    codes = np.random.default_rng(2).standard_normal((50, vae.LATENT), np.float32)
    pixels = tg.sigmoid(model.draw(codes)).data.reshape(5, 10, 28, 28)
    digits.imshow(pixels.swapaxes(1, 2).reshape(5 * 28, 10 * 28), cmap="gray_r")
    digits.set(title="vae.py: digits that it draws", xticks=[], yticks=[])

    draw_sinusoid(sinusoids)
    sinusoids.set(title="maml.py: one step on ten points", xlabel="x")
    times = np.linspace(0, physics_informed.END, 200)[:, None]
    fit = physics_informed.train(60, np.random.default_rng(0))
    oscillator.plot(times, physics_informed.exact(times), color="#bbbbbb", linewidth=5, label="closed form")
    oscillator.plot(times, fit(times), color="#d95f02", label="network, trained by the equation")
    oscillator.set(title="physics_informed.py: a damped oscillator", xlabel="seconds")
    oscillator.legend()
    figure.savefig(path, dpi=100)


def draw_sinusoid(axes: Any) -> None:
    """Draw a new sinusoid, the ten points of it, and the network before and after a step on them."""
    model, shared = maml.train(2000, np.random.default_rng(0))
    x, y, *others = maml.sinusoids(np.random.default_rng(1))
    grid = np.broadcast_to(np.linspace(-5, 5, 200, dtype=np.float32)[:, None], (maml.TASKS, 200, 1))
    before = {name: np.broadcast_to(p.data, (maml.TASKS, *p.shape[1:])) for name, p in shared.items()}
    after = maml.adapted(model, shared, x, y)
    for params, label, color in ((before, "before", "#9ecae1"), (after, "after", "#08519c")):
        axes.plot(grid[0], tg.func.functional_call(model, params, grid).data[0], label=label, color=color)
    everything = np.concatenate([x[0], others[0][0]]), np.concatenate([y[0], others[1][0]])
    axes.plot(*everything, ".", color="#bbbbbb", label="the sinusoid")
    axes.plot(x[0], y[0], "o", color="#d95f02", label="the ten points")
    axes.legend()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MODEL", help=f"train these alone: {', '.join(NAMES)}")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="keep weights as DIR/MODEL/weights.safetensors")
    chosen = parser.parse_args(argv)
    if unknown := [name for name in chosen.names if name not in NAMES]:
        parser.error(f"{unknown[0]} is not a model; name some of {', '.join(NAMES)}")
    rows = []
    for name in chosen.names or NAMES:
        rows.append(row(name, chosen.weights))
        print(rows[-1], flush=True)
    if not chosen.names:
        write_table(rows)
        draw(FOLDER / "models.png")


if __name__ == "__main__":
    main()
