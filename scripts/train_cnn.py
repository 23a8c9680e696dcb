#!/usr/bin/env python
"""Train a small CNN of your own on MNIST: a model is any object with `__call__(images, rng=None)`."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from any folder, installed or not
import tinygrad_mnist as tg


class SmallCNN:
    def __init__(self, rng: np.random.Generator) -> None:
        self.conv1 = tg.nn.Conv2d(1, 16, 5, rng=rng)
        self.conv2 = tg.nn.Conv2d(16, 32, 3, rng=rng)
        self.hidden = tg.nn.Linear(32 * 5 * 5, 64, rng=rng)
        self.out = tg.nn.Linear(64, 10, rng=rng)

    def __call__(self, images: np.ndarray, rng: np.random.Generator | None = None) -> tg.Tensor:
        x = self.conv1(tg.data.as_input(images))  # (N, 28, 28) uint8 -> (N, 1, 28, 28) in [0, 1] -> (N, 16, 24, 24)
        x = tg.max_pool2d(tg.relu(x), 2)  # (N, 16, 12, 12)
        x = tg.max_pool2d(tg.relu(self.conv2(x)), 2)  # (N, 32, 5, 5)
        x = tg.relu(self.hidden(x.reshape(len(images), -1)))  # (N, 64)
        return self.out(tg.dropout(x, 0.3, rng))  # (N, 10); in training there is a generator, and dropout draws from it


def main(epochs: int = 4) -> None:
    init, split, draws = np.random.default_rng(0).spawn(3)
    data = tg.data.find_mnist()
    print(f"data: {data.source}")
    training, validation = tg.training.hold_out(data.labels, len(data.labels) // 12, split)
    examples, held_out = ((data.images[part], data.labels[part]) for part in (training, validation))
    model = SmallCNN(init)
    optimizer = tg.optim.Adam(tg.nn.parameters(model), lr=0.002)
    watch = {"validation": held_out}  # measured after each epoch
    trainer = tg.training.Trainer(model, optimizer, *examples, epochs=epochs, batch_size=100, rng=draws, monitor=watch)
    tg.training.run(trainer, [tg.training.EpochLines()])  # the loss is cross-entropy
    tg.nn.load_state_dict(model, trainer.selected())  # those of the best epoch in validation
    accuracy = tg.training.accuracy(model, data.test_images, data.test_labels)
    print(f"test accuracy {accuracy:.4f} on {len(data.test_labels):,} images, which nothing was chosen by")


if __name__ == "__main__":
    main()
