"""Converters of convolution: each of the three partial derivatives as Conv or ConvTranspose.

Padding takes part in the sums of a file: an infinite weight beside the image gives NaN there, and nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...kernels import Geometry, Size
from ...ops.conv import _conv_input, _conv_output, _conv_weight
from ..onnx_graph import Graph, Operand, Value
from ..program import Dim
from .common import dims_of, static
from .registry import onnx_converter

__all__ = ["fixed", "floats", "transposed_convolution"]


def floats(graph: Graph, *inputs: Value) -> list[Value]:
    """Convert to the dtype in which a node computes the result: its own, or float32 where that is float16."""
    if graph.dtype.kind != "f":
        raise NotImplementedError(
            f"to_onnx: images are {graph.dtype} ({graph.place}); ONNX has convolution and pooling of floats alone: "
            "convert them by x.astype(np.float32) first"
        )
    dtype = np.float32 if graph.dtype == np.float16 else graph.dtype
    return [graph.cast(x, dtype) for x in inputs]


def fixed(graph: Graph, lengths: Sequence[int | Dim]) -> tuple[int, ...]:
    """Return lengths, if none of them depends on the number of rows."""
    found = static(tuple(lengths))
    if found is None:
        raise NotImplementedError(
            f"to_onnx: the height, width or channels of images depend on the number of rows ({graph.place}); keep the "
            "batch on the first axis, or pass dynamic_batch=False"
        )
    return found


def _padded(graph: Graph, x: Value, before: Size, after: Sequence[int]) -> tuple[Value, list[int]]:
    """Return images and the padding that is left for a node: none where some is negative, which is cut off here."""
    cut = [axis for axis in (0, 1) if after[axis] < 0]
    pads = [*before, *(max(rows, 0) for rows in after)]
    if not cut:
        return x, pads
    surrounded = graph.add("Pad", x, graph.ints(0, 0, *pads[:2], 0, 0, *pads[2:]))
    starts = graph.ints(*(0 for _ in cut))
    ends = graph.ints(*(after[axis] for axis in cut))
    axes = graph.ints(*(2 + axis for axis in cut))
    return graph.add("Slice", surrounded, starts, ends, axes), [0, 0, 0, 0]


@onnx_converter(_conv_output)
def _output(
    graph: Graph,
    x: Value,
    w: Value,
    bias: Operand,
    *,
    geometry: Geometry,
) -> Value:
    images, filters = floats(graph, x, w)
    after = [p + e for p, e in zip(geometry.padding, geometry.end, strict=True)]
    images, pads = _padded(graph, images, geometry.padding, after)
    offset = floats(graph, bias) if isinstance(bias, Value) else []
    return graph.add(
        "Conv",
        images,
        filters,
        *offset,
        kernel_shape=fixed(graph, dims_of(w))[2:],
        strides=geometry.stride,
        pads=pads,
        dilations=geometry.dilation,
        group=geometry.groups,
    )


@onnx_converter(_conv_input)
def _input(
    graph: Graph,
    g: Value,
    w: Value,
    *,
    geometry: Geometry,
    size: Size,
) -> Value:
    cotangent, filters = floats(graph, g, w)
    kernel = fixed(graph, dims_of(w))[2:]
    rows = fixed(graph, dims_of(g)[2:])
    return transposed_convolution(graph, cotangent, filters, geometry, kernel, rows, size)


def transposed_convolution(
    graph: Graph,
    g: Value,
    w: Value,
    geometry: Geometry,
    kernel: Sequence[int],
    rows: Sequence[int],
    size: Size,
) -> Value:
    """Add up multiples of the kernel, `rows` of them in each direction, in images of `size`."""
    fixed(graph, size)
    axes = zip(rows, kernel, geometry.stride, geometry.dilation, strict=True)
    whole = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in axes]  # with the padding
    after = [length - p - wanted for length, p, wanted in zip(whole, geometry.padding, size, strict=True)]
    added = [max(-rest, 0) for rest in after]  # rows that no window has reached
    limits = zip(geometry.padding, whole, added, geometry.stride, strict=True)
    inside = all(p < length and more < s for p, length, more, s in limits)  # as runtimes want it
    out = graph.add(
        "ConvTranspose",
        g,
        w,
        kernel_shape=kernel,
        strides=geometry.stride,
        pads=[*geometry.padding, *(max(rest, 0) for rest in after)] if inside else None,
        output_padding=added if inside and any(added) else None,
        dilations=geometry.dilation,
        group=geometry.groups,
    )
    if inside:
        return out
    padded = graph.add("Pad", out, graph.ints(0, 0, 0, 0, 0, 0, *added))
    ends = [p + wanted for p, wanted in zip(geometry.padding, size, strict=True)]
    return graph.add("Slice", padded, graph.ints(*geometry.padding), graph.ints(*ends), graph.ints(2, 3))


@onnx_converter(_conv_weight)
def _weight(
    graph: Graph,
    x: Value,
    g: Value,
    *,
    geometry: Geometry,
    size: Size,
) -> Value:
    """Convolve images with cotangents: channels and batch, stride and dilation change places."""
    images, cotangent = floats(graph, x, g)
    kernel = fixed(graph, size)
    _, channels, *lengths = dims_of(x)
    rows = fixed(graph, dims_of(g)[2:])
    axes = zip(rows, kernel, lengths, geometry.stride, geometry.dilation, geometry.padding, strict=True)
    after = [(n - 1) * s + (k - 1) * d + 1 - length - p for n, k, length, s, d, p in axes]
    images = _batch_second(graph, images, fixed(graph, [channels, *lengths]), geometry.groups)
    images, pads = _padded(graph, images, geometry.padding, after)
    out = graph.add(
        "Conv",
        images,
        graph.add("Transpose", cotangent, perm=[1, 0, 2, 3]),  # (F, N, OH, OW)
        strides=geometry.dilation,
        pads=pads,
        dilations=geometry.stride,
        group=geometry.groups,
    )
    return graph.add("Transpose", out, perm=[1, 0, 2, 3])  # (C / groups, F, KH, KW) -> (F, C / groups, KH, KW)


def _batch_second(graph: Graph, x: Value, lengths: tuple[int, ...], groups: int) -> Value:
    """Return images (N, C, H, W) as (C / groups, groups * N, H, W)."""
    if groups == 1:
        return graph.add("Transpose", x, perm=[1, 0, 2, 3])
    channels, height, width = lengths
    each = channels // groups
    apart = graph.add("Reshape", x, graph.ints(0, groups, each, height, width))
    turned = graph.add("Transpose", apart, perm=[2, 1, 0, 3, 4])
    return graph.add("Reshape", turned, graph.ints(each, -1, height, width))
