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
    """Metadata of weights: their model, data and epoch, and their accuracy on the images held out, if there are any.

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
    return about
