"""`scripts/compare_recipes.py`, run as a user does, on a few images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import compare_recipes
import pytest

RESULTS: list[dict[str, Any]] = [
    {"recipe": recipe, "seed": seed, "seconds": seconds, "accuracy": accuracy, "data": "MNIST"}
    for seed, (first, second) in enumerate([(0.991, 0.9975), (0.9925, 0.9965), (0.989, 0.997)])
    for recipe, seconds, accuracy in (("fast", 3.0 + seed, first), ("best", 400.0 - seed, second))
]


def test_recipes_take_turns_and_are_summed_up(folder: Path, tmp_path: Path) -> None:
    out, small = tmp_path / "out", ["--", "--epochs", "1", "--data", folder, "--quiet", "--no-plots"]
    command = [sys.executable, compare_recipes.__file__, "--recipes", "paper", "best", "--seeds", "1", "--out", out]
    done = subprocess.run([*command, *small], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    stored = json.loads((out / "results.json").read_text())
    assert [(run["recipe"], run["seed"]) for run in stored] == [("paper", 0), ("best", 0)]
    assert all(0 < run["accuracy"] < 1 and run["seconds"] > 0 for run in stored)
    for run in stored:
        config = json.loads((out / f"{run['recipe']}-0" / "config.json").read_text())
        assert (config["recipe"], config["epochs"], config["seed"]) == (run["recipe"], 1, 0)
    assert compare_recipes.format_table(stored) in done.stdout
    assert (out / "recipes.png").read_bytes().startswith(b"\x89PNG") and os.listdir(tmp_path) == ["out"]


def test_a_run_that_fails_ends_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--recipes", "paper", "--out", str(tmp_path / "out"), "--", "--data", str(tmp_path / "nowhere")]
    assert compare_recipes.main(argv) == 1
    assert "compare_recipes.py: paper, seed 0: train_mnist.py: " in capsys.readouterr().err


def test_the_table_has_medians_means_and_spreads() -> None:
    lines = compare_recipes.format_table(RESULTS).splitlines()
    assert lines[2:] == [
        "| fast | 4.0 | 99.083 | 0.176 | 98.90, 99.25 |",
        "| best | 399.0 | 99.700 | 0.050 | 99.65, 99.75 |",
    ]


def test_the_picture_is_drawn_for_one_run_and_for_many(tmp_path: Path) -> None:
    for count in (1, len(RESULTS)):
        compare_recipes.plot(RESULTS[:count], tmp_path / "recipes.png", "title")
        assert (tmp_path / "recipes.png").read_bytes().startswith(b"\x89PNG")
