"""Trained classifiers of digits: the weights of this folder, or those of a run or a file of your own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

__all__ = ["SHIPPED", "Classifier", "load_classifier"]

SHIPPED = Path(__file__).with_name("deep_convnet.safetensors")


@dataclass(frozen=True)
class Classifier:
    """A trained model of images (N, 28, 28), and what is known about it."""

    model: Any  # images (N, 28, 28) uint8, or a Tensor of floats in [0, 1] -> logits (N, 10)
    name: str  # such as "deep_convnet.DeepConvNet"
    path: Path  # of the weights
    temperature: float = 1.0  # that logits are divided by
    metadata: dict[str, str] = field(default_factory=dict)  # all that the file says


def load_classifier(path: str | os.PathLike[str] = SHIPPED) -> Classifier:
    """Load a trained classifier from a file of weights, by default the one that stands here."""
    model = DeepConvNet()
    tg.nn.load_state_dict(model, tg.checkpoint.load_weights(path, like=model))
    return Classifier(model, "deep_convnet.DeepConvNet", Path(path))
