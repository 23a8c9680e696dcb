"""What the classifiers of digits in this folder share: training, and the accuracy on test images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.pretrained import describe, describe_data


def train_on_digits(
    kind: type,
    data: tg.data.Dataset | None = None,
    *,
    lr: float,
    epochs: float,
    batch_size: int = 128,
    seed: int = 0,
    weights: Path | None = None,
) -> float:
    """Train a model by AdamW along one cycle of the learning rate, and return its accuracy on the test images.

    `kind` is the class of the model, which a generator makes. The data is that of `tg.data.find_mnist`. If `weights` is
    the name of a file, the trained weights are saved there, so that `models.pretrained.load_classifier` reads them.
    """
    data = tg.data.find_mnist() if data is None else data
    draws = np.random.default_rng(seed)
    model = kind(draws)
    optimizer = tg.optim.AdamW(tg.nn.parameters(model), lr=lr)
    how: dict[str, Any] = {"batch_size": batch_size, "schedule": tg.schedules.one_cycle, "rng": draws}
    for _ in tg.training.fit(model, optimizer, data.images, data.labels, epochs=epochs, **how):
        pass
    accuracy = tg.training.accuracy(model, data.test_images, data.test_labels)
    print(f"{accuracy:.2%} of the test images right ({data.source})")
    if weights is not None:
        about = describe(f"{Path(str(sys.modules[kind.__module__].__file__)).stem}.{kind.__name__}")
        about["data"] = describe_data(data, len(data.labels))
        about["accuracy"] = f"{accuracy:.4f} on all {len(data.test_labels):,} test images"
        tg.checkpoint.save_weights(weights, tg.nn.state_dict(model), about)
    return accuracy


def main(kind: type, **how: Any) -> None:
    """Train a model as a program, see `train_on_digits`."""
    parser = argparse.ArgumentParser(description=sys.modules[kind.__module__].__doc__)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="save the trained weights (.safetensors)")
    weights = parser.parse_args().weights
    if weights is not None and (weights.suffix != ".safetensors" or not weights.parent.is_dir()):
        parser.error(f"--weights {weights}: name a .safetensors file in a folder that exists")
    train_on_digits(kind, weights=weights, **how)
