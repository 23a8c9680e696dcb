"""The settings of a training run, as one dataclass: options, help, defaults, config.json and recipes follow from it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from command_line import check_values, option

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {  # with their settings, and the defaults of those
    "adagrad": (tg.optim.AdaGrad, {"lr": 0.01}),
    "sgd": (tg.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "adam": (tg.optim.Adam, {"lr": 0.001, "betas": (0.9, 0.999)}),
    "adamw": (tg.optim.AdamW, {"lr": 0.001, "betas": (0.9, 0.999), "weight_decay": 0.01}),
    "muon": (tg.optim.Muon, {"lr": 0.001, "momentum": 0.95, "betas": (0.9, 0.999), "weight_decay": 0.01}),
}
OWN = ("lr", "momentum", "betas", "weight_decay")  # settings of some optimizers
SCHEDULES: dict[str, tuple[Callable[[int, int], float], float]] = {  # behind the warmup, and the share of that
    "constant": (tg.schedules.constant, 0.0),
    "cosine": (tg.schedules.cosine, 0.0),
    "step": (tg.schedules.step_decay, 0.0),
    "one-cycle": (tg.schedules.linear, 0.25),
}
TABLES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text(encoding="utf-8"))
RECIPES = {
    name: TABLES.get(table.get("like", ""), {}) | {key: value for key, value in table.items() if key != "like"}
    for name, table in TABLES.items()
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result of a run; the defaults are the paper's.

    `lr`, `momentum`, `betas` and `weight_decay` become the optimizer's own where they are None, and stay None where it
    has no such setting; `warmup` becomes the schedule's.

    Examples
    --------
    >>> Settings(depth=5).lr, Settings.from_recipe("best").optimizer
    (0.01, 'muon')
    """

    NETWORK: ClassVar = ("init", "depth", "dropout", "logit_dropout", "rescale", "label_smoothing")  # its arguments

    recipe: str = option(
        "paper",
        "settings to begin with: the paper's; fast ones, for 99 %%; short ones, for the paper's 99.37 %%; best ones "
        "for this network; other options change them (default: {default}, whose values are given)",
        choices=tuple(RECIPES),
    )
    epochs: float = option(
        8, "times to go through the training images; 0.6 and 1.25, say, end within an epoch", above=0
    )
    batch_size: int = option(500, "images per step", least=1)
    optimizer: str = option("adagrad", "", choices=tuple(OPTIMIZERS))
    lr: float | None = option(None, "learning rate (default: 0.01; 0.001 for adam, adamw and muon)", least=0)
    momentum: float | None = option(None, "for sgd (default: 0.9) and muon (default: 0.95)", least=0)
    betas: tuple[float, ...] | None = option(
        None,
        "of the running means of gradients and of their squares, for adam, adamw and muon (default: 0.9 0.999)",
        least=0,
        metavar="BETA",
    )
    weight_decay: float | None = option(None, "for adamw and muon (default: 0.01)", least=0, metavar="W")
    schedule: str = option(
        "constant",
        "of the learning rate; step: a tenth of it after 1/2 and again after 3/4, not counting --warmup; one-cycle: up "
        "and down along straight lines",
        choices=tuple(SCHEDULES),
    )
    warmup: float | None = option(
        None,
        "of all steps, in which the learning rate first rises to where the schedule begins (default: 0; 0.25 for "
        "one-cycle)",
        least=0,
        metavar="SHARE",
    )
    init: str = option("he", "initial weights", choices=("he", "xavier"))
    depth: int = option(6, "number of convolutions (default: {default}, 21 layers)", choices=(6, 5, 4))
    seed: int = option(0, "decides weights, order and dropout", least=0)
    validation: int | None = option(
        None,
        "training images held out, with all digits in proportion, to select the weights (default: 5000, or a tenth "
        "of fewer than 50000 images; 0 trains on all and takes the last weights)",
        least=0,
        metavar="N",
    )
    patience: int | None = option(
        None,
        "stop when N epochs in a row were no better on the images held out (default: never)",
        least=1,
        metavar="N",
    )
    paper_protocol: bool = option(
        False,
        "as the paper did: train on all images, look at 1000 training and 1000 test images before each epoch, take "
        "the last weights; everything says so",
    )
    augment: float = option(
        0.0,
        "train on images that are shifted, turned, stretched, slanted and bent anew each time (1 if no strength is "
        "given; default: 0, not at all)",
        least=0,
        metavar="STRENGTH",
        bare=1.0,
    )
    average: float | None = option(
        None, "use a moving average of the weights, 0.999, say (default: 0, do not)", least=0, metavar="DECAY"
    )
    label_smoothing: float = option(
        0.0, "the share of each target that is spread evenly over all classes, in training", least=0, metavar="SHARE"
    )
    whiten: float = option(
        0.0,
        "begin with filters of the first convolution that whiten patches of the training images, with outputs of this "
        "standard deviation (0.3 if none is given; default: 0, with random ones)",
        least=0,
        metavar="DEVIATION",
        bare=0.3,
    )
    freeze_first: bool = option(False, "do not train the first convolution: a step takes 0.83 of the time")
    shifts: int = option(
        0,
        "classify a test image by it and its copies that are shifted by N pixels in four directions",
        least=0,
        metavar="N",
    )
    dropout: float = option(0.5, "of hidden units, in training", least=0, metavar="P")
    logit_dropout: float = option(0.5, "of logits, in training", least=0, metavar="P")
    rescale: str = option(
        "test",
        "when dropout makes up for what it drops; train is the inverted kind",
        choices=("test", "train"),
    )
    limit: int | None = option(None, "use only the first N training images", least=1, metavar="N")
    shard_size: int | None = option(
        None,
        "images that one thread computes at a time (default: up to 144, so that 4 threads share a batch evenly); "
        "decides the last bits of the result",
        least=1,
        metavar="N",
    )

    def __post_init__(self) -> None:
        check_values(self)
        if isinstance(self.epochs, float) and self.epochs.is_integer():
            object.__setattr__(self, "epochs", int(self.epochs))
        if self.paper_protocol and (self.validation or self.patience):
            raise ValueError("--paper-protocol holds no images out; leave out --validation and --patience")
        if self.warmup is None:
            object.__setattr__(self, "warmup", SCHEDULES[self.schedule][1])
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(self.betas))  # a list, from JSON or the command line
        own = OPTIMIZERS[self.optimizer][1]
        for name in OWN:
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, own.get(name))
            elif name not in own:
                having = ", ".join(kind for kind, (_, defaults) in OPTIMIZERS.items() if name in defaults)
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} is {value}, but {self.optimizer} has none; leave it out, or use {having}")

    @classmethod
    def from_recipe(cls, recipe: str = "paper", **changes: Any) -> Self:
        """Settings of a recipe, changed; of another optimizer, without what only the recipe's has."""
        values = {**RECIPES[recipe], **changes}
        foreign = _foreign(values.get("optimizer", cls.optimizer)) - changes.keys()
        return cls(recipe=recipe, **{name: value for name, value in values.items() if name not in foreign})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Settings as they were stored, checked like any others; what is not there is the default.

        Version 0.1.0 stored momentum and weight decay with every optimizer; where they had no effect they are left out.

        Raises
        ------
        ValueError
            Naming the first setting that makes no sense.
        """
        values = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        foreign = _foreign(values.get("optimizer", cls.optimizer))
        return cls(**{name: value for name, value in values.items() if name not in foreign})

    def network(self, rng: np.random.Generator | None = None) -> DeepConvNet:
        """Return the network that these settings describe."""
        return DeepConvNet(rng, **{name: getattr(self, name) for name in self.NETWORK})

    def validation_images(self, available: int) -> int:
        """How many of the available training images are held out for validation."""
        if self.validation is not None:
            return self.validation
        return 0 if self.paper_protocol else min(5000, available // 10)


def _foreign(optimizer: Any) -> set[str]:
    """The settings that an optimizer does not have; all of an unknown one are its own."""
    known = isinstance(optimizer, str) and optimizer in OPTIMIZERS
    return set(OWN) - OPTIMIZERS[optimizer][1].keys() if known else set()
