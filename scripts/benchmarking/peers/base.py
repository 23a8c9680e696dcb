"""What a framework that is measured must offer, and what several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[3]
Array: TypeAlias = npt.NDArray[Any]
CONVOLUTIONS = ((16, 0), (16, 0), (32, 0), (32, 0), (64, 1), (64, 1))  # filters, padding; every second: max-pooling
HIDDEN, CLASSES, RATE, EPS = 50, 10, 0.01, 1e-7
CHAIN_LENGTH = 1000  # small ops


class Peer:
    """One framework; created in a process of its own, which is started with `environment`."""

    package = ""  # the module to import
    eager = True  # whether a chain of small ops is measured
    imported = True  # whether the import is measured
    warm_up = 1  # calls until everything is compiled
    reduced = False  # whether it computes in less than float32

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
