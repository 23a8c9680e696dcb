"""The 21-layer network: 6 convolutions, 7 ReLUs, 3 max-pools, 2 affine maps, 2 dropouts, softmax with loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from tinygrad_mnist.nn import Conv2d, Dropout, MaxPool2d, ReLU, SoftmaxCrossEntropy


class Affine(tg.nn.Linear):
    """A linear layer that flattens each image first: (N, C, H, W) -> (N, C * H * W) -> (N, out_features)."""

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        return super().__call__(x.reshape(len(x), self.weight.shape[0]), rng)


class DeepConvNet:
    """A classifier of 28 x 28 grey images into 10 classes.

    Parameters
    ----------
    rng : numpy.random.Generator, optional
        Draws the initial weights.
    init : {"he", "xavier"}
        Initial weights, see `tinygrad_mnist.nn.initial_weights`.
    depth : {6, 5, 4}
        Number of convolutions: 21, 19 or 16 layers in all. The fully connected part stays.
    dropout : float
        Probability of dropping a hidden unit in training.
    logit_dropout : float, optional
        Probability of dropping a logit in training; by default the same.
    rescale : {"test", "train"}
        "test": inference multiplies by 1 - dropout. "train": training divides by it (inverted dropout).
    label_smoothing : float
        The share of a target that `loss` spreads over all classes, see `tinygrad_mnist.cross_entropy`.
    dtype : floating-point dtype

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
        label_smoothing: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        if depth not in (4, 5, 6):
            raise ValueError(f"DeepConvNet: depth is {depth!r}; it must be 6, 5 or 4 convolutions")
        self.dtype = np.dtype(dtype)
        drawn: dict[str, Any] = {"rng": np.random.default_rng(rng), "init": init, "dtype": dtype}
        logit_dropout = dropout if logit_dropout is None else logit_dropout
        blocks: list[list[Any]] = [
            [Conv2d(1, 16, 3, **drawn), ReLU()],  # (N, 1, 28, 28) -> (N, 16, 26, 26)
            [Conv2d(16, 16, 3, **drawn), ReLU(), MaxPool2d(2)],  # (N, 16, 12, 12)
            [Conv2d(16, 32, 3, **drawn), ReLU()],  # (N, 32, 10, 10)
            [Conv2d(32, 32, 3, **drawn), ReLU(), MaxPool2d(2)],  # (N, 32, 4, 4)
            [Conv2d(32, 64, 3, padding=1, **drawn), ReLU()] if depth > 4 else [],  # (N, 64, 4, 4)
            [Conv2d(64, 64, 3, padding=1, **drawn), ReLU()] if depth > 5 else [],  # (N, 64, 4, 4)
            [MaxPool2d(2)] if depth > 4 else [],  # (N, 64, 2, 2)
            [Affine(256 if depth > 4 else 512, 50, **drawn), ReLU(), Dropout(dropout, rescale)],  # (N, 50)
            [Affine(50, 10, **drawn), Dropout(logit_dropout, rescale), SoftmaxCrossEntropy(label_smoothing)],  # -> ()
        ]
        self.layers = [layer for block in blocks for layer in block]

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        """Logits (N, 10) of images (N, 28, 28) or (N, 1, 28, 28): uint8 pixels, or floats in [0, 1]."""
        return tg.nn.Sequential(*self.layers[:-1])(self.input(images), rng)

    def loss(self, images: Any, labels: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        """Mean cross-entropy over the batch, in nats; `labels` are class indices (N,) or one-hot rows (N, 10)."""
        value: tg.Tensor = self.layers[-1](self(images, rng), labels)
        return value

    def input(self, images: Any) -> tg.Tensor:
        """Convert images to the (N, 1, 28, 28) Tensor that the first layer gets, the batch innermost in memory."""
        x = tg.as_tensor(images)
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            raise TypeError(f"DeepConvNet: images are {x.dtype}; pass uint8 pixels, or floats in [0, 1]")
        if x.shape[1:] not in ((28, 28), (1, 28, 28)):
            shapes = "(N, 28, 28) or (N, 1, 28, 28), one image as image[None]"
            raise ValueError(f"DeepConvNet: images have shape {x.shape}; pass {shapes}")
        if x is images and x.dtype == np.uint8:  # a Tensor: by ops, as an ONNX file needs them
            x = x.astype(self.dtype) / 255
        elif not x.requires_grad:
            innermost = np.moveaxis(x.data, 0, -1)  # (N, ..., 28, 28) -> (..., 28, 28, N)
            scaled = np.divide(innermost, 255 if x.dtype == np.uint8 else 1, dtype=self.dtype, order="C")
            x = tg.as_tensor(np.moveaxis(scaled, -1, 0))
        x = x if x.dtype == self.dtype else x.astype(self.dtype)
        return x if x.ndim == 4 else x.reshape(len(x), 1, 28, 28)

    def summary(self) -> str:
        """Table of the layers with output shapes, parameters and multiply-adds for one image."""
        line = "{:>2}  {:<40}  {:<12}  {:>10}  {:>13}".format
        lines = [line("#", "layer", "output", "parameters", "multiply-adds"), line("", "input", "1 x 28 x 28", "", "")]
        total, products, x = 0, 0, self.input(np.zeros((1, 28, 28), self.dtype))
        with tg.no_grad():
            for number, layer in enumerate(self.layers, 1):
                x = layer(x, [0]) if number == len(self.layers) else layer(x)
                weights = tg.nn.parameters(layer)
                count = sum(p.size for p in weights.values())
                uses = weights["weight"].size * math.prod(x.shape[2:]) if weights else 0
                total, products = total + count, products + uses
                shape, numbers = " x ".join(map(str, x.shape[1:])) or "scalar", (f"{count:,}", f"{uses:,}")
                lines.append(line(number, repr(layer), shape, *(numbers if weights else ("", ""))))
        return "\n".join([*lines, line("", "total", "", f"{total:,}", f"{products:,}")])
