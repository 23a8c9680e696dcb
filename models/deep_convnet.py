"""The 21-layer convolutional network: 6 convolutions, 7 ReLUs, 3 max-pools, 2 affine maps, 2 dropouts, softmax with loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg

CONVOLUTIONS = ((16, 0), (16, 0), (32, 0), (32, 0), (64, 1), (64, 1))  # filters and padding; all 3 x 3 with stride 1
HIDDEN, CLASSES = 50, 10


class Affine(tg.nn.Linear):
    """A linear layer that flattens each image first: (N, C, H, W) -> (N, C*H*W) -> (N, out_features)."""

    def __call__(self, x: tg.Tensor, rng: np.random.Generator | None = None) -> tg.Tensor:
        return super().__call__(x.reshape(len(x), self.weight.shape[0]), rng)


class DeepConvNet:
    """A classifier of 28 x 28 grey images into 10 classes.

    Parameters
    ----------
    rng : numpy.random.Generator, optional
        Draws the initial weights.
    init : {"he", "xavier"}
    depth : {6, 5, 4}
        Number of convolutions. 6: 16-16-pool-32-32-pool-64-64-pool, 21 layers in all. 5 leaves out the last convolution, 4 the last two and
        the last pool; the fully connected part stays.
    dropout : float
        Probability of dropping a hidden unit, and a logit, in training.
    rescale : {"test", "train"}
        "test" is the classic kind: inference multiplies by 1 - dropout.
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
        rescale: str = "test",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        if depth not in (4, 5, 6):
            raise ValueError(f"DeepConvNet: depth is {depth!r}; it must be 6, 5 or 4 convolutions")
        drawn: dict[str, Any] = {"rng": np.random.default_rng(rng), "init": init, "dtype": dtype}
        self.dtype = np.dtype(dtype)
        self.layers: list[Any] = []
        channels, size = 1, 28
        for number, (filters, padding) in enumerate(CONVOLUTIONS[:depth], 1):
            self.layers += [tg.nn.Conv2d(channels, filters, 3, padding=padding, **drawn), tg.nn.ReLU()]
            channels, size = filters, size - 2 + 2 * padding
            if number % 2 == 0 or number == depth:
                self.layers.append(tg.nn.MaxPool2d(2))
                size //= 2
        self.layers += [Affine(channels * size * size, HIDDEN, **drawn), tg.nn.ReLU(), tg.nn.Dropout(dropout, rescale)]
        self.layers += [Affine(HIDDEN, CLASSES, **drawn), tg.nn.Dropout(dropout, rescale), tg.nn.SoftmaxCrossEntropy()]

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> tg.Tensor:
        """Logits (N, 10) of images (N, 28, 28) or (N, 1, 28, 28): uint8 pixels, or floats in [0, 1]."""
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
                raise TypeError(f"DeepConvNet: images are {array.dtype}; pass uint8 pixels from 0 to 255, or floats in [0, 1]")
            if array.ndim not in (3, 4):
                raise ValueError(f"DeepConvNet: images have shape {array.shape}; pass (N, 28, 28) or (N, 1, 28, 28)")
            innermost = np.moveaxis(array, 0, -1)  # (N, ..., 28, 28) -> (..., 28, 28, N)
            scaled = np.divide(innermost, 255 if array.dtype == np.uint8 else 1, dtype=self.dtype, order="C")
            x = tg.as_tensor(np.moveaxis(scaled, -1, 0))
        if x.ndim == 3:
            x = x.reshape(len(x), 1, *x.shape[1:])
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(f"DeepConvNet: images have shape {x.shape}; pass (N, 28, 28) or (N, 1, 28, 28), one image as image[None]")
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
                rows.append((str(number), repr(layer), shape, f"{count:,}" if count else "", f"{uses:,}" if uses else ""))
        rows = [("#", "layer", "output", "parameters", "multiply-adds"), *rows, ("", "total", "", f"{total:,}", f"{products:,}")]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        line = "{:>{}}  {:<{}}  {:<{}}  {:>{}}  {:>{}}"
        return "\n".join(line.format(*(part for cell in zip(row, widths, strict=True) for part in cell)) for row in rows)
