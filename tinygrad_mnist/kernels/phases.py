"""Convolutions with dilation or groups, computed as several without: how they are cut.

The filters of a group see its channels alone. With dilation d and stride s, output rows that are d / gcd(d, s) apart
see rows of the image that are d apart: what these rows are to each other is a convolution with stride s / gcd(d, s) and
without dilation. The same holds for columns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from .geometry import Geometry, Size
from .products import Array

__all__ = ["conv_input", "conv_output", "conv_weight"]

EVERYTHING = slice(None)


class Phase(NamedTuple):
    """Rows of the output, and those of the image that they see; stride, padding and end between them.

    The padding is negative where the first rows of the image are not seen.
    """

    image: slice
    output: slice
    stride: int
    padding: int
    end: int


class Part(NamedTuple):
    """One of the convolutions: of a part of the image, with some filters, it gives a part of the output."""

    image: tuple[slice, ...]
    filters: slice
    output: tuple[slice, ...]
    geometry: Geometry


def conv_output(plain: Callable[..., Array], x: Array, w: Array, bias: Array | None, geometry: Geometry) -> Array:
    """See `reference.conv_output`; `plain` computes it without dilation and groups, as in all functions here."""
    size = geometry.output_size(x.shape, w.shape[2:])
    kernel = w.shape[2], w.shape[3]
    dtype = np.result_type(x, w) if bias is None else np.result_type(x, w, bias)
    out = _empty_images(len(x), len(w), size, dtype)
    for part in divide(x.shape[1:], len(w), kernel, size, geometry):
        seen = x[part.image]
        add = None if bias is None else bias[part.filters]
        if seen.size:
            out[part.output] = plain(seen, w[part.filters], add, part.geometry)
        elif add is None:
            out[part.output] = 0
        else:
            out[part.output] = add.reshape(-1, 1, 1)
    return out


def conv_input(plain: Callable[..., Array], g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    """See `reference.conv_input`."""
    channels = w.shape[1] * geometry.groups
    kernel = w.shape[2], w.shape[3]
    output = g.shape[2], g.shape[3]
    out = _empty_images(len(g), channels, size, np.result_type(g, w))
    if geometry.dilation != (1, 1):  # there may be pixels that meet no weights
        out[...] = 0
    for part in divide((channels, *size), len(w), kernel, output, geometry):
        image = out[part.image]
        if image.size:
            own_size = image.shape[2], image.shape[3]
            image[...] = plain(g[part.output], w[part.filters], part.geometry, own_size)
    return out


def conv_weight(plain: Callable[..., Array], x: Array, g: Array, geometry: Geometry, size: Size) -> Array:
    """See `reference.conv_weight`."""
    filters = g.shape[1]
    output = g.shape[2], g.shape[3]
    out: Array = np.zeros((filters, x.shape[1] // geometry.groups, *size), np.result_type(x, g))
    for part in divide(x.shape[1:], filters, size, output, geometry):
        seen = x[part.image]
        if seen.size:
            out[part.filters] += plain(seen, g[part.output], part.geometry, size)
    return out


def _empty_images(n: int, channels: int, size: Size, dtype: Any) -> Array:
    height, width = size
    return np.empty((height, channels, width, n), dtype).transpose(3, 1, 0, 2)  # (H, C, W, N) -> (N, C, H, W)


@lru_cache(maxsize=1024)
def divide(image: tuple[int, ...], filters: int, kernel: Size, output: Size, geometry: Geometry) -> list[Part]:
    """Cut the convolution of images (C, H, W) into such without dilation and groups."""
    channels = image[0] // geometry.groups
    filters //= geometry.groups
    axes = zip(image[1:], kernel, output, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    rows, columns = (_phases(*axis) for axis in axes)
    parts = []
    for group, row, column in product(range(geometry.groups), rows, columns):
        own_channels = slice(group * channels, (group + 1) * channels)
        own_filters = slice(group * filters, (group + 1) * filters)
        seen = EVERYTHING, own_channels, row.image, column.image
        made = EVERYTHING, own_filters, row.output, column.output
        between = Geometry(
            stride=(row.stride, column.stride),
            padding=(row.padding, column.padding),
            end=(row.end, column.end),
        )
        parts.append(Part(seen, own_filters, made, between))
    return parts


def _phases(length: int, kernel: int, output: int, stride: int, padding: int, dilation: int) -> list[Phase]:
    """Cut a convolution along one axis into such without dilation."""
    common = gcd(stride, dilation)
    step = dilation // common
    stride_between = stride // common
    phases = []
    for first in range(min(step, output)):
        start = first * stride - padding  # the first row that is seen, which may be outside of the image
        begin = start % dilation
        before = (begin - start) // dilation
        seen = len(range(begin, length, dilation))
        count = len(range(first, output, step))
        end = (count - 1) * stride_between + kernel - seen - 2 * before
        phases.append(Phase(slice(begin, None, dilation), slice(first, None, step), stride_between, before, end))
    return phases
