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

OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, float]]] = {  # with their settings, and the defaults of those
    "adagrad": (tg.optim.AdaGrad, {"lr": 0.01}),
    "sgd": (tg.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "adam": (tg.optim.Adam, {"lr": 0.001}),
    "adamw": (tg.optim.AdamW, {"lr": 0.001, "weight_decay": 0.01}),
}
SCHEDULES = {"constant": tg.schedules.constant, "cosine": tg.schedules.cosine, "step": tg.schedules.step_decay}
RECIPES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result of a run; the defaults are the paper's.

    `lr`, `momentum` and `weight_decay` become the optimizer's own where they are None, and stay None where it has no
    such setting.

    Examples
    --------
    >>> Settings(depth=5).lr, Settings.from_recipe("best").optimizer
    (0.01, 'adamw')
    """

    NETWORK: ClassVar = ("init", "depth", "dropout", "logit_dropout", "rescale")  # arguments of the network

    recipe: str = option(
        "paper",
        "settings to begin with: the paper's, or our best ones for this network, which take longer and train on all "
        "images; other options change them (default: {default}, whose values are given)",
        choices=tuple(RECIPES),
    )
    epochs: int = option(8, "times to go through the training images", least=1)
    batch_size: int = option(500, "images per step", least=1)
    optimizer: str = option("adagrad", "", choices=tuple(OPTIMIZERS))
    lr: float | None = option(None, "learning rate (default: 0.01; 0.001 for adam and adamw)", least=0)
    momentum: float | None = option(None, "for sgd alone (default: 0.9)", least=0)
    weight_decay: float | None = option(None, "for adamw alone (default: 0.01)", least=0, metavar="W")
    schedule: str = option(
        "constant",
        "of the learning rate; step: a tenth of it after 1/2 and again after 3/4, not counting --warmup",
        choices=tuple(SCHEDULES),
    )
    warmup: float = option(
        0.0,
        "of all steps, in which the learning rate first rises to where the schedule begins",
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
        if self.paper_protocol and (self.validation or self.patience):
            raise ValueError("--paper-protocol holds no images out; leave out --validation and --patience")
        own = OPTIMIZERS[self.optimizer][1]
        for name in ("lr", "momentum", "weight_decay"):
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
        own = OPTIMIZERS.get(values.get("optimizer", cls.optimizer), (None, {}))[1]
        foreign = {"momentum", "weight_decay"} - own.keys() - changes.keys()
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
        if values.get("optimizer", cls.optimizer) in list(OPTIMIZERS):
            own = OPTIMIZERS[values.get("optimizer", cls.optimizer)][1]
            values = {name: v for name, v in values.items() if name not in {"momentum", "weight_decay"} - own.keys()}
        return cls(**values)

    def network(self, rng: np.random.Generator | None = None) -> DeepConvNet:
        """Return the network that these settings describe."""
        return DeepConvNet(rng, **{name: getattr(self, name) for name in self.NETWORK})

    def validation_images(self, available: int) -> int:
        """How many of the available training images are held out for validation."""
        if self.validation is not None:
            return self.validation
        return 0 if self.paper_protocol else min(5000, available // 10)
