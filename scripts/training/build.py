"""From settings and data to a trainer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.train import Trainer, hold_out

from .settings import OPTIMIZERS, SCHEDULES, Settings

PATCHED = 500  # images whose patches decide the filters that whiten
MEASURED = 1000  # images that the accuracy on the training images, and the paper's on the test images, is measured on


def make_trainer(
    settings: Settings, data: tg.data.Dataset, threads: int | None = None, weights: Path | None = None
) -> Trainer:
    """Model, optimizer and data of a run, as its settings say; `threads` changes no bit of the result.

    The weights are those of a file, if one is given, else random ones.

    Examples
    --------
    >>> images, labels = tg.data.synthetic_digits(60, rng=np.random.default_rng(0))
    >>> data = tg.data.Dataset(images, labels, images[:20], labels[:20], "60 digits", True)
    >>> settings = Settings.from_recipe("best", epochs=1, batch_size=30)
    >>> [step.last for step in make_trainer(settings, data).steps()]
    [False, True]
    """
    if settings.shifts >= (size := min(data.images.shape[1:])):  # told now, not after training
        raise ValueError(f"--shifts {settings.shifts} moves images of {size} pixels out of sight; use 1, say")
    init, split, draws = np.random.default_rng(settings.seed).spawn(3)
    images, labels = data.images[: settings.limit], data.labels[: settings.limit]
    training, validation = hold_out(labels, settings.validation_images(len(images)), split)
    model = settings.network(init)
    if settings.whiten:
        whiten(model, images[training[:PATCHED]], settings.whiten)
    if settings.freeze_first:
        model.layers[0].weight.requires_grad = model.layers[0].bias.requires_grad = False
    if weights is not None:
        tg.nn.load_state_dict(model, tg.checkpoint.load_weights(weights, like=model))
    optimizer, own = OPTIMIZERS[settings.optimizer]
    monitor = {"train": (images[training[:MEASURED]], labels[training[:MEASURED]])}
    if len(validation):
        monitor["validation"] = images[validation], labels[validation]
        images, labels = images[training], labels[training]
    if settings.paper_protocol:
        monitor["test"] = data.test_images[:MEASURED], data.test_labels[:MEASURED]
    distort = partial(tg.data.augment, strength=settings.augment) if settings.augment else None
    if distort:
        distort(images[:0], draws)  # raises for a strength that makes no sense, and draws nothing
    return Trainer(
        model,
        optimizer(tg.nn.parameters(model), **{name: getattr(settings, name) for name in own}),
        images,
        labels,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        rng=draws,
        monitor=monitor,
        schedule=tg.schedules.warmup(SCHEDULES[settings.schedule][0], settings.warmup or 0.0),
        augment=distort,
        average=settings.average or None,
        patience=settings.patience,
        shard_size=settings.shard_size,
        threads=threads,
    )


def whiten(model: DeepConvNet, images: Any, deviation: float) -> None:
    """Give the first convolution filters that whiten patches of images, with outputs of this size."""
    first = model.layers[0]
    filters = tg.nn.whitening_filters(model.input(images), len(first.bias), first.weight.shape[2:])
    first.weight.data = np.float32(deviation) * filters
