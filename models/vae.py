"""A variational autoencoder (Kingma and Welling, 2014) on digits: a loss of its own, and a gradient through noise."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist.nn import Linear

LATENT = 16


class VAE:
    """Images (N, 28, 28) uint8 -> logits of their pixels (N, 784), mean and log-variance of the code (N, LATENT)."""

    def __init__(self, rng: np.random.Generator, hidden: int = 400) -> None:
        self.encode, self.code = Linear(784, hidden, rng=rng), Linear(hidden, 2 * LATENT, rng=rng, init="xavier")
        self.decode, self.pixels = Linear(LATENT, hidden, rng=rng), Linear(hidden, 784, rng=rng, init="xavier")

    def draw(self, z: Any) -> tg.Tensor:
        """Logits of the pixels (N, 784) of codes (N, LATENT)."""
        return self.pixels(tg.relu(self.decode(z)))

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tuple[tg.Tensor, tg.Tensor, tg.Tensor]:
        mean, log_variance = tg.split(self.code(tg.relu(self.encode(flat(images)))), 2, axis=1)
        noise = 0.0 if rng is None else rng.standard_normal(mean.shape, np.float32)
        return self.draw(mean + tg.exp(log_variance / 2) * noise), mean, log_variance

    def loss(self, images: Any, labels: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        """The negative evidence lower bound, in nats for an image; labels play no part."""
        logits, mean, log_variance = self(images, rng)
        pixels = tg.binary_cross_entropy_with_logits(logits, flat(images)) * 784
        divergence = (mean**2 + tg.exp(log_variance) - log_variance - 1).sum(axis=1) / 2
        return pixels + divergence.mean()


def flat(images: Any) -> Any:
    return tg.data.as_input(images).reshape(len(images), 784)


def train(images: Any, epochs: float = 8, seed: int = 0) -> VAE:
    draws = np.random.default_rng(seed)
    model = VAE(draws)
    optimizer = tg.optim.Adam(tg.nn.parameters(model), lr=0.002)
    how: dict[str, Any] = {"epochs": epochs, "batch_size": 128, "schedule": tg.schedules.one_cycle, "rng": draws}
    for _ in tg.training.fit(model, optimizer, images, np.zeros(len(images)), **how):
        pass
    return model


if __name__ == "__main__":
    data = tg.data.find_mnist()
    loss = train(data.images).loss(data.test_images, None, np.random.default_rng(1)).item()
    print(f"{loss:.1f} nats for a test image ({data.source}); it draws new ones: models/vae.png")
