"""Layers on images: convolution and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import Pair, make_geometry, pair, shortest
from ..ops import avg_pool2d, conv1d, conv2d, conv_transpose2d, max_pool2d
from ..ops.pool import check_pooling
from ..tensor import Operand, Tensor
from ..validation import integer
from .initialization import initial_weights

__all__ = ["AvgPool2d", "Conv1d", "Conv2d", "ConvTranspose2d", "MaxPool2d"]


class Conv2d:
    """Convolution with learned `weight` (out_channels, in_channels // groups, KH, KW) and `bias` (out_channels,).

    See `conv2d`. Without a bias, `bias` is None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        *,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        channels, filters, self.groups = _check_channels("Conv2d", in_channels, out_channels, groups)
        kh, kw = pair("Conv2d", "kernel_size", kernel_size, 1)
        geometry = make_geometry("Conv2d", stride, padding, dilation, self.groups, (kh, kw))
        self.weight = initial_weights((filters, channels, kh, kw), channels * kh * kw, init, rng, dtype)
        self.bias: Any = Tensor(np.zeros(filters, dtype), requires_grad=True) if bias else None
        self.stride = shortest(geometry.stride)
        self.dilation = shortest(geometry.dilation)
        self.padding: Pair | str = padding if isinstance(padding, str) else shortest(geometry.padding)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def __repr__(self) -> str:
        f, c, kh, kw = self.weight.shape
        return f"Conv2d({c * self.groups}, {f}, {kh}x{kw}, {_described(self)})"


class Conv1d:
    """One-dimensional convolution with learned `weight` (out_channels, in_channels // groups, K) and `bias`.

    See `conv1d`. Without a bias, `bias` is None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        channels, filters, self.groups = _check_channels("Conv1d", in_channels, out_channels, groups)
        kernel = integer("Conv1d", "kernel_size", kernel_size, 1)
        self.stride = integer("Conv1d", "stride", stride, 1)
        self.dilation = integer("Conv1d", "dilation", dilation, 1)
        self.padding = padding if isinstance(padding, str) else integer("Conv1d", "padding", padding)
        make_geometry("Conv1d", self.stride, self.padding, self.dilation, kernel=(1, kernel))  # refuses other words
        self.weight = initial_weights((filters, channels, kernel), channels * kernel, init, rng, dtype)
        self.bias: Any = Tensor(np.zeros(filters, dtype), requires_grad=True) if bias else None

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def __repr__(self) -> str:
        f, c, kernel = self.weight.shape
        return f"Conv1d({c * self.groups}, {f}, {kernel}, {_described(self)})"


class ConvTranspose2d:
    """Transposed convolution with learned `weight` (in_channels, out_channels // groups, KH, KW) and `bias`.

    See `conv_transpose2d`. Without a bias, `bias` is None. Initial weights are drawn for what an output sees on
    average: with strides, a part of the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        *,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator | None = None,
        init: str = "he",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        op = "ConvTranspose2d"
        channels, filters, self.groups = _check_channels(op, in_channels, out_channels, groups)
        kh, kw = pair(op, "kernel_size", kernel_size, 1)
        extra = pair(op, "output_padding", output_padding, 0)
        geometry = make_geometry(op, stride, padding, dilation)
        if any(e >= max(s, d) for e, s, d in zip(extra, geometry.stride, geometry.dilation, strict=True)):
            raise ValueError(
                f"{op}: output_padding is {output_padding}; it must be less than stride {stride} or dilation {dilation}"
            )
        shape = channels * self.groups, filters // self.groups, kh, kw
        sh, sw = geometry.stride
        seen = channels * kh * kw // (sh * sw)  # inputs of an output, on average
        self.weight = initial_weights(shape, max(seen, 1), init, rng, dtype)
        self.bias: Any = Tensor(np.zeros(filters, dtype), requires_grad=True) if bias else None
        self.stride, self.padding, self.dilation = map(shortest, geometry[:3])
        self.output_padding = shortest(extra)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        window = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return conv_transpose2d(x, self.weight, self.bias, *window)

    def __repr__(self) -> str:
        c, f, kh, kw = self.weight.shape
        return f"ConvTranspose2d({c}, {f * self.groups}, {kh}x{kw}, {_described(self)})"


def _check_channels(layer: str, in_channels: int, out_channels: int, groups: int) -> tuple[int, int, int]:
    """Return the channels of a group, the filters of all groups, and the number of groups."""
    channels = integer(layer, "in_channels", in_channels, 1)
    filters = integer(layer, "out_channels", out_channels, 1)
    groups = integer(layer, "groups", groups, 1)
    if channels % groups or filters % groups:
        raise ValueError(
            f"{layer}: groups is {groups}; it must be a divisor of in_channels {channels} and of out_channels {filters}"
        )
    return channels // groups, filters, groups


def _described(layer: Conv1d | Conv2d | ConvTranspose2d) -> str:
    """Return the settings of a layer: stride and padding, and others where they are not the default."""
    shown = {"stride": layer.stride, "padding": layer.padding}
    for name, default in (("output_padding", 0), ("dilation", 1), ("groups", 1)):
        value = getattr(layer, name, default)
        if value != default:
            shown[name] = value
    if layer.bias is None:
        shown["bias"] = False
    return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class MaxPool2d:
    """Maximum of every window: see `max_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        kernel, geometry = check_pooling("MaxPool2d", kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = map(shortest, (kernel, geometry.stride, geometry.padding))

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def __repr__(self) -> str:
        return f"MaxPool2d({self.kernel_size}, stride={self.stride}, padding={self.padding})"


class AvgPool2d:
    """Mean of every window: see `avg_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        kernel, geometry = check_pooling("AvgPool2d", kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = map(shortest, (kernel, geometry.stride, geometry.padding))

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding)

    def __repr__(self) -> str:
        return f"AvgPool2d({self.kernel_size}, stride={self.stride}, padding={self.padding})"
