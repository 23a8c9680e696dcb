"""How the 21 layers are trained.

Everything that decides a result, as one table, and the recipes of the paper and of our own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from tinygrad_mnist.train import Trainer, hold_out

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adagrad": tg.optim.AdaGrad,
    "sgd": tg.optim.SGD,
    "adam": tg.optim.Adam,
    "adamw": tg.optim.AdamW,
}
LEARNING_RATE = {"adagrad": 0.01, "sgd": 0.01, "adam": 0.001, "adamw": 0.001}  # where none is given
OWN = {"sgd": "momentum", "adamw": "weight_decay"}  # the settings that only one optimiser has
SCHEDULES = {"constant": tg.schedules.constant, "cosine": tg.schedules.cosine, "step": tg.schedules.step_decay}
MODEL: dict[str, Any] = {  # arguments of DeepConvNet; the last five are the paper's mistakes, put right
    "init": "he",
    "depth": 6,
    "dropout": 0.5,
    "logit_dropout": 0.5,
    "rescale": "test",
    "dtype": "float32",
    "divisor": 255,
    "affine_fan_in": None,
    "loss_eps": 0.0,
    "softmax_over_batch": False,
}
TRAINING: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 500,
    "optimizer": "adagrad",
    "lr": None,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "schedule": "constant",
    "warmup": 0.0,
    "augment": 0.0,
    "average": None,
    "seed": 0,
    "validation": None,
    "patience": None,
    "limit": None,
    "shard_size": None,
    "paper_protocol": False,
}
RECIPES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
MEASURED = 1000  # images that the accuracy on the training images, and the paper's on the test images, is measured on


def settings(recipe: str = "paper", **changes: Any) -> dict[str, Any]:
    """Everything that decides a run: the paper's settings, those of a recipe, and what is changed, with nothing left
    open but `validation`.

    Examples
    --------
    >>> settings(depth=5)["lr"], settings("best")["optimizer"]
    (0.01, 'adamw')
    """
    config = {**MODEL, **TRAINING, **RECIPES[recipe], **changes}
    if unknown := changes.keys() - MODEL.keys() - TRAINING.keys():
        raise ValueError(
            f"settings: there is no {', '.join(sorted(unknown))}; there are {', '.join([*MODEL, *TRAINING])}"
        )
    if config["lr"] is None:
        config["lr"] = LEARNING_RATE[config["optimizer"]]
    return config


def held_out(config: Mapping[str, Any], available: int) -> int:
    """How many of the training images are held out for validation."""
    if config["validation"] is None:
        return 0 if config["paper_protocol"] else min(5000, available // 10)
    return int(config["validation"])


def make_trainer(config: Mapping[str, Any], data: tg.data.Dataset, threads: int | None = None) -> Trainer:
    """Model, optimiser and data of a run, as its `settings` say; `threads` changes no bit of the result.

    Examples
    --------
    >>> images, labels = tg.data.synthetic_digits(60, rng=np.random.default_rng(0))
    >>> data = tg.data.Dataset(images, labels, images[:20], labels[:20], "60 digits", True)
    >>> [step.last for step in make_trainer(settings("best", epochs=1, batch_size=30), data).steps()]
    [False, True]
    """
    init, split, draws = np.random.default_rng(config["seed"]).spawn(3)
    model = DeepConvNet(rng=init, **{name: config[name] for name in MODEL})
    own = {name: config[name] for kind, name in OWN.items() if kind == config["optimizer"]}
    optimizer = OPTIMIZERS[config["optimizer"]](tg.nn.parameters(model), lr=config["lr"], **own)
    images, labels = data.images[: config["limit"]], data.labels[: config["limit"]]
    training, held = hold_out(labels, held_out(config, len(images)), split)
    monitor = {"train": (images[training[:MEASURED]], labels[training[:MEASURED]])}
    if len(held):
        monitor["validation"] = images[held], labels[held]
    if config["paper_protocol"]:
        monitor["test"] = data.test_images[:MEASURED], data.test_labels[:MEASURED]
    distort = partial(tg.data.augment, strength=config["augment"]) if config["augment"] else None
    if distort:
        distort(images[:0], draws)  # refuses what makes no sense now, and draws nothing
    schedule = tg.schedules.warmup(SCHEDULES[config["schedule"]], config["warmup"])
    return Trainer(
        model,
        optimizer,
        images[training],
        labels[training],
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        rng=draws,
        monitor=monitor,
        schedule=schedule,
        augment=distort,
        average=config["average"] or None,
        patience=config["patience"],
        shard_size=config["shard_size"],
        threads=threads,
    )
