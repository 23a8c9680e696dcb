"""How a window moves over images: one value that convolution and pooling hand on, from the op to the kernels."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Geometry", "Pair", "Size", "make_geometry", "pair", "shortest"]

Size: TypeAlias = tuple[int, int]  # height, width
Pair: TypeAlias = int | tuple[int, int]  # one number for both


class Geometry(NamedTuple):
    """Step of the window, rows and columns added on every side, and how far apart those of the kernel are.

    (height, width) each. In a convolution with groups, the filters of a group see its channels alone. `end` is what is
    added below and on the right beyond the padding; where it is negative, that is cut off.
    """

    stride: Size = (1, 1)
    padding: Size = (0, 0)
    dilation: Size = (1, 1)
    groups: int = 1
    end: Size = (0, 0)

    def __repr__(self) -> str:  # in graphs and errors: dilation, groups and end where there are any
        always, defaults = ("stride", "padding"), self._field_defaults
        shown = {name: v for name, v in self._asdict().items() if name in always or v != defaults[name]}
        return "Geometry({})".format(", ".join(f"{name}={value}" for name, value in shown.items()))

    def output_size(self, size: tuple[int, ...], kernel: tuple[int, ...]) -> Size:
        """Return (OH, OW) of images of `size` (H, W); not positive if the kernel does not fit."""
        (h, w), (kh, kw), (sh, sw), (ph, pw), (dh, dw), _, (eh, ew) = size[-2:], kernel, *self
        oh = (h + 2 * ph + eh - dh * (kh - 1) - 1) // sh + 1
        ow = (w + 2 * pw + ew - dw * (kw - 1) - 1) // sw + 1
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
            dilated = f" with dilation {self.dilation}" if self.dilation != (1, 1) else ""
            raise ValueError(
                f"{op}: a kernel of {kernel[0]} x {kernel[1]}{dilated} does not fit into images of {shape[2]} x "
                f"{shape[3]} with padding {self.padding}; use a smaller kernel or more padding"
            )
        return size


UNDIVIDED = ((1, 1), 1)  # dilation and groups of a convolution without


def make_geometry(
    op: str,
    stride: Pair,
    padding: Pair | str,
    dilation: Pair = 1,
    groups: int = 1,
    kernel: tuple[int, ...] | None = None,
) -> Geometry:
    """Check the settings that `op` was given, but for `groups`; a number stands for (height, width).

    For a `kernel`, the padding may be "valid", which is none, or "same", which keeps the size of images; if that takes
    an odd number of rows or columns, there is one more at the end.
    """
    step, spread = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    if kernel is None or not isinstance(padding, str):
        return Geometry(step, pair(op, "padding", padding, 0), spread, groups)
    if padding not in ("same", "valid"):
        raise ValueError(
            f"{op}: padding must be an integer of at least 0, a pair (height, width) of such, 'same' or 'valid', got "
            f"{padding!r}"
        )
    if padding == "valid":
        return Geometry(step, (0, 0), spread, groups)
    if step != (1, 1):
        raise ValueError(
            f"{op}: padding 'same' keeps the size of images, but stride is {stride}; it must be 1 then, or pass the "
            "padding as numbers"
        )
    height, width = spread[0] * (kernel[-2] - 1), spread[1] * (kernel[-1] - 1)
    return Geometry(step, (height // 2, width // 2), spread, groups, (height % 2, width % 2))


def pair(op: str, name: str, value: Any, least: int) -> Size:
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
