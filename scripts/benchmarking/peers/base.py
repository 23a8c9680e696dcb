"""What a framework that is measured must offer, and what several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[3]
Array: TypeAlias = npt.NDArray[Any]
CONVOLUTIONS = ((16, 0), (16, 0), (32, 0), (32, 0), (64, 1), (64, 1))  # filters, padding; every second: max-pooling
HIDDEN, CLASSES, RATE, EPS = 50, 10, 0.01, 1e-7
CHAIN_LENGTH = 1000  # small ops
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.775, 2.0315), 5  # of Muon
EVALUATED = 1000  # test images at a time


class Learner(Protocol):
    """The network of one framework, while it is trained by a recipe."""

    def step(self, images: Array, labels: Array, lr: float, fresh: float) -> float:
        """Train on one batch, move the averages towards the weights by the share `fresh`, and return the loss."""

    def take_average(self) -> None:
        """Replace the weights by their averages."""

    def logits(self, images: Array) -> Array:
        """Return the logits (N, 10) of images, in inference."""


class Peer:
    """One framework; created in a process of its own, which is started with `environment`."""

    package = ""  # the module to import
    eager = True  # whether a chain of small ops is measured
    imported = True  # whether the import is measured
    warm_up = 1  # calls until everything is compiled
    reduced = False  # whether it computes in less than float32
    by_recipe = False  # whether it can be trained by a recipe

    @classmethod
    def environment(cls, threads: int) -> dict[str, str]:
        return {f"{library}_NUM_THREADS": str(threads) for library in ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM")}

    def __init__(self, threads: int, seed: int) -> None:
        raise NotImplementedError

    def step(self, images: Array, labels: Array) -> float:
        """Train on one batch and return the loss."""
        raise NotImplementedError

    def predict(self, images: Array) -> Array:
        """Return the class of each image."""
        raise NotImplementedError

    def chain(self) -> None:
        """Run a chain of `CHAIN_LENGTH` multiplications and additions of 10 numbers, forward and backward."""
        raise NotImplementedError

    @classmethod
    def learner(cls, weights: list[Array], settings: Mapping[str, Any], threads: int) -> Learner:
        """Return the network with these weights, in the order of `he_weights`; those of the first layer stay."""
        raise NotImplementedError

    @classmethod
    def train(cls, recipe: Mapping[str, Any], data: Mapping[str, Array], threads: int) -> float:
        """Train by a recipe and return the test accuracy.

        `recipe` has the settings, and for every step the learning rate in `rates` and the share of the weights that
        goes into their averages in `fresh`. `data` has the images, their labels, and the filters of the first layer.
        """
        settings, images, labels = recipe["settings"], data["images"], data["labels"].astype(np.int64)
        rng, size = np.random.default_rng(settings["seed"]), settings["batch_size"]
        learner = cls.learner([data["filters"], *he_weights(rng)[1:]], settings, threads)
        batches: list[Array] = []
        for lr, fresh in zip(recipe["rates"], recipe["fresh"], strict=True):
            if not batches:
                order = rng.permutation(len(images))
                batches = [order[begin : begin + size] for begin in range(0, len(images), size)]
            batch = batches.pop(0)
            learner.step(images[batch], labels[batch], lr, fresh)
        learner.take_average()
        test, truth = data["test_images"], data["test_labels"]
        parts = [learner.logits(test[begin : begin + EVALUATED]) for begin in range(0, len(test), EVALUATED)]
        return float(np.mean(np.concatenate(parts).argmax(axis=1) == truth))


def he_weights(rng: np.random.Generator) -> list[Array]:
    """Draw weight and bias of every layer: (F, C, 3, 3) and (F,), (inputs, outputs) and (outputs,)."""
    weights, channels = [], 1
    for filters, _ in CONVOLUTIONS:
        weights += [rng.standard_normal((filters, channels, 3, 3)) * np.sqrt(2 / (9 * channels)), np.zeros(filters)]
        channels = filters
    for inputs, outputs in ((channels * 4, HIDDEN), (HIDDEN, CLASSES)):
        weights += [rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs), np.zeros(outputs)]
    return [w.astype(np.float32) for w in weights]


def adagrad(w: Any, g: Any, h: Any) -> tuple[Any, Any]:
    """Return the new w and h after a step, for frameworks without an AdaGrad of their own."""
    h = h + g * g
    return w - RATE * g / (h**0.5 + EPS), h
