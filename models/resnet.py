"""A small residual network (He et al., 2016): batch normalization, shortcuts, a model made of models."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.digits import main
from tinygrad_mnist.nn import BatchNorm2d, Conv2d, Linear

Generator = np.random.Generator | None


class Block:
    """Two convolutions, and around them the input, through a convolution of 1 x 1 where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, rng: np.random.Generator) -> None:
        self.conv1 = Conv2d(inputs, outputs, 3, stride, 1, bias=False, rng=rng)
        self.conv2 = Conv2d(outputs, outputs, 3, 1, 1, bias=False, rng=rng)
        self.norm1, self.norm2 = BatchNorm2d(outputs), BatchNorm2d(outputs)
        self.shortcut = Conv2d(inputs, outputs, 1, stride, rng=rng) if stride > 1 or inputs != outputs else None

    def __call__(self, x: tg.Tensor, rng: Generator = None) -> tg.Tensor:
        y = tg.relu(self.norm1(self.conv1(x), rng))
        y = self.norm2(self.conv2(y), rng)
        return tg.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet:
    """(N, 28, 28) uint8 -> (N, 10) logits."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.stem, self.norm = Conv2d(1, 16, 3, 2, 1, bias=False, rng=rng), BatchNorm2d(16)  # (N, 16, 14, 14)
        self.blocks = [Block(16, 16, 1, rng), Block(16, 32, 2, rng), Block(32, 64, 2, rng)]  # (N, 64, 4, 4)
        self.out = Linear(64, 10, rng=rng)

    def __call__(self, images: Any, rng: Generator = None) -> tg.Tensor:
        x = tg.relu(self.norm(self.stem(tg.data.as_input(images)), rng))
        for block in self.blocks:
            x = block(x, rng)
        return self.out(tg.global_avg_pool(x))


if __name__ == "__main__":
    main(ResNet, lr=0.01, epochs=2)
