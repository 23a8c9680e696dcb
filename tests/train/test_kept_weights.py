"""Weights that are kept of every epoch, and what the files of a run say about themselves."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from survival import call, ended, killed_until_done, start
from trained import choose, weights_of_epochs

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.storage.checkpoint import CheckpointError, load_metadata, load_weights, save_weights
from tinygrad_mnist.train import Callback, Checkpoint, KeepWeights, Record, Trainer, callbacks
from tinygrad_mnist.train.runs import Run, read_metrics

SMALL = "--limit 150 --batch-size 50 --validation 50 --depth 4 --seed 5 --dropout 0.25".split()  # 2 steps an epoch
KEEP = ["--keep-weights", "epoch"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def trainer(epochs: float = 2, norm: bool = True, **how: Any) -> Trainer:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    model = tg.nn.Sequential(tg.nn.Linear(4, 3, rng=rng), *([tg.nn.BatchNorm1d(3)] if norm else []))
    optimizer = tg.optim.Adam(tg.nn.parameters(model), lr=0.02)
    monitor = {"validation": (x, labels)}
    return Trainer(model, optimizer, x, labels, epochs=epochs, batch_size=20, rng=rng, monitor=monitor, **how)


def kept(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("weights*"))}


# The callback ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("average", [None, 0.9])
def test_the_weights_of_every_epoch_are_those_that_it_is_measured_with(tmp_path: Path, average: float | None) -> None:
    training = trainer(2.34, average=average)
    tg.training.run(training, [KeepWeights(tmp_path)])
    files = weights_of_epochs(tmp_path)
    assert list(files) == [1, 2, 2.34] and len(list(tmp_path.iterdir())) == 3
    other = trainer()
    for row, file in zip(training.history, files.values(), strict=True):
        tg.nn.load_state_dict(other.model, load_weights(file, like=other.model))
        assert other.measure() == {name: row[name] for name in row if name.startswith("validation")}
        assert load_metadata(file) == {name: str(value) for name, value in row.items()}
    scores = training.scores()
    best = list(files.values())[tg.training.best_epoch(scores)]
    assert {name: array.tobytes() for name, array in load_weights(best).items()} == {
        name: array.tobytes() for name, array in training.selected().items()
    }
    assert len(set(kept(tmp_path).values())) == 3, "training has changed them"


def test_metadata_of_ones_own_takes_the_place_of_the_row(tmp_path: Path) -> None:
    def describe(row: Any, weights: dict[str, Any]) -> dict[str, str]:
        return {"epoch": f"the {row['epoch']}.", "arrays": str(len(weights))}

    tg.training.run(trainer(1), [KeepWeights(tmp_path, describe)])
    arrays = str(len(tg.nn.state_dict(trainer().model)))
    assert load_metadata(tmp_path / "weights-epoch-1.safetensors") == {"epoch": "the 1.", "arrays": arrays}
    with pytest.raises(TypeError, match="KeepWeights: describe"):
        KeepWeights(tmp_path, lambda: {})  # type: ignore[arg-type, misc]


def test_untrained_weights_are_those_of_epoch_0(tmp_path: Path) -> None:
    training = trainer(1, norm=False)
    before = {name: np.array(array) for name, array in training.in_use().items()}
    tg.training.run(training, [KeepWeights(tmp_path)], measure_untrained=True)
    files = weights_of_epochs(tmp_path)
    assert list(files) == [0, 1]
    found = load_weights(files[0])
    for name, array in before.items():
        np.testing.assert_array_equal(found[name], array)


def test_weights_in_use_are_copies_of_all_that_belongs_to_the_model() -> None:
    training = trainer(1)
    found = training.in_use()
    assert found.keys() == tg.nn.state_dict(training.model).keys()
    for array in found.values():
        array[...] = 7
    assert not any((array == 7).any() for array in training.in_use().values())


def test_a_file_that_cannot_be_written_ends_training_and_it_can_go_on(tmp_path: Path) -> None:
    training = trainer(2)
    with pytest.raises(OSError, match="weights-epoch-1"):
        tg.training.run(training, [KeepWeights(tmp_path / "none")])
    tg.training.run(training, [KeepWeights(tmp_path)])
    assert list(weights_of_epochs(tmp_path)) == [2] and training.step == 6


def test_stopped_after_any_call_the_files_of_earlier_epochs_are_there(tmp_path: Path) -> None:
    """Behind `KeepWeights`, a checkpoint that has an epoch's row implies its file."""

    class StopAt(Callback):
        def __init__(self, place: str, step: int) -> None:
            self.place, self.step = place, step

        def on_step(self, trainer: Trainer, step: Any) -> None:
            if self.place == "step" and step.step == self.step:
                raise KeyboardInterrupt

        def on_epoch(self, trainer: Trainer, row: Any) -> None:
            if self.place == "epoch" and trainer.step == self.step:
                raise KeyboardInterrupt

    tg.training.run(trainer(2), [KeepWeights(tmp_path)])
    whole = kept(tmp_path)
    for number, (position, place, step) in enumerate(
        [(0, "step", 3), (1, "epoch", 3), (2, "step", 3), (2, "epoch", 3)]
    ):
        folder = tmp_path / str(number)
        run = Run.create(folder, {})
        callbacks: list[Callback] = [Record(run), KeepWeights(folder), Checkpoint(run, steps=1)]
        callbacks.insert(position, StopAt(place, step))
        with pytest.raises(KeyboardInterrupt):
            tg.training.run(trainer(2), callbacks)
        run.close()
        run, again = Run.resume(folder), trainer(2)
        assert run.state is not None
        again.load_state_dict(run.state["trainer"])
        assert len(weights_of_epochs(folder)) >= len(again.history)
        run.begin()
        tg.training.run(again, [Record(run), KeepWeights(folder), Checkpoint(run, steps=1)])
        run.close()
        assert kept(folder) == whole


# The script -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def train(script: Any, folder: Path) -> Any:
    """Call the script, up to a step if one is given."""

    def train(out: Path, *options: Any, resume: bool = False, at: int | None = None) -> Any:
        own = ["--resume", out] if resume else ["--data", folder, *SMALL, "--out", out]
        return call(script, *own, *options, at=at)

    return train


@pytest.fixture
def whole(train: Any, tmp_path_factory: pytest.TempPathFactory, done: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a run of three epochs that nothing happened to; it is made once."""
    if not done:
        out = tmp_path_factory.mktemp("whole") / "run"
        assert train(out, "--epochs", 3, *KEEP) == 0
        done.update(kept(out))
    return dict(done)


@pytest.fixture(scope="module")
def done() -> dict[str, bytes]:
    return {}


def test_files_of_a_run_say_what_they_are(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(out, "--epochs", "2.5", "--average", "0.9", *KEEP) == 0
    rows = read_metrics(out / "metrics.jsonl")
    test = rows[-1]
    epochs = {row["epoch"]: row for row in rows if row["event"] == "epoch"}
    files = weights_of_epochs(out)
    assert list(files) == list(epochs) == [1, 2, 2.5]
    said = {epoch: load_metadata(file) for epoch, file in files.items()}
    for epoch, about in said.items():
        assert about["model"] == "deep_convnet.DeepConvNet" and json.loads(about["arguments"])["dropout"] == 0.25
        assert about["data"].endswith(": 100 training images, 50 others held out")
        assert str(out.parent) not in about["data"], "the place is nobody's business"
        assert about["epoch"] == f"{epoch:g}" and "accuracy" not in about
        assert about["temperature from"] == "50 images held out"
        assert float(about["validation_accuracy"]) == epochs[epoch]["validation_accuracy"]
    selected = load_metadata(out / "weights.safetensors")
    assert selected.pop("accuracy") == f"{test['test_accuracy']:.4f} on all 200 test images"
    assert selected == said[test["epoch"]], "the weights are those of that epoch"
    found = choose(out, None)
    assert isinstance(found.model, DeepConvNet) and len(found.model.layers) == 16
    *training, test_images, test_labels = tg.data.find_mnist(json.loads((out / "config.json").read_text())["data"])[:4]
    assert tg.training.accuracy(found.model, test_images, test_labels) == test["test_accuracy"]
    images, labels = (array[:150] for array in training)
    held_out = tg.training.hold_out(labels, 50, np.random.default_rng(5).spawn(3)[1])[1]
    logits = tg.training.outputs(found.model, images[held_out]).astype(np.float64)

    def surprise(temperature: float) -> float:
        scaled = logits / temperature
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(50), labels[held_out]]))

    assert all(surprise(found.temperature) <= surprise(found.temperature * factor) for factor in (0.98, 1.02))


def test_a_run_that_is_stopped_goes_on_keeping_weights(train: Any, tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "run"
    assert train(out, "--epochs", 3, *KEEP, at=2) == 128 + signal.SIGINT
    assert train(out, resume=True, at=3) == 128 + signal.SIGINT
    assert "accuracy" not in load_metadata(out / "weights.safetensors"), "the test images are read at the end"
    assert train(out, resume=True) == 0
    assert kept(out) == whole and len(whole) == 4


def test_a_run_can_be_told_later_to_keep_weights(train: Any, tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "run"
    assert train(out, "--epochs", 1) == 0 and list(kept(out)) == ["weights.safetensors"]
    assert train(out, "--epochs", 3, *KEEP, resume=True, at=4) == 128 + signal.SIGINT
    assert train(out, resume=True) == 0
    del whole["weights-epoch-1.safetensors"]
    assert kept(out) == whole


def test_without_images_held_out_there_is_no_accuracy_of_them(train: Any, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--epochs", 1, "--validation", 0, "--shifts", 1) == 0
    about = load_metadata(tmp_path / "run" / "weights.safetensors")
    assert about.keys() == {"model", "arguments", "data", "epoch", "accuracy", "temperature", "temperature from"}
    assert float(about["temperature"]) > 0 and about["temperature from"] == "150 training images"
    assert about["data"].endswith(": 150 training images")
    assert about["accuracy"].endswith(" on all 200 test images, each with copies shifted by 1 pixels")


def test_a_run_of_an_older_version_says_what_it_is_once_it_is_resumed(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(out, "--epochs", 1) == 0
    file = out / "weights.safetensors"
    whole = file.read_bytes()
    save_weights(file, load_weights(file))
    with pytest.raises(CheckpointError, match="does not say which model it is of"):
        choose(out, None)
    assert train(out, resume=True) == 0 and file.read_bytes() == whole
    assert len(choose(out, None).model.layers) == 16


def test_a_full_disk_is_said_and_the_run_goes_on_later(
    train: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "run"

    def full(path: Path, *arguments: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "save_weights", full)
        assert train(out, "--epochs", 3, *KEEP) == 1
    error = capsys.readouterr().err
    assert "weights-epoch-1.safetensors" in error and f"go on with --resume {out}" in error
    assert train(out, resume=True) == 0
    assert kept(out) == whole


def test_a_run_can_begin_with_weights_of_an_epoch(train: Any, tmp_path: Path, whole: dict[str, bytes]) -> None:
    first, out = tmp_path / "first.safetensors", tmp_path / "run"
    first.write_bytes(whole["weights-epoch-1.safetensors"])
    assert train(out, "--weights", first, "--epochs", 1, "--lr", 0) == 0
    begun, ended = load_weights(first), load_weights(out / "weights.safetensors")
    assert all((begun[name] == ended[name]).all() for name in begun)


@posix
@pytest.mark.slow
def test_killed_again_and_again_the_same_files_are_kept(folder: Path, tmp_path: Path) -> None:
    options = ["--data", folder, *SMALL, "--epochs", "12", *KEEP]  # 36 lines of metrics
    assert ended(start(*options, "--out", tmp_path / "whole"))[0] == 0
    story = killed_until_done(tmp_path / "run", options, kills=8, rng=np.random.default_rng(), pace=1)
    assert kept(tmp_path / "run") == kept(tmp_path / "whole") and len(kept(tmp_path / "run")) == 13, story
