"""LeNet-5 (LeCun et al., 1998): tanh and average pooling, layers in a `Sequential`."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.digits import main
from tinygrad_mnist.nn import AvgPool2d, Conv2d, Flatten, Linear, Sequential, Tanh


class LeNet5:
    """(N, 28, 28) uint8 -> (N, 10) logits."""

    def __init__(self, rng: np.random.Generator) -> None:
        drawn: dict[str, Any] = {"rng": rng, "init": "xavier"}  # for tanh
        self.layers = Sequential(
            *(Conv2d(1, 6, 5, padding=2, **drawn), Tanh(), AvgPool2d(2)),  # (N, 6, 14, 14)
            *(Conv2d(6, 16, 5, **drawn), Tanh(), AvgPool2d(2)),  # (N, 16, 5, 5)
            *(Flatten(), Linear(16 * 5 * 5, 120, **drawn), Tanh()),
            *(Linear(120, 84, **drawn), Tanh()),
            Linear(84, 10, **drawn),
        )

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        return self.layers(tg.data.as_input(images), rng)


if __name__ == "__main__":
    main(LeNet5, lr=0.005, epochs=3)
