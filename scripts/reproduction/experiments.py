"""The paper's experiments, as one table: what it says, what it printed, which runs to compare with it.

Source: "A 21-layer deep convolutional neural network in Python", December 2022 (a student paper, in Chinese).

A measure is named by a kind and, after an @, an epoch: ``test_accuracy`` (all test images, at the end), ``mean_loss@3``
(of the third epoch), ``drop@3`` (that, divided by the first epoch's), ``fall`` (mean loss of the last tenth of epoch 1,
divided by the first step's), ``train_accuracy@3`` and ``test_accuracy@3`` (as the paper counts: on 1,000 images, before
the third epoch).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from .listed import ListedSettings

Changes = Mapping[str, Any]  # of the paper's settings


@dataclass(frozen=True)
class Figure:
    """A number that the paper printed."""

    variant: str
    measure: str
    paper: float


@dataclass(frozen=True)
class Claim:
    """Something the paper says that the data can deny.

    With `than`, each of `measures` of `variant` is higher (`sign` 1) or lower (-1) than that of each other one; with
    `within`, it lies between two numbers. A claim of `ours` is no claim of the paper.
    """

    text: str
    variant: str
    measures: tuple[str, ...]
    than: tuple[str, ...] = ()
    sign: int = 1
    within: tuple[float, float] | None = None
    ours: bool = False


@dataclass(frozen=True)
class Experiment:
    """Runs to compare with each other and with the paper; each variant is a change of the paper's settings."""

    name: str
    title: str
    paper: str
    variants: Mapping[str, Changes]
    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] = ()
    quick: frozenset[str] = field(default=frozenset())  # the variants that --quick runs; none given: all

    def configurations(
        self, seeds: Iterable[int], epochs: int | None, quick: bool
    ) -> dict[tuple[str, int], dict[str, Any]]:
        """Everything to run, by variant and seed."""
        return {
            (name, seed): configuration(changes, seed, epochs, quick)
            for name, changes in self.variants.items()
            for seed in seeds
            if not (quick and self.quick and name not in self.quick)
        }


EPOCHS = range(1, 9)
QUICK = {"limit": 8_000}  # and no more epochs than the paper, and fewer images held out
QUICK_SAYS = (
    "This is a QUICK look, without verdicts: one seed and 8,000 of the 60,000 training images, so about an eighth of "
    "the steps, show that everything runs; they cannot judge what the paper says of whole runs. Leave out --quick for "
    "that."
)


def configuration(changes: Changes, seed: int, epochs: int | None = None, quick: bool = False) -> dict[str, Any]:
    """All settings of one run, as they are stored: the paper's protocol, changed."""
    changes = {"paper_protocol": True, **changes, **(QUICK if quick else {}), "seed": seed}
    if quick and changes.get("validation"):
        changes["validation"] = 1000
    settings = ListedSettings.from_recipe(**changes)
    most = [limit for limit in (epochs, EPOCHS[-1] if quick else None) if limit is not None]
    config = asdict(replace(settings, epochs=min([settings.epochs, *most])))
    del config["recipe"]  # where settings come from decides nothing
    return config


END = ("test_accuracy",)  # what claims about the end of a run measure
RATES = {"5e-2": 0.4955, "3e-2": 0.9786, "1e-2": 0.9930, "3e-3": 0.9838, "3e-5": 0.6507, "3e-7": 0.1795}
ACCURACY = {
    "train": (0.154, 0.977, 0.989, 0.990, 0.993, 0.994, 0.995, 0.991),
    "test": (0.132, 0.976, 0.982, 0.984, 0.989, 0.986, 0.989, 0.990),
}
FINAL = 0.9937
DEPTHS = {6: (1.235, 1.053, 0.975), 5: (1.436, 1.225, 1.124), 4: (1.726, 1.465, 1.326)}
DEPTH_NAMES = {6: "6 conv, 6 ReLU, 3 pool", 5: "5 conv, 5 ReLU, 3 pool", 4: "4 conv, 4 ReLU, 2 pool"}
PLATEAU = (1.9, 2.0)  # of Xavier's mean loss, after 4 epochs

CANDIDATES: dict[str, dict[str, Any]] = {
    "pixels from 0 to 255": {"divisor": 1},
    "fan-in 1024 in the first affine layer": {"affine_fan_in": 1024},
    "softmax over the whole batch": {"softmax_over_batch": True, "shard_size": 500},
    "1e-7 inside the logarithm": {"loss_eps": 1e-7},
    "pixels from 0 to 255 together with 1e-7": {"divisor": 1, "loss_eps": 1e-7},
    "float64": {"dtype": "float64"},
    "all five": {
        "divisor": 1,
        "affine_fan_in": 1024,
        "softmax_over_batch": True,
        "shard_size": 500,
        "loss_eps": 1e-7,
        "dtype": "float64",
    },
}
NOTHING = "nothing: as it should be"
VARIANTS: dict[str, dict[str, Any]] = {  # runs that more than one experiment looks at
    "Xavier": {"init": "xavier"},
    **{rate: {"lr": float(rate)} for rate in RATES},
    **{DEPTH_NAMES[depth]: {"depth": depth, **({} if depth == 6 else {"epochs": 3})} for depth in DEPTHS},
}
TARGETS: dict[
    str, tuple[str, int, str, float]
] = {  # what is unlike our figures: variant, epochs needed, measure, the paper's figure
    "Xavier: mean loss of epoch 5": ("Xavier", 5, "mean_loss@5", sum(PLATEAU) / 2),
    **{f"learning rate {rate}: final accuracy": (rate, 8, "test_accuracy", RATES[rate]) for rate in ("5e-2", "3e-5")},
    **{f"{d} convolutions: mean loss of epoch 1": (DEPTH_NAMES[d], 1, "mean_loss@1", DEPTHS[d][0]) for d in DEPTHS},
}


def candidate_variant(candidate: str, target: str) -> str:
    """Name of the run that shows what a candidate explanation does to a target."""
    return f"{target} | {candidate}"


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        experiment.name: experiment
        for experiment in (
            Experiment(
                "learning-rate",
                "The learning rate",
                "AdaGrad with six learning rates, batches of 500, 8 epochs: the final test accuracy is highest, "
                "99.30 %, with 0.01; with 0.05 it is 49.55 %.",
                {rate: VARIANTS[rate] for rate in RATES},
                tuple(Figure(rate, "test_accuracy", value) for rate, value in RATES.items()),
                (
                    Claim(
                        "0.01 gives the highest final accuracy of the six",
                        "1e-2",
                        END,
                        tuple(r for r in RATES if r != "1e-2"),
                    ),
                    Claim(
                        "with 0.05 training goes wrong: half of the test images or more are missed",
                        "5e-2",
                        END,
                        within=(-math.inf, 0.5),
                    ),
                ),
            ),
            Experiment(
                "initialisation",
                "He's initial weights against Xavier's",
                "With He's initial weights (standard deviation √(2/n)) the mean loss of an epoch falls steeply "
                "within 2 epochs and goes on falling; with Xavier's (√(1/n)) it flattens at about 1.9–2.0 after 4.",
                {"He": {}, "Xavier": VARIANTS["Xavier"]},
                claims=(
                    Claim(
                        "He's mean loss has fallen by a quarter or more in the second epoch",
                        "He",
                        ("drop@2",),
                        within=(-math.inf, 0.75),
                    ),
                    Claim(
                        "He's mean loss is lower than Xavier's in the last epoch",
                        "He",
                        ("mean_loss@8",),
                        ("Xavier",),
                        -1,
                    ),
                    Claim(
                        "after 4 epochs Xavier's loss stays between 1.9 and 2.0",
                        "Xavier",
                        tuple(f"mean_loss@{e}" for e in EPOCHS[4:]),
                        within=PLATEAU,
                    ),
                ),
            ),
            Experiment(
                "epochs",
                "Accuracy against epochs",
                "With the learning rate 0.01, the accuracy on 1,000 training and 1,000 test images, each measured "
                "near the start of an epoch (so the first is the untrained network's), is above 97 % after one epoch "
                "and about 99 % after seven; the final accuracy, on all test images, is 99.37 %.",
                {"paper": {}},
                (
                    *(
                        Figure("paper", f"{kind}_accuracy@{e}", ACCURACY[kind][e - 1])
                        for kind in ACCURACY
                        for e in EPOCHS
                    ),
                    Figure("paper", "test_accuracy", FINAL),
                ),
                (
                    Claim(
                        "after one epoch 97 % or more of the test images are right",
                        "paper",
                        ("test_accuracy@2",),
                        within=(0.97, math.inf),
                    ),
                    Claim(
                        "after seven epochs 98.5 % or more are", "paper", ("test_accuracy@8",), within=(0.985, math.inf)
                    ),
                ),
            ),
            Experiment(
                "depth",
                "Six, five or four convolutions",
                "Mean training loss of the epochs 1, 2 and 3: the deeper network learns faster.",
                {name: VARIANTS[name] for name in DEPTH_NAMES.values()},
                tuple(Figure(DEPTH_NAMES[d], f"mean_loss@{e}", DEPTHS[d][e - 1]) for d in DEPTHS for e in (1, 2, 3)),
                tuple(
                    Claim(
                        f"{d} convolutions have a lower loss than {d - 1} in the epochs 1, 2 and 3",
                        DEPTH_NAMES[d],
                        ("mean_loss@1", "mean_loss@2", "mean_loss@3"),
                        (DEPTH_NAMES[d - 1],),
                        -1,
                    )
                    for d in (6, 5)
                ),
            ),
            Experiment(
                "steps",
                "The loss of every step",
                "The loss of every step over 8 epochs falls sharply within epoch 1 and then stays on a noisy plateau "
                "around 0.8–1.05 (that high because half of the logits are dropped in training).",
                {"paper": {}},
                claims=(
                    Claim(
                        "the last tenth of epoch 1 is below half of the first step's loss",
                        "paper",
                        ("fall",),
                        within=(-math.inf, 0.5),
                    ),
                    Claim(
                        "the mean loss of each epoch from the second on is between 0.8 and 1.05",
                        "paper",
                        tuple(f"mean_loss@{e}" for e in EPOCHS[1:]),
                        within=(0.8, 1.05),
                    ),
                ),
            ),
            Experiment(
                "explanations",
                "Why the paper saw otherwise",
                "Some of the paper's figures are not those of the network that it describes. Its listings have "
                "mistakes; each was put back alone, and some together, to see whether it brings those figures back.",
                {
                    candidate_variant(candidate, target): {
                        **VARIANTS[variant],
                        **({"epochs": epochs, **mistake} if mistake else {}),
                    }
                    for candidate, mistake in {NOTHING: {}, **CANDIDATES}.items()
                    for target, (variant, epochs, _, _) in TARGETS.items()
                },
                quick=frozenset(
                    candidate_variant(candidate, next(iter(TARGETS))) for candidate in [NOTHING, *CANDIDATES]
                ),
            ),
            Experiment(
                "recipes",
                "The same 21 layers, trained better",
                f"The best final accuracy that the paper reports is {100 * FINAL:.2f} %.",
                {
                    "paper's recipe": {"paper_protocol": False, "validation": 5000},
                    "best recipe": {"paper_protocol": False, "recipe": "best"},
                },
                claims=(
                    Claim(
                        f"the best recipe reaches the paper's {100 * FINAL:.2f} %",
                        "best recipe",
                        END,
                        within=(FINAL, math.inf),
                        ours=True,
                    ),
                    Claim("it reaches 99.60 %", "best recipe", END, within=(0.996, math.inf), ours=True),
                    Claim("it is better than the paper's recipe", "best recipe", END, ("paper's recipe",), ours=True),
                ),
            ),
        )
    }
)
