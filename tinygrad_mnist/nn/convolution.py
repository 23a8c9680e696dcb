"""Layers on images: convolution and pooling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..kernels import Pair, make_geometry, pair, shortest
from ..ops import conv2d, max_pool2d
from ..ops.pool import check_pooling
from ..tensor import Operand, Tensor
from ..validation import integer
from .initialization import initial_weights

__all__ = ["Conv2d", "MaxPool2d"]


class Conv2d:
    """Convolution with learned `weight` (out_channels, in_channels, KH, KW) and `bias` (out_channels,).

    See `conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        *,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        in_channels, out_channels = (
            integer("Conv2d", name, n, 1) for name, n in (("in_channels", in_channels), ("out_channels", out_channels))
        )
        kh, kw = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.weight = initial_weights((out_channels, in_channels, kh, kw), in_channels * kh * kw, init, rng, dtype)
        self.bias = Tensor(np.zeros(out_channels, dtype), requires_grad=True)
        self.stride, self.padding = map(shortest, make_geometry("Conv2d", stride, padding))

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def __repr__(self) -> str:
        f, c, kh, kw = self.weight.shape
        return f"Conv2d({c}, {f}, {kh}x{kw}, stride={self.stride}, padding={self.padding})"


class MaxPool2d:
    """Maximum of every window: see `max_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        kernel, geometry = check_pooling("MaxPool2d", kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = map(shortest, (kernel, geometry.stride, geometry.padding))

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def __repr__(self) -> str:
        return f"MaxPool2d({self.kernel_size}, stride={self.stride}, padding={self.padding})"
