"""What the classifiers of digits in this folder share: training, and the accuracy on test images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_mnist as tg


def train_on_digits(
    kind: Callable[[np.random.Generator], Any],
    data: tg.data.Dataset | None = None,
    *,
    lr: float,
    epochs: float,
    batch_size: int = 128,
    seed: int = 0,
) -> float:
    """Train a model by AdamW along one cycle of the learning rate, and return its accuracy on the test images.

    `kind` makes the model from a generator: a class, for instance. The data is that of `tg.data.find_mnist`.
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
    return accuracy
