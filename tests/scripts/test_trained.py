"""What runs have left is found: the weights of a run, of its epochs, and the latest run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import trained

import tinygrad_mnist as tg
from models.mlp import MLP
from models.pretrained import describe
from tinygrad_mnist.storage.checkpoint import CheckpointError


def saved(path: Path, seconds: int = 0, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = metadata or describe("mlp.MLP", hidden=3)
    tg.checkpoint.save_weights(path, tg.nn.state_dict(MLP(np.random.default_rng(0), 3)), about)
    os.utime(path, (seconds, seconds))
    return path


def test_epochs_are_in_order_and_other_files_are_left_out(tmp_path: Path) -> None:
    assert trained.weights_of_epochs(tmp_path / "none") == {}
    for name in ("10", "2", "0.33", "0", "1.25"):
        saved(tmp_path / f"weights-epoch-{name}.safetensors")
    for name in ("weights", "weights-epoch-", "weights-epoch-x", "weights-epoch-3.safetensors.1a2b3c4d5e6f.part"):
        saved(tmp_path / f"{name}.safetensors")
    found = trained.weights_of_epochs(tmp_path)
    assert list(found) == [0, 0.33, 1.25, 2, 10]
    assert found[0.33] == tmp_path / "weights-epoch-0.33.safetensors"


def test_a_run_has_its_selected_weights_or_those_of_its_newest_epoch(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        trained.weights_of_run(tmp_path / "none")
    (tmp_path / "config.json").touch()
    with pytest.raises(FileNotFoundError, match=f"has not ended.*train_mnist.py --resume {tmp_path}"):
        trained.weights_of_run(tmp_path)
    saved(tmp_path / "weights-epoch-10.safetensors", seconds=1)
    saved(tmp_path / "weights-epoch-9.safetensors", seconds=2)
    assert trained.weights_of_run(tmp_path).name == "weights-epoch-10.safetensors"
    saved(tmp_path / "weights.safetensors")
    assert trained.weights_of_run(tmp_path).name == "weights.safetensors"


def test_the_latest_run_is_that_with_the_newest_weights(tmp_path: Path) -> None:
    assert trained.latest_run(tmp_path / "none") is None and trained.latest_run(tmp_path) is None
    saved(tmp_path / "b" / "weights.safetensors", seconds=300)
    saved(tmp_path / "a" / "weights.safetensors", seconds=100)
    saved(tmp_path / "a" / "weights-epoch-1.safetensors", seconds=900)
    (tmp_path / "not ended").mkdir()
    (tmp_path / "not ended" / "config.json").touch()
    (tmp_path / "file").touch()
    assert trained.latest_run(tmp_path) == tmp_path / "b"
    saved(tmp_path / "still training" / "weights-epoch-3.safetensors", seconds=400)
    assert trained.latest_run(tmp_path) == tmp_path / "still training"


def test_the_classifier_is_that_of_the_run_or_file_or_latest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = saved(tmp_path / "shipped.safetensors")
    monkeypatch.setattr(trained, "SHIPPED", shipped)
    assert trained.choose(None, None).path == shipped
    first, second = saved(Path("runs/1/weights.safetensors"), 1), saved(Path("runs/2/weights.safetensors"), 2)
    assert trained.choose(None, None).path == second
    assert trained.choose(Path("runs/1"), None).path == first
    assert trained.choose(None, first).path == first
    with pytest.raises(ValueError, match="leave out one of them"):
        trained.choose(Path("runs/1"), first)


def test_a_run_of_an_older_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    saved(tmp_path / "weights.safetensors", seconds=0, epoch="1")
    with pytest.raises(CheckpointError, match="weights in"):
        trained.choose(tmp_path, None)
    from models.deep_convnet import DeepConvNet

    tg.checkpoint.save_weights(tmp_path / "weights.safetensors", tg.nn.state_dict(DeepConvNet(depth=4)))
    with pytest.raises(CheckpointError, match=f"does not say which model.*--resume {tmp_path} writes it anew"):
        trained.choose(tmp_path, None)
