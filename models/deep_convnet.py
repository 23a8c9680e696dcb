"""The 21-layer convolutional network.

6 convolutions, 7 ReLUs, 3 max-pools, 2 affine maps, 2 dropouts, softmax with loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg

CONVOLUTIONS = ((16, 0), (16, 0), (32, 0), (32, 0), (64, 1), (64, 1))  # filters and padding; all 3 x 3 with stride 1
HIDDEN, CLASSES = 50, 10


class Affine(tg.nn.Linear):
    """A linear layer that flattens each image first: (N, C, H, W) -> (N, C*H*W) -> (N, out_features).

    Its initial weights are those of a layer with `fan_in` inputs, if that is given.
    """

    def __init__(self, in_features: int, out_features: int, fan_in: int | None = None, **settings: Any) -> None:
        super().__init__(in_features, out_features, **settings)
        if fan_in is not None:
            weight = self.weight.data * math.sqrt(in_features / fan_in)
            self.weight = tg.Tensor(weight.astype(self.weight.dtype), requires_grad=True)

    def __call__(self, x: tg.Tensor, rng: np.random.Generator | None = None) -> tg.Tensor:
        return super().__call__(x.reshape(len(x), self.weight.shape[0]), rng)


class ListedLoss:
    """Softmax and cross-entropy as the paper's listing has them: not the true loss, but what it does to training can be
    measured.

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


class DeepConvNet:
    """A classifier of 28 x 28 grey images into 10 classes.

    Parameters
    ----------
    rng : numpy.random.Generator, optional
        Draws the initial weights.
    init : {"he", "xavier"}
    depth : {6, 5, 4}
        Number of convolutions. 6: 16-16-pool-32-32-pool-64-64-pool, 21 layers in all. 5 leaves out the last
        convolution, 4 the last two and the last pool; the fully connected part stays.
    dropout : float
        Probability of dropping a hidden unit in training.
    logit_dropout : float, optional
        Probability of dropping a logit in training; by default the same.
    rescale : {"test", "train"}
        "test" is the classic kind: inference multiplies by 1 - dropout.
    dtype : floating-point dtype
    divisor : float
        What uint8 pixels are divided by: 255 scales them to [0, 1], 1 leaves them as they are.
    affine_fan_in : int, optional
        Number of inputs that the initial weights of the first affine layer are made for; by default its own (256 with 6
        convolutions). The paper's listing has 1024.
    loss_eps : float
        Added to each probability before the logarithm; the paper's listing has 1e-7. 0 is the exact cross-entropy.
    softmax_over_batch : bool
        Take the softmax in the loss over the whole batch, as the paper's listing does, instead of over each image's
        logits.

    Examples
    --------
    >>> model = DeepConvNet(rng=np.random.default_rng(0))
    >>> len(model.layers)
    21
    >>> images, labels = tg.data.synthetic_digits(8, rng=np.random.default_rng(0))
    >>> model(images).shape  # inference
    (8, 10)
    >>> model.loss(images, labels, rng=np.random.default_rng(1)).shape  # training: dropout draws
    ()
    """

    def __init__(
        self,
        rng: np.random.Generator | None = None,
        init: str = "he",
        depth: int = 6,
        *,
        dropout: float = 0.5,
        logit_dropout: float | None = None,
        rescale: str = "test",
        dtype: npt.DTypeLike = np.float32,
        divisor: float = 255,
        affine_fan_in: int | None = None,
        loss_eps: float = 0.0,
        softmax_over_batch: bool = False,
    ) -> None:
        if depth not in (4, 5, 6):
            raise ValueError(f"DeepConvNet: depth is {depth!r}; it must be 6, 5 or 4 convolutions")
        if not divisor > 0 or not loss_eps >= 0 or (affine_fan_in is not None and affine_fan_in < 1):
            raise ValueError(
                f"DeepConvNet: divisor is {divisor!r}, loss_eps {loss_eps!r}, affine_fan_in {affine_fan_in!r}; they "
                "must be above 0, at "
                "least 0, and at least 1 (or None)"
            )
        drawn: dict[str, Any] = {"rng": np.random.default_rng(rng), "init": init, "dtype": dtype}
        self.dtype, self.divisor = np.dtype(dtype), divisor
        self.layers: list[Any] = []
        channels, size = 1, 28
        for number, (filters, padding) in enumerate(CONVOLUTIONS[:depth], 1):
            self.layers += [tg.nn.Conv2d(channels, filters, 3, padding=padding, **drawn), tg.nn.ReLU()]
            channels, size = filters, size - 2 + 2 * padding
            if number % 2 == 0 or number == depth:
                self.layers.append(tg.nn.MaxPool2d(2))
                size //= 2
        logit_dropout = dropout if logit_dropout is None else logit_dropout
        loss = (
            ListedLoss(loss_eps, softmax_over_batch) if loss_eps or softmax_over_batch else tg.nn.SoftmaxCrossEntropy()
        )
        self.layers += [
            Affine(channels * size * size, HIDDEN, affine_fan_in, **drawn),
            tg.nn.ReLU(),
            tg.nn.Dropout(dropout, rescale),
        ]
        self.layers += [Affine(HIDDEN, CLASSES, **drawn), tg.nn.Dropout(logit_dropout, rescale), loss]

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        """Logits (N, 10) of images (N, 28, 28) or (N, 1, 28, 28).

        Uint8 pixels, or floats (in [0, 1]), which are taken as they are.
        """
        return tg.nn.Sequential(*self.layers[:-1])(self.input(images), rng)

    def loss(self, images: Any, labels: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        """Mean cross-entropy over the batch, in nats; `labels` are class indices (N,) or one-hot rows (N, 10)."""
        loss: tg.Tensor = self.layers[-1](self(images, rng), labels)
        return loss

    def input(self, images: Any) -> tg.Tensor:
        """Convert images to the (N, 1, 28, 28) Tensor that the first layer takes, the batch innermost in memory."""
        if isinstance(images, tg.Tensor) and images.dtype != np.uint8:
            x = images if images.dtype == self.dtype else images.astype(self.dtype)
        else:
            array = np.asarray(images)
            if array.dtype != np.uint8 and array.dtype.kind != "f":
                raise TypeError(
                    f"DeepConvNet: images are {array.dtype}; pass uint8 pixels from 0 to 255, or floats in [0, 1]"
                )
            if array.ndim not in (3, 4):
                raise ValueError(f"DeepConvNet: images have shape {array.shape}; pass (N, 28, 28) or (N, 1, 28, 28)")
            innermost = np.moveaxis(array, 0, -1)  # (N, ..., 28, 28) -> (..., 28, 28, N)
            scaled = np.divide(innermost, self.divisor if array.dtype == np.uint8 else 1, dtype=self.dtype, order="C")
            x = tg.as_tensor(np.moveaxis(scaled, -1, 0))
        if x.ndim == 3:
            x = x.reshape(len(x), 1, *x.shape[1:])
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(
                f"DeepConvNet: images have shape {x.shape}; pass (N, 28, 28) or (N, 1, 28, 28), one image as "
                "image[None]"
            )
        return x

    def summary(self) -> str:
        """Table of the layers with output shapes, parameters and multiply-adds for one image."""
        rows = [("", "input", "1 x 28 x 28", "", "")]
        total, products, x = 0, 0, self.input(np.zeros((1, 28, 28), self.dtype))
        with tg.no_grad():
            for number, layer in enumerate(self.layers, 1):
                x = layer(x, np.zeros(1, int)) if number == len(self.layers) else layer(x)
                weights = tg.nn.parameters(layer)
                count = sum(p.size for p in weights.values())
                uses = weights["weight"].size * int(np.prod(x.shape[2:])) if weights else 0
                total, products = total + count, products + uses
                shape = " x ".join(map(str, x.shape[1:])) or "scalar"
                rows.append(
                    (str(number), repr(layer), shape, f"{count:,}" if count else "", f"{uses:,}" if uses else "")
                )
        rows = [
            ("#", "layer", "output", "parameters", "multiply-adds"),
            *rows,
            ("", "total", "", f"{total:,}", f"{products:,}"),
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        line = "{:>{}}  {:<{}}  {:<{}}  {:>{}}  {:>{}}"
        return "\n".join(
            line.format(*(part for cell in zip(row, widths, strict=True) for part in cell)) for row in rows
        )
