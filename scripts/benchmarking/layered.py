"""The paper's network as NumPy layers with hand-written backward passes: a peer, and an oracle for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


def im2col(x: Array, kernel: int, stride: int, pad: int) -> Array:
    """(N, C, H, W) -> (N*OH*OW, C*kernel*kernel)."""
    n, c, h, w = x.shape
    oh, ow = (h + 2 * pad - kernel) // stride + 1, (w + 2 * pad - kernel) // stride + 1
    image = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    cols = np.zeros((n, c, kernel, kernel, oh, ow), x.dtype)
    for k in range(kernel):
        for m in range(kernel):
            cols[:, :, k, m] = image[:, :, k : k + stride * oh : stride, m : m + stride * ow : stride]
    return cols.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(cols: Array, shape: tuple[int, ...], kernel: int, stride: int, pad: int) -> Array:
    """Sum the receptive fields: (N*OH*OW, C*kernel*kernel) -> (N, C, H, W)."""
    n, c, h, w = shape
    oh, ow = (h + 2 * pad - kernel) // stride + 1, (w + 2 * pad - kernel) // stride + 1
    fields = cols.reshape(n, oh, ow, c, kernel, kernel).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad, w + 2 * pad), cols.dtype)
    for k in range(kernel):
        for m in range(kernel):
            image[:, :, k : k + stride * oh : stride, m : m + stride * ow : stride] += fields[:, :, k, m]
    return image[:, :, pad : pad + h, pad : pad + w]


class Convolution:
    def __init__(self, w: Array, b: Array, pad: int, stride: int = 1) -> None:
        self.w, self.b, self.pad, self.stride = w, b, pad, stride

    def forward(self, x: Array, rng: np.random.Generator | None) -> Array:
        f, _, kernel, _ = self.w.shape
        self.shape, self.cols = x.shape, im2col(x, kernel, self.stride, self.pad)
        oh, ow = ((length + 2 * self.pad - kernel) // self.stride + 1 for length in x.shape[2:])
        out = self.cols @ self.w.reshape(f, -1).T + self.b
        return out.reshape(len(x), oh, ow, f).transpose(0, 3, 1, 2)

    def backward(self, g: Array) -> Array:
        f, _, kernel, _ = self.w.shape
        g = g.transpose(0, 2, 3, 1).reshape(-1, f)
        self.db = g.sum(axis=0)
        self.dw = (self.cols.T @ g).T.reshape(self.w.shape)
        return col2im(g @ self.w.reshape(f, -1), self.shape, kernel, self.stride, self.pad)


class Affine:
    def __init__(self, w: Array, b: Array) -> None:
        self.w, self.b = w, b

    def forward(self, x: Array, rng: np.random.Generator | None) -> Array:
        self.shape, self.x = x.shape, x.reshape(len(x), -1)
        return self.x @ self.w + self.b

    def backward(self, g: Array) -> Array:
        self.dw, self.db = self.x.T @ g, g.sum(axis=0)
        return (g @ self.w.T).reshape(self.shape)


class Relu:
    def forward(self, x: Array, rng: np.random.Generator | None) -> Array:
        self.positive = x > 0
        return np.where(self.positive, x, 0)

    def backward(self, g: Array) -> Array:
        return np.where(self.positive, g, 0)


class MaxPool:
    def forward(self, x: Array, rng: np.random.Generator | None) -> Array:
        n, c, h, w = self.shape = x.shape
        windows = im2col(x, 2, 2, 0).reshape(-1, 4)
        self.first = np.argmax(windows, axis=1)
        largest: Array = windows.max(axis=1)
        return largest.reshape(n, h // 2, w // 2, c).transpose(0, 3, 1, 2)

    def backward(self, g: Array) -> Array:
        windows = np.zeros((g.size, 4), g.dtype)
        windows[np.arange(g.size), self.first] = g.transpose(0, 2, 3, 1).ravel()
        return col2im(windows, self.shape, 2, 2, 0)


class Dropout:
    """Dropout that scales at inference, not in training."""

    def forward(self, x: Array, rng: np.random.Generator | None) -> Array:
        factor = np.full(x.shape, 0.5) if rng is None else np.where(rng.random(x.shape, np.float32) < 0.5, 0.0, 1.0)
        self.factor = factor.astype(x.dtype)
        out: Array = x * self.factor
        return out

    def backward(self, g: Array) -> Array:
        dx: Array = g * self.factor
        return dx


class LayeredNet:
    """The network with 6, 5 or 4 convolutions.

    `weights` are weight and bias of every convolution (F, C, 3, 3) and affine layer (inputs, outputs). Arrays of
    `dtype` are not copied.
    """

    def __init__(self, weights: Sequence[Array], depth: int, dtype: npt.DTypeLike = np.float64) -> None:
        pairs = list(zip(*[iter(np.asarray(w, dtype) for w in weights)] * 2, strict=True))
        self.layers: list[Any] = []
        for number, (w, b) in enumerate(pairs[:depth], 1):
            self.layers += [Convolution(w, b, pad=1 if number > 4 else 0), Relu()]
            if number in (2, 4, depth):
                self.layers.append(MaxPool())
        self.layers += [Affine(*pairs[depth]), Relu(), Dropout(), Affine(*pairs[depth + 1]), Dropout()]

    def forward(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        """Return the logits of images (N, 1, 28, 28)."""
        for layer in self.layers:
            x = layer.forward(x, rng)
        return x

    def loss(self, x: Array, labels: Array, rng: np.random.Generator | None = None) -> tuple[float, list[Array]]:
        """Return the mean cross-entropy and the gradients, in the order of `weights`."""
        logits, rows = self.forward(x, rng), np.arange(len(x))
        y = np.exp(logits - logits.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        value = -np.log(y[rows, labels]).mean()
        y[rows, labels] -= 1
        g = y / len(x)
        for layer in reversed(self.layers):
            g = layer.backward(g)
        return value, [
            d for layer in self.layers if isinstance(layer, (Convolution, Affine)) for d in (layer.dw, layer.db)
        ]
