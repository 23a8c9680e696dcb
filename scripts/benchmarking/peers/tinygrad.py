"""tinygrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import CONVOLUTIONS, Array, Peer, adagrad, he_weights


class Tinygrad(Peer):
    package, warm_up = "tinygrad", 3
    eager = False  # lazy: it would compile the whole chain

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "DEV": "CPU", "CPU_COUNT": str(threads)}

    def __init__(self, threads: int, seed: int) -> None:
        from tinygrad import Context, Tensor, TinyJit, dtypes

        Tensor.manual_seed(seed)
        self.Tensor, self.Context = Tensor, Context
        weights = [Tensor(w).realize() for w in he_weights(np.random.default_rng(seed))]
        h = [w.zeros_like().contiguous().realize() for w in weights]

        def forward(images: Any) -> Any:
            x = images.unsqueeze(1).cast(dtypes.float32) / 255
            for number, (_, padding) in enumerate(CONVOLUTIONS):
                x = x.conv2d(*weights[2 * number : 2 * number + 2], padding=padding).relu()
                if number % 2:
                    x = x.max_pool2d((2, 2))
            w, b, w2, b2 = weights[-4:]
            hidden = (x.flatten(1) @ w + b).relu().dropout(0.5) / 2
            return (hidden @ w2 + b2).dropout(0.5) / 2

        @TinyJit
        def step(images: Any, labels: Any) -> Any:
            loss = forward(images).sparse_categorical_crossentropy(labels)
            updates = []
            for w, g, total in zip(weights, loss.gradient(*weights), h, strict=True):
                new, sum_of_squares = adagrad(w, g, total)
                updates += [total.assign(sum_of_squares), w.assign(new)]
            return loss.realize(*updates)

        self._step, self._predict = step, TinyJit(lambda images: forward(images).argmax(axis=1).realize())

    def step(self, images: Array, labels: Array) -> float:
        with self.Context(TRAINING=1):
            return float(
                self._step(self.Tensor(images).realize(), self.Tensor(labels.astype(np.int32)).realize()).item()
            )

    def predict(self, images: Array) -> Array:
        return np.asarray(self._predict(self.Tensor(images).realize()).numpy())
