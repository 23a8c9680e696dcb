"""`scripts/benchmark.py`, run as a user would, on the two systems that need nothing but NumPy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(*options: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TINYGRAD_MNIST_DATA"}
    command = [sys.executable, SCRIPTS / "benchmark.py", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    import peers

    return peers


def test_a_comparison_is_printed_stored_and_drawn(tmp_path: Path) -> None:
    names = "tinygrad_mnist,layered-numpy,mygrad"
    done = run("--peers", names, "--quick", "--repeat", 2, "--batch-size", 20, "--threads", 1, "--out", tmp_path)
    assert "1 threads; batch 20" in done.stdout and "not measured: process start to 99 % test accuracy" in done.stdout
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert report["versions"]["tinygrad_mnist"] == tg.__version__ and report["machine"]["cpu"]
    ours, layered = report["results"]["tinygrad_mnist"], report["results"]["layered-numpy"]
    assert ours.keys() == {"step", "inference", "chain", "memory", "import"} and layered.keys() == {"step", "inference", "memory"}
    assert all(len(samples) == (1 if what == "memory" else 2) for what, samples in ours.items())
    assert all(value > 0 for what, samples in ours.items() if what != "import" for value in samples)
    line = next(line for line in done.stdout.splitlines() if line.startswith("  layered-numpy"))
    assert line.split()[-2] == f"{median(layered['step']) / median(ours['step']):.2f}"
    if "mygrad" not in report["results"]:
        assert report["versions"]["mygrad"] is None and "mygrad: not installed" in done.stdout
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_peers_and_bad_numbers_are_refused(tmp_path: Path) -> None:
    assert "unknown are caffe; known are tinygrad_mnist" in run("--peers", "tinygrad_mnist,caffe", "--out", tmp_path / "no", code=2).stderr
    assert "at least 1" in run("--repeat", -1, "--out", tmp_path / "no", code=2).stderr
    assert not (tmp_path / "no").exists()


def test_a_peer_that_fails_is_left_out(tmp_path: Path, peers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import benchmark

    workers = {size: partial(benchmark.Worker, "tinygrad_mnist", 1, 5, size=size) for size in (30, 28)}
    with benchmark.working(workers) as running:
        assert list(running) == [28]
    assert "30 does not run here: ValueError: DeepConvNet: images have shape" in capsys.readouterr().err


def test_ours_and_the_layered_one_learn_from_the_same_weights_alike(peers: Any) -> None:
    images, labels = tg.data.synthetic_digits(60, rng=np.random.default_rng(0))
    layered, ours = peers.Layered(1, 0), peers.Ours(1, 0)
    for array, tensor in zip(layered.weights, ours.weights.values(), strict=True):
        tensor.data = array.copy()
    np.testing.assert_array_equal(ours.predict(images), layered.predict(images))
    first = layered.step(images, labels)
    for _ in range(30):
        last = layered.step(images, labels)
    assert last < first - 0.3, "the layers hold the arrays that are trained"
    assert all(w.dtype == np.float32 for w in layered.weights)


def test_growth_is_summed_up_by_its_exponent(peers: Any, tmp_path: Path) -> None:
    import benchmark

    rows = [{"axis": "batch size", "value": n, "system": "tinygrad_mnist", "ms": [2.0 * n, 2.0 * n], "MiB": 100.0} for n in (10, 100, 1000)]
    assert "from 100 on, time grows by its power 1.00, memory by 0.00" in benchmark.exponents(rows).replace("-0.00", "0.00")
    benchmark.draw_growth(rows, tmp_path / "growth.png", "title")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
