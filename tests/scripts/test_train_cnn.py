"""The short example of training a CNN of one's own, run as a user would, on a few images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import train_cnn

import tinygrad_mnist as tg


def test_the_example_runs_from_any_folder(folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TINYGRAD_MNIST_DATA": str(folder)}
    command = [sys.executable, train_cnn.__file__]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    source, *epochs, test = done.stdout.splitlines()
    assert source.startswith("data: ") and len(epochs) == 4
    assert float(re.search(r"test accuracy (\d\.\d+)", test)[1]) > 0.4, "550 images, 24 steps"
    assert not list(tmp_path.iterdir())


def test_it_learns_and_chooses_nothing_by_the_test_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, measured = tg.data.find_mnist(folder), []
    monkeypatch.setattr(tg.data, "find_mnist", lambda: data)
    accuracy = tg.training.accuracy
    monkeypatch.setattr(tg.training, "accuracy", lambda *how: measured.append(how[1]) or accuracy(*how))
    train_cnn.main(epochs=1)
    assert len(measured) == 1 and measured[0] is data.test_images
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_it_is_short() -> None:
    assert len(Path(train_cnn.__file__).read_text().splitlines()) <= 45
