"""Autograd."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import CHAIN_LENGTH, CONVOLUTIONS, HIDDEN, Array, Peer, adagrad, he_weights


class Autograd(Peer):
    package = "autograd"

    def __init__(self, threads: int, seed: int) -> None:
        import autograd
        import autograd.numpy as anp
        from autograd.scipy.signal import convolve

        self.rng, self.autograd, self.anp = np.random.default_rng(seed), autograd, anp
        self.weights = [w.swapaxes(0, 1) if w.ndim == 4 else w for w in he_weights(self.rng)]  # (C, F, 3, 3)
        self.h = [np.zeros_like(w) for w in self.weights]

        def forward(weights: Any, images: Array, rng: np.random.Generator | None = None) -> Any:
            x = images[:, None] / np.float32(255)
            for number, (_, padding) in enumerate(CONVOLUTIONS):
                w, b = weights[2 * number : 2 * number + 2]
                if padding:
                    x = anp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), "constant")
                x = anp.maximum(
                    convolve(x, w, axes=([2, 3], [2, 3]), dot_axes=([1], [0]), mode="valid") + b[:, None, None], 0
                )
                if number % 2:
                    n, c, height, width = x.shape
                    x = x.reshape((n, c, height // 2, 2, width // 2, 2)).max(axis=5).max(axis=3)
            for w, b in (weights[-4:-2], weights[-2:]):
                x = x.reshape((len(x), -1)) @ w + b
                if len(b) == HIDDEN:
                    x = anp.maximum(x, 0)
                x = x * (np.float32(0.5) if rng is None else (rng.random(x.shape, np.float32) < 0.5).astype(np.float32))
            return x

        def loss(weights: Any, images: Array, labels: Array, rng: np.random.Generator) -> Any:
            x = forward(weights, images, rng)
            x = x - x.max(axis=1, keepdims=True)
            return -anp.mean((x - anp.log(anp.exp(x).sum(axis=1, keepdims=True)))[np.arange(len(labels)), labels])

        self.forward, self.value_and_grad = forward, autograd.value_and_grad(loss)

    def step(self, images: Array, labels: Array) -> float:
        value, grads = self.value_and_grad(self.weights, images, labels, self.rng)
        pairs = [adagrad(*wgh) for wgh in zip(self.weights, grads, self.h, strict=True)]
        self.weights, self.h = [w for w, _ in pairs], [h for _, h in pairs]
        return float(value)

    def predict(self, images: Array) -> Array:
        return np.asarray(self.forward(self.weights, images)).argmax(axis=1)

    def chain(self) -> None:
        c = np.ones(10, np.float32)

        def total(x: Any) -> Any:
            for _ in range(CHAIN_LENGTH // 2):
                x = x * c + c
            return self.anp.sum(x)

        self.autograd.grad(total)(c)
