"""Models of the gallery that are trained on digits and text: short, and trained to a stated accuracy."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_models

import tinygrad_mnist as tg
from models import char_lstm, vae
from models.digits import main, train_on_digits
from models.lenet import LeNet5
from models.pretrained import load_classifier
from models.resnet import ResNet
from models.vision_transformer import VisionTransformer

ROOT = Path(tg.__file__).parents[1]
TABLE = (ROOT / "models" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def digits() -> tg.data.Dataset:
    images, labels = tg.data.synthetic_digits(2200, rng=np.random.default_rng(0))
    return tg.data.Dataset(images[:1700], labels[:1700], images[1700:], labels[1700:], "synthetic digits", True)


@pytest.mark.parametrize(
    ("kind", "lr", "epochs", "least"),
    [(LeNet5, 0.005, 4, 0.65), (ResNet, 0.01, 2, 0.6), (VisionTransformer, 0.003, 2, 0.3)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_classifiers_learn(kind: Any, lr: float, epochs: float, least: float, digits: tg.data.Dataset) -> None:
    assert train_on_digits(kind, digits, lr=lr, epochs=epochs, batch_size=50) > least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "lr", "least"),
    [(LeNet5, 0.005, 0.92), (ResNet, 0.01, 0.96), (VisionTransformer, 0.003, 0.8)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_classifiers_read_mnist_after_a_third_of_an_epoch(kind: Any, lr: float, least: float) -> None:
    data = tg.data.find_mnist()
    if data.synthetic:
        pytest.skip("no MNIST here: name its folder by TINYGRAD_MNIST_DATA")
    assert train_on_digits(kind, data, lr=lr, epochs=0.33) > least


@pytest.mark.parametrize("kind", [LeNet5, ResNet, VisionTransformer])
def test_trained_weights_are_kept_and_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: tg.data.Dataset, kind: Any
) -> None:
    path = tmp_path / "weights.safetensors"
    monkeypatch.setattr(tg.data, "find_mnist", lambda: digits)
    monkeypatch.setattr(sys, "argv", ["program", "--weights", str(path)])
    main(kind, lr=0.003, epochs=0.1)
    found = load_classifier(path)
    assert type(found.model) is kind
    accuracy = tg.training.accuracy(found.model, digits.test_images, digits.test_labels)
    assert found.metadata["accuracy"] == f"{accuracy:.4f} on all 500 test images"
    assert found.metadata["data"] == "synthetic digits: 1,700 training images"


def test_a_program_of_a_model_knows_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: tg.data.Dataset
) -> None:
    monkeypatch.setattr(
        tg.data, "find_mnist", lambda: digits._replace(images=digits.images[:9], labels=digits.labels[:9])
    )
    monkeypatch.setattr(sys, "argv", ["lenet.py", "--weights", str(tmp_path / "lenet.safetensors")])
    with pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("models.lenet", run_name="__main__", alter_sys=True)
    assert load_classifier(tmp_path / "lenet.safetensors").name == "lenet.LeNet5"


@pytest.mark.parametrize("name", ["weights.npz", "none/weights.safetensors"])
def test_a_place_for_weights_is_checked_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["lenet.py", "--weights", str(tmp_path / name)])
    with pytest.raises(SystemExit, match="2"):
        main(LeNet5, lr=0.005, epochs=3)
    assert "name a .safetensors file in a folder that exists" in capsys.readouterr().err


def test_weights_of_the_classifiers_are_kept_in_folders_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def called(command: list[str], **how: Any) -> Any:
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0, "98% of the test images right\n")

    monkeypatch.setattr(subprocess, "run", called)
    train_models.main(["lenet", "maml", "--weights", str(tmp_path / "runs")])
    place = tmp_path / "runs" / "lenet"
    assert commands == [
        ["-m", "models.lenet", "--weights", str(place / "weights.safetensors")],
        ["-m", "models.maml"],
    ]
    assert place.is_dir() and capsys.readouterr().out.count("98% of the test images right |") == 2
    with pytest.raises(SystemExit, match="2"):
        train_models.main(["lenot"])
    assert "lenot is not a model; name some of lenet, resnet" in capsys.readouterr().err


def test_the_autoencoder_describes_digits_in_fewer_nats(digits: tg.data.Dataset) -> None:
    def nats(model: vae.VAE) -> float:
        return model.loss(digits.test_images, None, np.random.default_rng(0)).item()

    trained = vae.train(digits.images, epochs=6)
    mean = digits.images.mean(axis=0) / 255
    entropy = -(mean * np.log(mean + 1e-9) + (1 - mean) * np.log(1 - mean + 1e-9)).sum()  # of pixels on their own
    assert nats(trained) < 0.95 * entropy < nats(vae.VAE(np.random.default_rng(0)))
    drawn = tg.sigmoid(trained.draw(np.zeros((1, vae.LATENT), np.float32))).data
    assert drawn.shape == (1, 784) and 0.05 < drawn.mean() < 0.5


def test_the_character_model_reads_ahead() -> None:
    bits, written = char_lstm.train(steps=25)
    assert bits < 5 < np.log2(96) and len(written) == 300


@pytest.mark.slow
def test_the_character_model_trained_for_longer() -> None:
    bits, written = char_lstm.train(steps=120)
    assert bits < 3.6 and written.count(" ") > 30


@pytest.mark.parametrize("name", train_models.NAMES)
def test_each_is_short_and_in_the_table(name: str) -> None:
    source = (ROOT / "models" / f"{name}.py").read_text(encoding="utf-8")
    lines, shows = len(source.splitlines()), source.split('"""')[1].splitlines()[0]
    assert lines <= 60
    assert f"| [`{name}.py`]({name}.py) | {shows} | {lines} |" in TABLE


@pytest.mark.slow
def test_a_row_of_the_table_is_made_by_a_run() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "train_models.py"), "logistic_newton"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    cells = [cell.strip() for cell in done.stdout.strip().strip("|").split("|")]
    assert len(cells) == 5 and 0 < int(cells[3]) < 60 and "e-" in cells[4]
