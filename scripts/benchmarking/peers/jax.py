"""JAX."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import CHAIN_LENGTH, CONVOLUTIONS, Array, Peer, adagrad, he_weights


class Jax(Peer):
    package, warm_up = "jax", 2

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "JAX_PLATFORMS": "cpu"}

    def __init__(self, threads: int, seed: int) -> None:
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp, self.key = jax, jnp, jax.random.key(seed)
        weights = he_weights(np.random.default_rng(seed))
        self.weights = [jnp.asarray(w.transpose(2, 3, 1, 0) if w.ndim == 4 else w) for w in weights]  # HWIO
        self.h = [jnp.zeros_like(w) for w in self.weights]

        def dropped(x: Any, key: Any) -> Any:
            return x / 2 if key is None else x * jax.random.bernoulli(key, 0.5, x.shape)

        def forward(weights: Any, images: Any, key: Any = None) -> Any:
            x = images[..., None].astype(jnp.float32) / 255
            for number, (_, padding) in enumerate(CONVOLUTIONS):
                w, b = weights[2 * number : 2 * number + 2]
                same = "SAME" if padding else "VALID"
                x = jax.nn.relu(
                    jax.lax.conv_general_dilated(x, w, (1, 1), same, dimension_numbers=("NHWC", "HWIO", "NHWC")) + b
                )
                if number % 2:
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            w, b, w2, b2 = weights[-4:]
            first, second = (None, None) if key is None else jax.random.split(key)
            hidden = dropped(jax.nn.relu(x.reshape(len(x), -1) @ w + b), first)
            return dropped(hidden @ w2 + b2, second)

        def loss(weights: Any, images: Any, labels: Any, key: Any) -> Any:
            return -jnp.take_along_axis(
                jax.nn.log_softmax(forward(weights, images, key)), labels[:, None], axis=1
            ).mean()

        @jax.jit
        def step(weights: Any, h: Any, images: Any, labels: Any, key: Any) -> Any:
            value, grads = jax.value_and_grad(loss)(weights, images, labels, key)
            pairs = [adagrad(*wgh) for wgh in zip(weights, grads, h, strict=True)]
            return value, [w for w, _ in pairs], [h for _, h in pairs]

        self._step, self._predict = step, jax.jit(lambda weights, images: forward(weights, images).argmax(axis=1))

    def step(self, images: Array, labels: Array) -> float:
        self.key, key = self.jax.random.split(self.key)
        value, self.weights, self.h = self.jax.block_until_ready(
            self._step(self.weights, self.h, images, labels.astype(np.int32), key)
        )
        return float(value)

    def predict(self, images: Array) -> Array:
        return np.asarray(self._predict(self.weights, images))

    def chain(self) -> None:
        c = self.jnp.ones(10)

        def total(x: Any) -> Any:
            for _ in range(CHAIN_LENGTH // 2):
                x = x * c + c
            return x.sum()

        self.jax.block_until_ready(self.jax.grad(total)(c))
