"""`scripts/benchmark.py`, run as a user does, on the two frameworks that need NumPy alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import benchmark
import numpy as np
import pytest
from benchmarking import measuring, peers, report

import tinygrad_mnist as tg

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(*options: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TINYGRAD_MNIST_DATA"}
    command = [sys.executable, SCRIPTS / "benchmark.py", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_a_comparison_is_printed_stored_and_drawn(tmp_path: Path) -> None:
    names = "tinygrad_mnist,layered-numpy,mygrad"
    done = run("--peers", names, "--quick", "--repeat", 1, "--batch-sizes", 20, "--threads", 1, "--out", tmp_path)
    assert (
        "training step, batches of 20" in done.stdout
        and "not measured: process start to 99 % test accuracy" in done.stdout
    )
    stored = json.loads((tmp_path / "benchmark.json").read_text())
    assert stored["versions"]["tinygrad_mnist"] == tg.__version__ and stored["machine"]["cpu"]
    ours, layered = stored["results"]["tinygrad_mnist"], stored["results"]["layered-numpy"]
    assert ours.keys() == {"step 20", "inference", "chain", "memory 20", "import"} and layered.keys() == {
        "step 20",
        "inference",
        "memory 20",
    }
    assert tg.native.description() in done.stdout and stored["machine"]["native kernels"] == tg.native.description()
    assert all(len(samples) == 1 for samples in ours.values())
    assert all(value > 0 for what, samples in ours.items() if what != "import" for value in samples)
    line = next(line for line in done.stdout.splitlines() if line.startswith("  layered-numpy"))
    assert line.split()[-2] == f"{median(layered['step 20']) / median(ours['step 20']):.2f}"
    if "mygrad" not in stored["results"]:
        assert stored["versions"]["mygrad"] is None and "mygrad: not installed" in done.stdout
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_one_of_ours_does_without_kernels() -> None:
    environment = {**os.environ, **peers.PEERS["tinygrad_mnist-numpy"].environment(1)}
    code = "from tinygrad_mnist.kernels import compiled as native; print(native.LIBRARY)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=SCRIPTS.parent
    )
    assert done.stdout == "None\n"


def test_unknown_peers_and_bad_numbers_are_refused(tmp_path: Path) -> None:
    assert (
        "unknown are caffe; known are tinygrad_mnist"
        in run("--peers", "tinygrad_mnist,caffe", "--out", tmp_path / "no", code=2).stderr
    )
    assert "SYNTHETIC" in run("--data", "synthetic", "--out", tmp_path / "no", code=2).stderr
    assert "not a folder" in run("--data", tmp_path / "nowhere", "--out", tmp_path / "no", code=2).stderr
    assert "at least 1" in run("--repeat", -1, "--out", tmp_path / "no", code=2).stderr
    assert not (tmp_path / "no").exists()


def test_a_peer_that_fails_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    workers = {size: partial(measuring.Worker, "training", "tinygrad_mnist", 1, 5, 0, size) for size in (30, 28)}
    with measuring.start_workers(workers) as running:
        assert list(running) == [28]
    assert "30 does not run here: ValueError: DeepConvNet: images have shape" in capsys.readouterr().err


class NothingDropped:
    """A generator by which dropout keeps everything."""

    def random(self, shape: Any, dtype: Any) -> Any:
        return np.ones(shape, dtype)


@pytest.mark.parametrize("name", ["tinygrad_mnist", "tinygrad_mnist-loop"])
def test_ours_and_the_layered_one_take_the_same_step_from_the_same_weights(name: str) -> None:
    images, labels = tg.data.synthetic_digits(60, rng=np.random.default_rng(0))
    layered, ours = peers.Layered(1, 0), peers.PEERS[name](1, 0)
    for array, tensor in zip(layered.weights, ours.weights.values(), strict=True):
        tensor.data = array.copy()
    for layer in ours.model.layers:
        if isinstance(layer, tg.nn.Dropout):
            layer.p = 0.0
    layered.rng = NothingDropped()
    assert ours.step(images, labels) == pytest.approx(layered.step(images, labels), rel=1e-5)
    # AdaGrad's first step is 0.01 long whatever the gradient: where that is not lost in rounding, both go the same way
    moved = [abs(a - t.data) < 1e-3 for a, t in zip(layered.weights, ours.weights.values(), strict=True)]
    assert np.mean(np.concatenate([m.ravel() for m in moved])) > 0.99
    assert ours.step(images, labels) == pytest.approx(layered.step(images, labels), rel=1e-2)
    assert all(w.dtype == np.float32 for w in layered.weights)


def test_training_to_the_goal_ends_there_or_at_the_limit(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(measuring, "TARGET", 0.3)
    args = benchmark.parse_arguments(["--batch-sizes", "50", "--threads", "1", "--seeds", "2", "--limit", "100"])
    few = [
        *tg.data.synthetic_digits(400, np.random.default_rng(0)),
        *tg.data.synthetic_digits(100, np.random.default_rng(1)),
    ]
    results = {"tinygrad_mnist": {"step 50": [10.0], "step 500": [50.0]}, "layered-numpy": {"step 50": [1e9]}}
    measuring.measure_training(results, few, args)
    ours = results["tinygrad_mnist"]
    assert len(ours["accuracy"]) == 2 and all(0 < seconds < 100 for seconds in ours["accuracy"])
    assert all(epochs % 0.5 == 0 for epochs in ours["epochs"])
    assert (
        results["layered-numpy"] == {"step 50": [1e9]}
        and "not trained to 30%: layered-numpy" in capsys.readouterr().err
    )
    monkeypatch.setattr(measuring, "TARGET", 1.01)
    args.limit, args.batch_sizes, args.seeds = 0.5, [500], 1  # a batch of more than there are
    measuring.measure_training(results, few, args)
    assert ours["accuracy"][2] == measuring.NOT_REACHED and "not in time" in report.format_table(results)


@pytest.mark.slow
def test_growth_is_measured_for_every_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "AXES", {"batch size": (4, 8), "convolutions": (1, 2), "image width": (6, 12)})
    rows = measuring.measure_growth(
        ["tinygrad_mnist"], benchmark.parse_arguments(["--growth", "--quick", "--repeat", "1", "--threads", "1"])
    )
    assert [(row["axis"], row["value"]) for row in rows] == [
        (axis, value) for axis, values in measuring.AXES.items() for value in values
    ]
    assert all(row["ms"][0] > 0 and row["MiB"] > 10 for row in rows)


def test_growth_is_summed_up_by_its_exponent(tmp_path: Path) -> None:
    rows = [
        {"axis": "batch size", "value": n, "system": "tinygrad_mnist", "ms": [2.0 * n, 2.0 * n], "MiB": 100.0}
        for n in (10, 100, 1000)
    ]
    assert "from 100 on, time grows with exponent 1.00, memory with 0.00" in report.format_growth(rows).replace(
        "-0.00", "0.00"
    )
    report.plot_growth(rows, tmp_path / "growth.png", "title")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
