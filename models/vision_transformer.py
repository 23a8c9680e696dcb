"""A small vision transformer (Dosovitskiy et al., 2021) on digits: attention as four lines of ops."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.digits import main
from tinygrad_mnist.nn import LayerNorm, Linear

PATCH, TOKENS, WIDTH, HEADS = 7, 16, 64, 4  # an image of 28 x 28 is 4 x 4 patches of 7 x 7


class Block:
    """Attention between the patches, then a network for each, both around a shortcut."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.norm1, self.norm2 = LayerNorm(WIDTH), LayerNorm(WIDTH)
        self.qkv, self.merge = Linear(WIDTH, 3 * WIDTH, rng=rng, init="xavier"), Linear(WIDTH, WIDTH, rng=rng)
        self.wide, self.narrow = Linear(WIDTH, 4 * WIDTH, rng=rng), Linear(4 * WIDTH, WIDTH, rng=rng)

    def attend(self, x: tg.Tensor) -> tg.Tensor:
        n, tokens, width = x.shape
        heads = self.qkv(x).reshape(n, tokens, 3, HEADS, width // HEADS).transpose(2, 0, 3, 1, 4)
        q, k, v = heads  # (N, heads, tokens, width / heads) each
        weights = tg.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(width // HEADS))  # (N, heads, tokens, tokens)
        return self.merge((weights @ v).transpose(0, 2, 1, 3).reshape(n, tokens, width))

    def __call__(self, x: tg.Tensor, rng: np.random.Generator | None = None) -> tg.Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.narrow(tg.gelu(self.wide(self.norm2(x))))


class VisionTransformer:
    """(N, 28, 28) uint8 -> (N, 10) logits."""

    def __init__(self, rng: np.random.Generator, depth: int = 2) -> None:
        self.embed = Linear(PATCH * PATCH, WIDTH, rng=rng)
        self.places = tg.Tensor(rng.normal(0, 0.02, (TOKENS, WIDTH)).astype(np.float32), requires_grad=True)
        self.blocks, self.norm = [Block(rng) for _ in range(depth)], LayerNorm(WIDTH)
        self.out = Linear(WIDTH, 10, rng=rng)

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        x = tg.as_tensor(tg.data.as_input(images)).reshape(len(images), 4, PATCH, 4, PATCH)
        x = x.transpose(0, 1, 3, 2, 4).reshape(len(images), TOKENS, PATCH * PATCH)
        x = self.embed(x) + self.places
        for block in self.blocks:
            x = block(x, rng)
        return self.out(self.norm(x).mean(axis=1))


if __name__ == "__main__":
    main(VisionTransformer, lr=0.003, epochs=5)
