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
from benchmarking import by_recipe, measuring, peers, report
from benchmarking.peers.base import he_weights
from training import build
from training.settings import RECIPES, Settings

import tinygrad_mnist as tg

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(*options: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TINYGRAD_MNIST_DATA"}
    command = [sys.executable, SCRIPTS / "benchmark.py", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_a_comparison_is_printed_stored_and_drawn(tmp_path: Path) -> None:
    names = "tinygrad_mnist,layered-numpy,mygrad"
    done = run("--peers", names, "--quick", "--repeat", 1, "--batch-sizes", 20, "--threads", 1, "--out", tmp_path)
    assert (
        "training step, batches of 20" in done.stdout
        and "not measured: process start to exit, recipe fast" in done.stdout
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


@pytest.fixture(scope="module")
def few() -> tg.data.Dataset:
    train, test = (tg.data.synthetic_digits(n, np.random.default_rng(n)) for n in (640, 200))
    return tg.data.Dataset(*train, *test, "synthetic digits", True)


FIXED = {
    "optimizer": "muon",
    "freeze_first": True,
    "dropout": 0,
    "logit_dropout": 0,
    "validation": 0,
}  # what all frameworks do
FOLLOWED = {"epochs", "batch_size", "lr", "momentum", "betas", "weight_decay", "schedule", "warmup", "label_smoothing"}


def test_every_framework_can_follow_the_recipe() -> None:
    recipe = RECIPES[by_recipe.RECIPE]
    assert {name: recipe.get(name) for name in FIXED} == FIXED and recipe["whiten"] > 0
    added = recipe.keys() - FIXED.keys() - FOLLOWED - {"whiten", "average", "rescale"}
    assert not added, f"teach the classes in scripts/benchmarking/peers what the recipe asks for: {added}"


@pytest.mark.long
@pytest.mark.parametrize("name", ["pytorch", "pytorch-channels-last", "pytorch-bfloat16", "tensorflow"])
@pytest.mark.filterwarnings("default")  # of other frameworks
def test_every_framework_takes_the_same_steps_by_the_recipe(
    few: tg.data.Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip(peers.PEERS[name].package)
    gentle = {"epochs": 2, "lr": 0.005}  # at the recipe's own rate ten steps amplify rounding by ten thousand
    monkeypatch.setitem(RECIPES, by_recipe.RECIPE, {**RECIPES[by_recipe.RECIPE], **gentle})
    recipe, filters = by_recipe.describe_recipe(few)
    weights = [filters, *he_weights(np.random.default_rng(0))[1:]]
    trainer = build.make_trainer(Settings.from_config(recipe["settings"]), few, 1)
    tg.nn.load_state_dict(trainer.model, dict(zip(tg.nn.state_dict(trainer.model), weights, strict=True)))
    learner = peers.PEERS[name].learner(weights, recipe["settings"], 1)
    steps, losses = trainer.steps(), []
    for number, (lr, fresh) in enumerate(zip(recipe["rates"], recipe["fresh"], strict=True)):
        if number % 5 == 0:
            trainer.order = np.random.default_rng(number).permutation(640)
        order = trainer.order
        assert order is not None
        batch = order[number % 5 * 128 :][:128]
        own = next(steps)
        assert own.lr == pytest.approx(lr)
        losses.append((own.loss, learner.step(few.images[batch], few.labels[batch].astype(np.int64), lr, fresh)))
    ours, theirs = np.transpose(losses)
    at_first, later = (3e-2, 0.1) if peers.PEERS[name].reduced else (1e-3, 5e-3)
    np.testing.assert_allclose(theirs[:5], ours[:5], atol=at_first)
    np.testing.assert_allclose(theirs, ours, atol=later)  # rounding changes what ReLU and max-pooling let pass
    assert len(ours) == 10 and ours[-1] < ours[0] / 1.1  # it learns
    learner.take_average()
    tg.nn.load_state_dict(trainer.model, trainer.selected())
    difference = learner.logits(few.test_images) - trainer.model(few.test_images).data
    assert np.mean(abs(difference)) < 2 * later


@pytest.mark.long
def test_training_by_the_recipe_is_timed_and_its_accuracy_shown(
    few: tg.data.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    args = benchmark.parse_arguments(["--batch-sizes", "50", "--threads", "1", "--seeds", "1", "--limit", "100"])
    steps = {"tinygrad_mnist": 10.0, "tinygrad_mnist-loop": 10.0, "tinygrad_mnist-numpy": 1e9, "jax": 10.0}
    results = {name: {"step 50": [milliseconds]} for name, milliseconds in steps.items()}
    rates: list[float] = []
    by_recipe.measure_by_recipe(results, rates, few, args)
    assert len(rates) == 1 and rates[0] > 0.1
    ours = results["tinygrad_mnist"]
    assert 0 < ours["recipe"][0] < 100 and 0.1 < ours["accuracy"][0] <= 1
    assert "tinygrad_mnist-numpy is not trained by the recipe fast: about" in capsys.readouterr().err
    assert all(result.keys() == {"step 50"} for name, result in results.items() if name != "tinygrad_mnist")


def test_seeds_that_miss_the_accuracy_are_marked() -> None:
    results = {"tinygrad_mnist": {"recipe": [4.0, 5.0, 6.0], "accuracy": [0.99, 0.9899, 0.9912]}}
    head, row = report.format_table(results, [200.0, 240.0, 260.0]).splitlines()
    assert head == "process start to exit, recipe fast, 99% (s); sgemm: 240 GFLOP/s"
    assert row.split("5.0 [4.0, 6.0]")[1].split() == (
        "1.00 x test accuracy 99.00%, 98.99% (not reached), 99.12%".split()
    )


def test_a_worker_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'caffe'"):
        by_recipe.run_worker({}, "training", "caffe", 1, 2, 0, 28)


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
