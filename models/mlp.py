"""How a user defines a model: any class with layers as attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg


class MLP:
    """One hidden layer: (N, 28, 28) uint8 -> (N, 10) logits."""

    def __init__(self, rng: np.random.Generator, hidden: int = 100) -> None:
        self.hidden = tg.nn.Linear(28 * 28, hidden, rng=rng)
        self.out = tg.nn.Linear(hidden, 10, rng=rng)

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        x = tg.data.as_input(images).reshape(len(images), 28 * 28)
        return self.out(tg.dropout(tg.relu(self.hidden(x)), 0.2, rng))

    def loss(self, images: Any, labels: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        return tg.cross_entropy(self(images, rng), labels)
