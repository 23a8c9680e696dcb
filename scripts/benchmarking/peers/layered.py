"""The paper's method."""

from __future__ import annotations

import numpy as np

from ..layered import LayeredNet
from .base import CONVOLUTIONS, Array, Peer, adagrad, he_weights


class Layered(Peer):
    """The paper's method: NumPy, a hand-written backward pass for every layer, im2col of the whole batch."""

    package, eager, imported = "numpy", False, False

    def __init__(self, threads: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights = he_weights(self.rng)
        self.h = [np.zeros_like(w) for w in self.weights]
        self.net = LayeredNet(self.weights, len(CONVOLUTIONS), np.float32)

    def step(self, images: Array, labels: Array) -> float:
        loss, grads = self.net.loss(images[:, None] / np.float32(255), labels, self.rng)
        for i, (w, g) in enumerate(zip(self.weights, grads, strict=True)):
            w[...], self.h[i] = adagrad(w, g, self.h[i])  # in place: the layers hold the same arrays
        return float(loss)

    def predict(self, images: Array) -> Array:
        return self.net.forward(images[:, None] / np.float32(255)).argmax(axis=1)
