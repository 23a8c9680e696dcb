"""How a window moves over images: one value that convolution and pooling hand on, from the op to the kernels."""

from __future__ import annotations

import operator
from typing import NamedTuple, TypeAlias

__all__ = ["Geometry", "Pair", "Size", "make_geometry", "pair", "shortest"]

Size: TypeAlias = tuple[int, int]  # height, width
Pair: TypeAlias = int | tuple[int, int]  # one number for both


class Geometry(NamedTuple):
    """Step of the window, and rows and columns added on every side; (height, width) each.

    Dilation and groups will be further fields, with defaults.
    """

    stride: Size = (1, 1)
    padding: Size = (0, 0)

    def output_size(self, size: tuple[int, ...], kernel: tuple[int, ...]) -> Size:
        """Return (OH, OW) of images of `size` (H, W); not positive if the kernel does not fit."""
        h, w = size[-2:]
        oh = (h + 2 * self.padding[0] - kernel[0]) // self.stride[0] + 1
        ow = (w + 2 * self.padding[1] - kernel[1]) // self.stride[1] + 1
        return oh, ow

    def check(self, op: str, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Size:
        """Return (OH, OW) of images of `shape` (N, C, H, W), or explain why there is no output."""
        if len(shape) != 4:
            raise ValueError(
                f"{op}: images have shape {shape}; it must be (N, C, H, W) "
                "(one grey image: x.reshape(1, 1, height, width))"
            )
        size = self.output_size(shape, kernel)
        if min(kernel) < 1 or min(size) < 1:
            raise ValueError(
                f"{op}: a kernel of {kernel[0]} x {kernel[1]} does not fit into images of {shape[2]} x {shape[3]} with "
                f"padding {self.padding}; use a smaller kernel or more padding"
            )
        return size


def make_geometry(op: str, stride: Pair, padding: Pair) -> Geometry:
    """Check the settings that `op` was given; a number stands for (height, width)."""
    return Geometry(pair(op, "stride", stride, 1), pair(op, "padding", padding, 0))


def pair(op: str, name: str, value: Pair, least: int) -> Size:
    """Return (height, width) of the setting `name` of `op`: integers of at least `least`."""
    if type(value) is int and value >= least:  # nearly always
        return value, value
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        height, width = map(operator.index, both)
        if min(height, width) < least or any(isinstance(v, bool) for v in both):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{op}: {name} must be an integer of at least {least} or a pair (height, width) of such, got {value!r}"
        ) from None
    return height, width


def shortest(size: Size) -> Pair:
    """Return one number where it stands for both."""
    return size[0] if size[0] == size[1] else size
