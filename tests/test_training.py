"""The training loop and `scripts/train_mnist.py`, run as a user would, on a small folder of IDX files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP
from tinygrad_mnist.checkpoint import load_weights
from tinygrad_mnist.training import accuracy, fit, hold_out

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_mnist.py"


def rows(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_a_run_from_any_folder_leaves_everything_that_is_promised(folder, tmp_path):
    command = [sys.executable, SCRIPT, "--data", folder, "--epochs", "2", "--batch-size", "50", "--validation", "100", "--seed", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs").iterdir()
    assert "DATA OF THE SHAPE OF MNIST, not MNIST itself" in done.stdout
    assert "images/s" in done.stderr and "loss=" in done.stderr, "the progress bar"
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["lr"], config["epochs"], config["depth"], config["init"]) == (3, 0.01, 2, 6, "he")
    steps, epochs, tests = rows(out, "step"), rows(out, "epoch"), rows(out, "test")
    assert [s["step"] for s in steps] == list(range(1, 21)) and [s["epoch"] for s in steps] == [1] * 10 + [2] * 10
    for epoch in epochs:
        assert epoch["mean_loss"] == pytest.approx(np.mean([s["loss"] for s in steps if s["epoch"] == epoch["epoch"]]))
        assert f"epoch {epoch['epoch']}/2  loss {epoch['mean_loss']:.4f}" in done.stdout
    assert tests[0]["images"] == 200 and f"test accuracy {tests[0]['test_accuracy']:.4f}" in done.stdout
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    model = DeepConvNet()
    tg.nn.load_parameters(model, load_weights(out / "weights.safetensors"))
    data = tg.data.find_mnist(folder)
    assert accuracy(model, data.test_images, data.test_labels) == tests[0]["test_accuracy"]


def test_a_profile_of_some_steps_is_shown_and_stored_and_changes_nothing(script, folder, tmp_path, capsys):
    options = ["--data", str(folder), "--epochs", "1", "--batch-size", "50", "--validation", "0", "--no-plots", "--threads", "2"]
    assert script.main([*options, "--profile", "3", "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    table = (tmp_path / "a" / "profile.txt").read_text()
    assert "profile of 3 steps, each:\n" + table in shown
    (calls,) = [row.split()[1] for row in table.splitlines() if row.startswith("conv_output")]
    assert calls == "6"
    trace = json.loads((tmp_path / "a" / "trace.json").read_text())["traceEvents"]
    assert sum(e["name"] == "conv_output" and e["cat"] == "forward" for e in trace) == 3 * 6
    assert script.main([*options, "--profile", "100", "--out", str(tmp_path / "b")]) == 0
    assert "profile of 7 steps" in capsys.readouterr().out and "conv_output" in (tmp_path / "b" / "profile.txt").read_text()
    assert script.main([*options, "--limit", "250", "--profile", "--out", str(tmp_path / "c")]) == 0
    assert "no profile" in capsys.readouterr().err and not (tmp_path / "c" / "profile.txt").exists()
    first, second = (load_weights(tmp_path / name / "weights.safetensors") for name in "ab")
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_seed_decides_and_threads_do_not(script, folder, tmp_path):
    def weights(name, *options):
        options = ("--data", str(folder), "--epochs", "1", "--batch-size", "120", "--validation", "0", "--no-plots", "--quiet", *options)
        assert script.main([*options, "--out", str(tmp_path / name)]) == 0
        return load_weights(tmp_path / name / "weights.safetensors")

    first, again, other = weights("a", "--threads", "1"), weights("b", "--threads", "3"), weights("c", "--seed", "1")
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--epochs", "0"], "at least 1"),
        (["--epochs", "many"], "whole number"),
        (["--batch-size", "0"], "at least 1"),
        (["--lr", "nan"], "finite"),
        (["--lr", "-1"], "at least 0"),
        (["--data", "no/such/folder"], "not a folder"),
        (["--validation", "600"], "nothing of 600 images"),
        (["--depth", "7"], "choose from"),
        (["--optimizer", "adamax"], "choose from"),
    ],
)
def test_bad_arguments_end_with_one_line_and_code_2(script, folder, tmp_path, capsys, options, words):
    try:
        code = script.main(["--data", str(folder), "--out", str(tmp_path / "out"), *options])
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    assert code == 2 and words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists(), "a run that did not begin must leave nothing"


def test_a_folder_in_use_is_not_written_to(script, folder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert script.main(["--data", str(folder), "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("module, option", [("tqdm", "--quiet"), ("matplotlib", "--no-plots")])
def test_a_missing_extra_is_named_before_training(script, folder, tmp_path, capsys, monkeypatch, module, option):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    assert script.main(["--data", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "tinygrad_mnist[train]" in error and option in error


def test_synthetic_data_is_announced_and_every_metric_says_so(script, tmp_path, capsys, monkeypatch):
    few = [*tg.data.synthetic_digits(200), *tg.data.synthetic_digits(100, np.random.default_rng(1))]
    data = tg.data.Dataset(*few, source="SYNTHETIC DIGITS, not MNIST (no network)", synthetic=True)
    monkeypatch.setattr(tg.data, "find_mnist", lambda path: data)
    assert script.main(["--epochs", "1", "--batch-size", "100", "--validation", "0", "--no-plots", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("!!!!!!!!") and "! SYNTHETIC DIGITS, not MNIST !!!!!!!!" in shown[0] and "(no network)" in shown[0]
    measured = [line for line in shown if "accuracy" in line or "loss" in line]
    assert len(measured) == 2 and all("[SYNTHETIC DIGITS]" in line for line in measured)
    assert {json.loads(line)["data"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()} == {"synthetic"}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that this run is about
def test_a_run_that_diverges_says_so_and_fails(script, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert script.main(["--data", str(folder), "--lr", "1e30", "--batch-size", "50", "--threads", "1", "--quiet", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "the loss is" in error and "smaller --lr" in error
    assert all(np.isfinite(row["loss"]) for row in rows(out, "step")) and not (out / "weights.safetensors").exists()


def test_a_run_folder_that_is_a_file_is_refused(script, folder, tmp_path, capsys):
    (tmp_path / "notes").write_text("precious")
    assert script.main(["--data", str(folder), "--out", str(tmp_path / "notes")]) == 2
    assert "is a file" in capsys.readouterr().err and (tmp_path / "notes").read_text() == "precious"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_hold_out_partitions_and_keeps_the_classes_proportions(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(0, len(labels) - 1))
    training, held = hold_out(labels, count, np.random.default_rng(data.draw(st.integers(0, 9))))
    assert len(held) == count and np.array_equal(np.sort(np.concatenate([training, held])), np.arange(len(labels)))
    for digit in range(4):
        assert abs(np.sum(labels[held] == digit) - count * np.mean(labels == digit)) <= 1


def test_hold_out_must_leave_something():
    with pytest.raises(ValueError, match="at least one must remain"):
        hold_out(np.zeros(3), 3, np.random.default_rng(0))


def test_fit_lowers_the_loss_and_its_steps_tell_the_truth():
    images, labels = tg.data.synthetic_digits(300)
    model = MLP(np.random.default_rng(0))
    weights = tg.nn.parameters(model)
    before = {name: p.data for name, p in weights.items()}
    steps = list(fit(model, tg.optim.Adam(weights), images, labels, epochs=8, batch_size=128, rng=np.random.default_rng(1)))
    assert [tuple(s[:2]) for s in steps[:4]] == [(1, 1), (1, 2), (1, 3), (2, 4)]
    assert [tuple(s[3:5]) for s in steps[:4]] == [(128, False), (128, False), (44, True), (128, False)]
    assert all(s.lr == 0.001 for s in steps)
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert accuracy(model, images, labels) > 0.6
    tg.nn.load_parameters(model, before)
    again = list(fit(model, tg.optim.Adam(weights), images, labels, epochs=8, batch_size=128, rng=np.random.default_rng(1)))
    assert again == steps
