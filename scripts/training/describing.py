"""What the files of weights of a run say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tinygrad_mnist as tg
from models.pretrained import describe, describe_data
from tinygrad_mnist.train import Trainer

from .settings import Settings


def describe_weights(
    settings: Settings,
    data: tg.data.Dataset,
    trainer: Trainer,
    threads: int | None,
    row: Mapping[str, Any],
    weights: Mapping[str, Any],
) -> dict[str, str]:
    """Metadata of weights: their model, data, epoch and accuracy, and the temperature of their logits.

    Accuracy and temperature are measured on the images held out. Without such, there is no accuracy, and the
    temperature is that of the training images that are measured: much nearer to the right one than 1 is.

    Parameters
    ----------
    settings, data, trainer
        Of the run.
    threads : int, optional
        Changes no bit of the result.
    row : dict
        Of the epoch in `Trainer.history`; empty before the first one has ended.
    weights : dict of str to ndarray
    """
    network = {name: getattr(settings, name) for name in settings.NETWORK}
    about = describe("deep_convnet.DeepConvNet", **network)
    about["data"] = describe_data(data, trainer.examples.size)
    about |= {name: str(row[name]) for name in ("epoch", "validation_accuracy") if name in row}
    if "validation" in trainer.monitor:
        about["data"] += f", {len(trainer.monitor['validation'][1]):,} others held out"
    images, labels = trainer.monitor.get("validation", trainer.monitor["train"])
    model = settings.network()
    tg.nn.load_state_dict(model, weights)
    temperature = tg.training.fit_temperature(tg.training.outputs(model, images, threads), labels)
    kind = "images held out" if "validation" in trainer.monitor else "training images"
    return {**about, "temperature": f"{temperature:.6g}", "temperature from": f"{len(labels):,} {kind}"}
