"""Converters of pooling.

Of equal maxima a file chooses the first, as ours does. It may choose another element than ours where NaN or minus
infinity is the maximum, and where several differ by rounding errors alone, as in what Winograd's convolutions make of
blank paper: then the gradient goes to another pixel of the window, as it does in ours when the batch has another size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels import Geometry, Size
from ...ops.average import _avg_pool, _avg_pool_gradient
from ...ops.pool import _max_pool, _max_pool_gather, _max_pool_scatter
from ..onnx_graph import Graph, Value
from .common import added_at, dims_of
from .convolution import fixed, floats, transposed_convolution
from .registry import onnx_converter

__all__: list[str] = []


def _window(kernel: Size, geometry: Geometry) -> dict[str, Any]:
    """Return the attributes of a pooling node."""
    return {
        "kernel_shape": kernel,
        "strides": geometry.stride,
        "pads": geometry.padding * 2,
    }


@onnx_converter(_max_pool)
def _maximum(graph: Graph, x: Value, **window: Any) -> Value:
    (images,) = floats(graph, x)
    return graph.add("MaxPool", images, **_window(**window))


def _places(graph: Graph, x: Value, top: Value, window: dict[str, Any]) -> Value:
    """Return where the maximum of each window is, counted through the whole batch."""
    pools = (node for node in graph.nodes if node.op_type == "MaxPool")
    own = next((node for node in pools if node.output[0] == top.name), None)
    if own is None:
        images = graph.cast(x, np.float32) if x.dtype == np.float16 else x
        dtypes = None, np.int64
        _, places = graph.add_several("MaxPool", images, dtypes=dtypes, **_window(**window))
        return places
    if len(own.output) == 1:
        own.output.append(graph.name("indices"))
    return Value(own.output[1], np.dtype(np.int64), top.dims)


@onnx_converter(_max_pool_scatter)
def _scatter(graph: Graph, g: Value, x: Value, top: Value, **window: Any) -> Value:
    places = _places(graph, x, top, window)
    steps = zip(window["geometry"].stride, window["kernel"], strict=True)
    overlapping = any(step < length for step, length in steps)
    return added_at(graph, g, places, graph.dims, repeated=overlapping)


@onnx_converter(_max_pool_gather)
def _gather(graph: Graph, v: Value, x: Value, top: Value, **window: Any) -> Value:
    places = _places(graph, x, top, window)
    flat = graph.add("Reshape", v, graph.ints(-1))
    return graph.add("Gather", flat, places, axis=0)


@onnx_converter(_avg_pool)
def _average(graph: Graph, x: Value, **window: Any) -> Value:
    (images,) = floats(graph, x)
    return graph.add("AveragePool", images, **_window(**window), count_include_pad=1)


@onnx_converter(_avg_pool_gradient)
def _shares(
    graph: Graph,
    g: Value,
    *,
    kernel: Size,
    geometry: Geometry,
    size: Size,
) -> Value:
    """Give each pixel of a window its share, in all channels as if each were an image."""
    (cotangent,) = floats(graph, g)
    rows = fixed(graph, dims_of(g)[2:])
    share = graph.add("Div", cotangent, float(kernel[0] * kernel[1]))
    apart = graph.add("Reshape", share, graph.ints(-1, 1, *rows))
    ones = graph.constant(np.ones((1, 1, *kernel), share.dtype))
    spread = transposed_convolution(graph, apart, ones, geometry, kernel, rows, size)
    return graph.add("Reshape", spread, graph.shape(graph.dims))
