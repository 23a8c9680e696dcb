"""The network with the mistakes of the paper's listings, to measure what each does to training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from command_line import option
from training.settings import Settings

import tinygrad_mnist as tg
from models.deep_convnet import Affine, DeepConvNet


class ListedLoss:
    """Softmax and cross-entropy as the paper's listing has them.

    Parameters
    ----------
    eps : float
        Added to each probability before the logarithm.
    over_batch : bool
        Take maximum and sum of the softmax over the whole batch (that is, over a shard of it: train with one shard)
        instead of each row.
    """

    def __init__(self, eps: float = 1e-7, over_batch: bool = False) -> None:
        self.eps, self.over_batch = eps, over_batch

    def __call__(self, logits: tg.Tensor, target: Any) -> tg.Tensor:
        chosen, classes = np.asarray(target), logits.shape[1]
        if chosen.ndim == 1 and len(unknown := np.setdiff1d(chosen, np.arange(classes))):
            raise ValueError(f"ListedLoss: target has {unknown[0]}, but the classes are 0 to {classes - 1}")
        one_hot = (chosen if chosen.ndim == 2 else np.eye(classes)[chosen]).astype(logits.dtype)
        log_softmax = logits - tg.logsumexp(logits, axis=None if self.over_batch else 1, keepdims=True)
        likely = tg.sum(log_softmax * one_hot, axis=1)  # (N, K) -> (N,)
        return -tg.mean(tg.log(tg.exp(likely) + self.eps) if self.eps else likely)

    def __repr__(self) -> str:
        return f"ListedLoss(eps={self.eps:g}, over_batch={self.over_batch})"


class ListedNet(DeepConvNet):
    """`DeepConvNet` with mistakes put back; without arguments it is the same network.

    Parameters
    ----------
    rng, **arguments
        Those of `DeepConvNet`.
    divisor : float
        What uint8 pixels are divided by: 255 scales them to [0, 1], 1 leaves them as they are.
    affine_fan_in : int, optional
        Number of inputs that the initial weights of the first affine layer are made for; by default its own (256 with 6
        convolutions). The paper's listing has 1024.
    loss_eps : float
        Added to each probability before the logarithm; the paper's listing has 1e-7. 0 is the exact cross-entropy.
    softmax_over_batch : bool
        Take the softmax in the loss over the whole batch, as the listing does, instead of over each image's logits.
    """

    def __init__(
        self,
        rng: np.random.Generator | None = None,
        *,
        divisor: float = 255,
        affine_fan_in: int | None = None,
        loss_eps: float = 0.0,
        softmax_over_batch: bool = False,
        **arguments: Any,
    ) -> None:
        if not divisor > 0 or not loss_eps >= 0 or (affine_fan_in is not None and affine_fan_in < 1):
            raise ValueError(
                f"ListedNet: divisor is {divisor!r}, loss_eps {loss_eps!r}, affine_fan_in {affine_fan_in!r}; they "
                "must be above 0, at least 0, and at least 1 (or None)"
            )
        super().__init__(rng, **arguments)
        self.divisor = divisor
        if affine_fan_in is not None:
            affine = next(layer for layer in self.layers if isinstance(layer, Affine))
            weight = affine.weight.data * math.sqrt(affine.weight.shape[0] / affine_fan_in)
            affine.weight.data = weight.astype(self.dtype)
        if loss_eps or softmax_over_batch:
            self.layers[-1] = ListedLoss(loss_eps, softmax_over_batch)

    def input(self, images: Any) -> tg.Tensor:
        """Convert images as `DeepConvNet` does, but divide pixels by `divisor`."""
        if not isinstance(images, tg.Tensor) or images.dtype == np.uint8:
            images = np.asarray(images)
        return super().input(np.divide(images, self.divisor, dtype=self.dtype) if images.dtype == np.uint8 else images)


@dataclass(frozen=True, kw_only=True)
class ListedSettings(Settings):
    """`Settings` of a run with mistakes of the listings; the defaults have none of them."""

    dtype: str = option("float32", "of weights and activations", choices=("float32", "float64"))
    divisor: float = option(255, "what pixels are divided by", least=0)
    affine_fan_in: int | None = option(None, "inputs that the first affine layer's weights are made for", least=1)
    loss_eps: float = option(0.0, "added to each probability before the logarithm", least=0)
    softmax_over_batch: bool = option(False, "take the softmax in the loss over the whole batch")

    def network(self, rng: np.random.Generator | None = None) -> ListedNet:
        """Return the network that these settings describe."""
        mistakes = ("dtype", "divisor", "affine_fan_in", "loss_eps", "softmax_over_batch")
        return ListedNet(rng, **{name: getattr(self, name) for name in (*self.NETWORK, *mistakes)})
