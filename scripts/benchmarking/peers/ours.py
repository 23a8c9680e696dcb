"""This framework."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from .base import CHAIN_LENGTH, RATE, ROOT, Array, Peer


class Ours(Peer):
    package, by_recipe = "tinygrad_mnist", True

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return super().environment(1)  # the threads are used for shards

    def __init__(self, threads: int, seed: int) -> None:
        sys.path.insert(0, str(ROOT))
        import tinygrad_mnist as tg
        from models.deep_convnet import DeepConvNet

        self.tg, self.threads, self.rng = tg, threads, np.random.default_rng(seed)
        self.model = DeepConvNet(rng=self.rng)
        self.weights = tg.nn.parameters(self.model)
        self.optimizer = tg.optim.AdaGrad(self.weights, lr=RATE)

    def step(self, images: Array, labels: Array) -> float:
        loss, grads = self.tg.parallel.value_and_grad(
            self.loss, self.weights, images, labels, rng=self.rng, threads=self.threads
        )
        self.optimizer.step(grads)
        return loss

    def loss(self, images: Array, labels: Array, rng: np.random.Generator) -> Any:
        return self.model.loss(images, labels, rng)

    def predict(self, images: Array) -> Array:
        return self.tg.training.predict(self.model, images, threads=self.threads)

    def chain(self) -> None:
        x = self.tg.Tensor(np.ones(10, np.float32), requires_grad=True)
        c = self.tg.Tensor(np.ones(10, np.float32))
        y = x
        for _ in range(CHAIN_LENGTH // 2):
            y = y * c + c
        y.sum().backward()

    @classmethod
    def train(cls, recipe: Mapping[str, Any], data: Mapping[str, Array], threads: int) -> float:
        """Train as `train_mnist.py` does."""
        sys.path.insert(0, str(ROOT))
        from training.build import make_trainer
        from training.settings import Settings

        import tinygrad_mnist as tg

        test = data["test_images"], data["test_labels"]
        dataset = tg.data.Dataset(data["images"], data["labels"], *test, source="MNIST", synthetic=False)
        trainer = make_trainer(Settings.from_config(recipe["settings"]), dataset, threads)
        for _ in trainer.steps():
            pass
        tg.nn.load_state_dict(trainer.model, trainer.selected())
        return tg.training.accuracy(trainer.model, *test, threads)


class PlainLoop(Ours):
    """Our framework without shards: the loop that a user writes by hand, and a plain call of the model."""

    eager = imported = by_recipe = False  # as with shards

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return Peer.environment(threads)

    def step(self, images: Array, labels: Array) -> float:
        loss = self.model.loss(images, labels, self.rng)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def predict(self, images: Array) -> Array:
        with self.tg.no_grad():
            return np.argmax(self.model(images).data, axis=1)


class OursInNumPy(Ours):
    """Our framework without the compiled kernels."""

    eager = imported = False  # as with them

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {**super().environment(threads), "TINYGRAD_MNIST_NATIVE": "0"}


class Stack(Ours):
    """Our framework with a stack of 3 x 3 convolutions of 16 channels, for images of any size."""

    def __init__(self, threads: int, seed: int, depth: int) -> None:
        super().__init__(threads, seed)
        nn = self.tg.nn
        layers: list[Any] = []
        for number in range(depth):
            layers += [nn.Conv2d(16 if number else 1, 16, 3, padding=1, rng=self.rng), nn.ReLU()]
        self.model = nn.Sequential(*layers)
        self.out = nn.Linear(16, 10, rng=self.rng)
        self.weights = self.tg.nn.parameters([self.model, self.out])
        self.optimizer = self.tg.optim.AdaGrad(self.weights)

    def loss(self, images: Any, labels: Any, rng: Any) -> Any:
        return self.tg.cross_entropy(self.out(self.model(self.tg.data.as_input(images)).mean((2, 3))), labels)
