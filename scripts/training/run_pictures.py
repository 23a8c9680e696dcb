"""The pictures in a run folder: its curves, and what the network gets wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygrad_mnist as tg
from tinygrad_mnist.train import Trainer
from tinygrad_mnist.train.mistakes import plot_mistakes
from tinygrad_mnist.train.plots import plot_curves
from tinygrad_mnist.train.runs import Run

from .settings import Settings


def model_words(settings: Settings, trainer: Trainer) -> str:
    """Say what is trained, and how."""
    count = sum(p.size for p in trainer.weights.values())
    network = f"{len(trainer.model.layers)} layers, {count:,} parameters"
    return f"{network}; {settings.optimizer}, learning rate {settings.lr:g}"


def training_words(settings: Settings) -> str:
    """Say what makes the loss in training another one than that of inference."""
    names = ("dropout", "logit_dropout", "label_smoothing", "augment")
    found = [f"{name.replace('_', ' ')} {value:g}" for name in names if (value := getattr(settings, name))]
    return f"in training: {', '.join(found)}" if found else ""


def draw_run(
    run: Run, settings: Settings, trainer: Trainer, data: tg.data.Dataset, logits: Any, note: str = ""
) -> None:
    """Write curves.png, and where there are `logits` of the test images mistakes.png; `note` ends their first line.

    With `shifts` the logits are sums over an image and its four copies; the probabilities are those of the means.
    """
    schedule = f" ({settings.schedule})" * (settings.schedule != "constant")
    digits = "synthetic digits" if data.synthetic else run.rows[-1]["data"]
    what, how = f"{run.folder.name}, {digits}", f"{note}\n{model_words(settings, trainer)}{schedule}"
    words = training_words(settings)
    plot_curves(run.rows, run.folder / "curves.png", what + how, loss="cross-entropy (nats)", note=words)
    if logits is not None:
        mean = logits.astype(np.float64) / (5 if settings.shifts else 1)
        title = f"{what}, test images{how}"
        plot_mistakes(data.test_images, data.test_labels, mean, run.folder / "mistakes.png", title)
