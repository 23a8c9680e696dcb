"""Models of the gallery that are trained on digits and text: short, and trained to a stated accuracy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_models

import tinygrad_mnist as tg
from models import char_lstm, vae
from models.digits import train_on_digits
from models.lenet import LeNet5
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
