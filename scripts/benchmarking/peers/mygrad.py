"""MyGrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import CHAIN_LENGTH, CONVOLUTIONS, HIDDEN, Array, Peer, adagrad, he_weights


class MyGrad(Peer):
    package = "mygrad"

    def __init__(self, threads: int, seed: int) -> None:
        import mygrad as mg
        from mygrad.nnet.activations import relu
        from mygrad.nnet.layers import conv_nd, max_pool
        from mygrad.nnet.losses import softmax_crossentropy

        self.mg, self.rng, self.cross_entropy = mg, np.random.default_rng(seed), softmax_crossentropy
        mg.turn_memory_guarding_off()  # as its documentation advises for speed
        self.weights = [mg.tensor(w) for w in he_weights(self.rng)]
        self.h = [np.zeros_like(w.data) for w in self.weights]

        def forward(images: Array, rng: np.random.Generator | None = None) -> Any:
            x = images[:, None] / np.float32(255)
            for number, (filters, padding) in enumerate(CONVOLUTIONS):
                w, b = self.weights[2 * number : 2 * number + 2]
                x = relu(conv_nd(x, w, stride=1, padding=padding) + b.reshape(1, filters, 1, 1))
                if number % 2:
                    x = max_pool(x, (2, 2), stride=2)
            for w, b in (self.weights[-4:-2], self.weights[-2:]):
                x = x.reshape(len(images), -1) @ w + b
                if len(b) == HIDDEN:
                    x = relu(x)
                x = x * (np.float32(0.5) if rng is None else (rng.random(x.shape, np.float32) < 0.5).astype(np.float32))
            return x

        self.forward = forward

    def step(self, images: Array, labels: Array) -> float:
        loss = self.cross_entropy(self.forward(images, self.rng), labels)
        loss.backward()
        for i, w in enumerate(self.weights):
            w.data[...], self.h[i] = adagrad(w.data, w.grad, self.h[i])
        return float(loss.item())

    def predict(self, images: Array) -> Array:
        with self.mg.no_autodiff:
            return np.asarray(self.forward(images)).argmax(axis=1)

    def chain(self) -> None:
        x, c = self.mg.tensor(np.ones(10, np.float32)), np.ones(10, np.float32)
        y = x
        for _ in range(CHAIN_LENGTH // 2):
            y = y * c + c
        y.sum().backward()
