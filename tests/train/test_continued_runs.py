"""Runs that are given more epochs, and runs that begin with saved weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from survival import call, ended, flat, result, start

import tinygrad_mnist as tg
from tinygrad_mnist.storage import files
from tinygrad_mnist.storage.checkpoint import load_weights, save_weights
from tinygrad_mnist.train.plots import plot_curves
from tinygrad_mnist.train.runs import Run, read_metrics

SMALL = [
    "--limit",
    "150",
    "--batch-size",
    "50",
    "--validation",
    "50",
    "--depth",
    "4",
    "--seed",
    "5",
]  # 2 steps an epoch
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


class Killed(BaseException):
    """In place of a kill."""


@pytest.fixture
def train(script: Any, folder: Path) -> Any:
    """Call the script, up to a step if one is given."""

    def train(out: Path, *options: Any, resume: bool = False, at: int | None = None) -> Any:
        own = ["--resume", out] if resume else ["--data", folder, *SMALL, "--out", out]
        return call(script, *own, *options, at=at)

    return train


def at_last(out: Path) -> dict[str, Any]:
    """What two runs must have in common, without the tests at an earlier end."""
    found = result(out)
    lines = found["metrics"].splitlines()
    found["metrics"] = [line for line in lines[:-1] if b'"event": "test"' not in line] + lines[-1:]
    return found


def epochs(out: Path) -> int:
    return json.loads((out / "config.json").read_text())["epochs"]


# More epochs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "more",
    [
        ["--average", "0.9", "--optimizer", "adam"],
        *(pytest.param(more, marks=pytest.mark.slow) for more in ([], ["--augment"], ["--patience", "3"])),
    ],
    ids=str,
)
def test_a_run_that_has_ended_goes_on_as_if_it_had_been_begun_with_more_epochs(
    train: Any, tmp_path: Path, capsys: Any, more: list[str]
) -> None:
    assert train(tmp_path / "whole", "--epochs", 3, *more) == 0
    out = tmp_path / "run"
    assert train(out, "--epochs", 1, *more) == 0
    early = read_metrics(out / "metrics.jsonl")
    assert train(out, "--epochs", 2, resume=True, at=3) == 128 + signal.SIGINT
    error = capsys.readouterr().err
    assert "the run has 2 epochs from now on, not 1" in error and "learning rate" not in error
    assert epochs(out) == 2 and read_metrics(out / "metrics.jsonl")[: len(early)] == early
    assert train(out, "--epochs", 3, resume=True, at=5) == 128 + signal.SIGINT
    assert train(out, resume=True) == 0, "it knows by itself"
    assert at_last(out) == at_last(tmp_path / "whole") and epochs(out) == 3
    tests = [row for row in read_metrics(out / "metrics.jsonl") if row["event"] == "test"]
    assert len(tests) == 2 and tests[0] == early[-1]
    capsys.readouterr()
    assert train(out, resume=True) == 0 and "this run is complete" in capsys.readouterr().out
    assert len(read_metrics(out / "metrics.jsonl")) == 3 * 3 + 2
    plot_curves(Run.resume(out).rows, tmp_path / "curves.png", "two tests")


@pytest.mark.parametrize("kind, at, told", [("cosine", 2, True), ("step", 1, False)])
def test_what_a_schedule_changes_is_said(
    train: Any, tmp_path: Path, capsys: Any, kind: str, at: int, told: bool
) -> None:
    out = tmp_path / "run"
    assert train(out, "--epochs", 2, "--schedule", kind, at=at) == 128 + signal.SIGINT
    assert train(out, "--epochs", 3, resume=True) == 0
    words = "the learning rate follows its schedule over 3 epochs from now on"
    assert (words in capsys.readouterr().err) == told
    rates = [row["lr"] for row in read_metrics(out / "metrics.jsonl") if row["event"] == "step"]
    schedule = {"cosine": tg.schedules.cosine, "step": tg.schedules.step_decay}[kind]
    assert rates == [0.01 * schedule(step, 4 if step < at else 6) for step in range(6)]


def test_a_run_may_also_end_earlier_but_not_before_what_is_done(train: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert train(out, "--epochs", 4, at=3) == 128 + signal.SIGINT
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    capsys.readouterr()
    assert train(out, "--epochs", 1, resume=True) == 2
    error = capsys.readouterr().err
    assert "--epochs 1 is too few: the run has done 3 steps, 1.5 epochs; pass more" in error
    assert error.count("\n") == 1 and {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert train(out, "--epochs", 5, "--lr", "0.5", resume=True) == 2
    assert "--lr cannot be changed on the way" in capsys.readouterr().err and epochs(out) == 4
    assert train(out, "--epochs", 2, resume=True) == 0
    rows = read_metrics(out / "metrics.jsonl")
    assert rows[-1]["event"] == "test" and rows[-2]["epoch"] == epochs(out) == 2
    assert train(out, "--epochs", "0.5", resume=True) == 2
    assert "--epochs 0.5 is too few: the run has done 4 steps, 2 epochs; pass that or more" in capsys.readouterr().err


def test_a_run_may_end_within_an_epoch_and_go_on_from_there(train: Any, tmp_path: Path, capsys: Any) -> None:
    """An epoch has 3 steps."""
    how = ["--limit", 200, "--average", "0.9"]
    assert train(tmp_path / "whole", "--epochs", 2, *how) == 0
    out = tmp_path / "run"
    assert train(out, "--epochs", "0.4", *how) == 0
    assert train(out, "--epochs", "0.6", resume=True, at=2) == 128 + signal.SIGINT, "at the end, before the test"
    assert train(out, resume=True) == 0
    shown = capsys.readouterr().out
    assert "(weights of epoch 0.4, " in shown and "(weights of epoch 0.6, " in shown and "stopped early" not in shown
    assert epochs(out) == 0.6 and train(out, resume=True) == 0
    assert "this run is complete\n" in capsys.readouterr().out
    for fewer in ("0.3", "0.4"):
        assert train(out, "--epochs", fewer, resume=True) == 2
        error = capsys.readouterr().err
        assert f"--epochs {fewer} is too few: the run has done 2 steps, 0.666667 epochs; pass that or more" in error
    assert train(out, "--epochs", "1.7", resume=True, at=4) == 128 + signal.SIGINT
    assert "the run has 1.7 epochs from now on, not 0.6" in capsys.readouterr().err
    assert train(out, "--epochs", "1.4", resume=True) == 2, "at that step, but not measured there"
    assert "the run has done 4 steps, 1.33333 epochs; pass more" in capsys.readouterr().err
    assert train(out, "--epochs", "2.0", resume=True) == 0 and '"epochs": 2,' in (out / "config.json").read_text()
    once, whole = (read_metrics(folder / "metrics.jsonl") for folder in (out, tmp_path / "whole"))
    assert [row for row in once[:-1] if row["event"] != "test" and row.get("epoch") not in (0.4, 0.6)] == whole[:-1]
    assert [row["epoch"] for row in once if row["event"] == "epoch"] == [0.4, 0.6, 1, 2]


def test_patience_ends_a_run_before_its_last_part(train: Any, tmp_path: Path, capsys: Any) -> None:
    assert train(tmp_path / "run", "--epochs", "2.5", "--patience", 1, "--lr", 0) == 0
    assert "stopped early, after epoch 2)" in capsys.readouterr().out
    assert train(tmp_path / "run", resume=True) == 0
    assert "this run is complete: it stopped early, after epoch 2\n" in capsys.readouterr().out


def test_killed_anywhere_on_the_way_it_can_be_resumed(
    train: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write has four steps: checkpoint, config.json, metrics.jsonl, times.jsonl, then checkpoints again."""
    assert train(tmp_path / "whole", "--epochs", 2) == 0
    assert train(tmp_path / "ended", "--epochs", 1) == 0
    for point in (2, 4, 5, 18):
        out = shutil.copytree(tmp_path / "ended", tmp_path / str(point))
        count = 0

        def reached(step: str) -> None:
            nonlocal count
            count += 1
            if count == point:  # noqa: B023  # called in this turn only
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(files, "_reached", reached)
            train(out, "--epochs", 2, "--checkpoint-every", 1, resume=True)
        assert train(out, resume=True) == 0  # as it was, or on the way to the new end
        rows = read_metrics(out / "metrics.jsonl")
        known = max(row["epoch"] for row in rows if row["event"] == "epoch")
        assert known == epochs(out) == (1 if point < 4 else 2) and rows[-1]["event"] == "test"
        if known == 2:
            assert at_last(out) == at_last(tmp_path / "whole")


@posix
@pytest.mark.slow
def test_really_killed_anywhere_on_the_way(folder: Path, tmp_path: Path) -> None:
    new = ["--data", folder, *SMALL]
    assert ended(start(*new, "--epochs", 6, "--out", tmp_path / "whole"))[0] == 0
    out, rng = tmp_path / "run", np.random.default_rng()
    assert ended(start(*new, "--epochs", 1, "--out", out))[0] == 0
    for goal in (2, 4, 6):
        for _ in range(5):
            write = int(rng.integers(1, 30)), 0.0
            code, output = ended(start("--resume", out, "--epochs", goal, "--checkpoint-every", 1, write=write))
            assert code in (0, -signal.SIGKILL), output
        assert ended(start("--resume", out, "--epochs", goal))[0] == 0 and epochs(out) == goal
    assert at_last(out) == at_last(tmp_path / "whole")


def test_a_trainer_with_more_epochs_goes_on_beyond_the_end() -> None:
    def trainer(epochs: Any) -> tg.training.Trainer:
        rng = np.random.default_rng(0)
        images, labels = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 3, 30)
        model = tg.nn.Linear(4, 3, rng=rng)
        optimizer = tg.optim.Adam(tg.nn.parameters(model))
        monitor = {"validation": (images, labels)}
        return tg.training.Trainer(
            model, optimizer, images, labels, epochs=epochs, batch_size=20, rng=rng, monitor=monitor
        )

    whole, first, second = trainer(5), trainer(2), trainer(np.int64(5))
    list(whole.steps()), list(first.steps())
    second.load_state_dict(first.state_dict())
    list(second.steps())
    assert flat(second.state_dict()) == flat(whole.state_dict())


# Saved weights --------------------------------------------------------------------------------------------------------
def test_a_run_begins_with_saved_weights_and_goes_on_without_the_file(train: Any, tmp_path: Path, capsys: Any) -> None:
    assert train(tmp_path / "first", "--epochs", 1) == 0
    weights = tmp_path / "weights.npz"
    save_weights(weights, load_weights(tmp_path / "first" / "weights.safetensors"))
    how = ["--epochs", 2, "--weights", weights]
    assert train(tmp_path / "whole", *how) == 0
    random, begun = (read_metrics(tmp_path / name / "metrics.jsonl")[0]["loss"] for name in ("first", "whole"))
    assert random != begun
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["weights"] == str(weights) and len(config["weights sha256"]) == 64
    assert train(tmp_path / "run", *how, at=3) == 128 + signal.SIGINT
    weights.rename(tmp_path / "elsewhere.npz")
    assert train(tmp_path / "run", resume=True) == 0
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_stopped_before_the_first_checkpoint_it_needs_the_same_file_again(
    train: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "first", "--epochs", 1) == 0
    weights = tmp_path / "first" / "weights.safetensors"
    out, how = tmp_path / "run", ["--epochs", 1, "--weights", weights]
    assert train(tmp_path / "whole", *how) == 0

    def killed(*arguments: Any, **state: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "save", killed)
        train(out, *how)
    good = weights.read_bytes()
    for content, words in (
        (None, "does not exist"),
        (b"other", "is not the file of weights that the run was begun with"),
    ):
        weights.unlink()
        if content is not None:
            weights.write_bytes(content)
        capsys.readouterr()
        assert train(out, resume=True) == 2 and words in capsys.readouterr().err
        weights.write_bytes(good)
    assert train(out, resume=True) == 0
    assert result(out) == result(tmp_path / "whole")


def test_weights_that_do_not_fit_are_refused_before_a_folder_is_made(train: Any, tmp_path: Path, capsys: Any) -> None:
    model = tg.nn.Linear(3, 2)
    save_weights(tmp_path / "other.npz", tg.nn.parameters(model))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
    for name, words in (
        ("other.npz", "does not fit the model"),
        ("damaged.npz", "is damaged"),
        ("none.npz", "does not exist"),
        (".", "is not a file"),
        *([("pipe.npz", "is not a file")] if hasattr(os, "mkfifo") else []),  # reading one would never end
    ):
        assert train(tmp_path / "run", "--weights", tmp_path / name) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not (tmp_path / "run").exists()
    assert train(tmp_path / "run", "--weights", tmp_path / "other.npz", resume=True) == 2
    assert "leave out --weights" in capsys.readouterr().err
