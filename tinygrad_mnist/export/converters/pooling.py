"""Converters of pooling.

Of equal maxima a file chooses the first, as ours does. It may choose another element than ours where NaN or minus
infinity is the maximum, and where several differ by rounding errors alone, as in what convolutions make of blank paper:
then the gradient goes to another pixel of the window, as it may in ours when the batch has another size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from ...kernels import Geometry, Size
from ...ops.average import _avg_pool, _avg_pool_gradient
from ...ops.pool import _max_pool, _max_pool_gather, _max_pool_scatter
from ..onnx_graph import Graph, Value
from .convolution import fixed, floats, transposed
from .registry import onnx_converter

__all__: list[str] = []


def _window(kernel: Size, geometry: Geometry) -> dict[str, Any]:
    """Return the attributes of a pooling node."""
    return {"kernel_shape": kernel, "strides": geometry.stride, "pads": geometry.padding * 2}


@onnx_converter(_max_pool)
def _maximum(graph: Graph, x: Value, *, kernel: Size, geometry: Geometry) -> Value:
    (images,) = floats(graph, x)
    return graph.add("MaxPool", images, **_window(kernel, geometry))


def _places(graph: Graph, x: Value, top: Value, kernel: Size, geometry: Geometry) -> Value:
    """Return where the maximum of each window is, counted through the whole batch."""
    pool = next((node for node in graph.nodes if node.op_type == "MaxPool" and node.output[0] == top.name), None)
    if pool is None:
        images = graph.cast(x, np.float32) if x.dtype == np.float16 else x
        return graph.add_several("MaxPool", images, dtypes=(None, np.int64), **_window(kernel, geometry))[1]
    if len(pool.output) == 1:
        pool.output.append(graph.name("indices"))
    return Value(pool.output[1], np.dtype(np.int64), top.dims)


@onnx_converter(_max_pool_scatter)
def _scatter(graph: Graph, g: Value, x: Value, top: Value, *, kernel: Size, geometry: Geometry) -> Value:
    places = _places(graph, x, top, kernel, geometry)
    overlapping = any(step < length for step, length in zip(geometry.stride, kernel, strict=True))
    (cotangent,) = floats(graph, g)
    shape = graph.add("Shape", x, dtype=np.int64)
    zero = numpy_helper.from_array(np.zeros(1, cotangent.dtype))
    zeros = graph.add("ConstantOfShape", shape, dtype=cotangent.dtype, value=zero)
    flat = graph.ints(-1)
    placed = graph.add(
        "ScatterElements",
        graph.add("Reshape", zeros, flat),
        graph.add("Reshape", places, flat),
        graph.add("Reshape", cotangent, flat),
        axis=0,
        reduction="add" if overlapping else None,
    )
    return graph.add("Reshape", placed, shape)


@onnx_converter(_max_pool_gather)
def _gather(graph: Graph, v: Value, x: Value, top: Value, *, kernel: Size, geometry: Geometry) -> Value:
    places = _places(graph, x, top, kernel, geometry)
    return graph.add("Gather", graph.add("Reshape", v, graph.ints(-1)), places, axis=0)


@onnx_converter(_avg_pool)
def _average(graph: Graph, x: Value, *, kernel: Size, geometry: Geometry) -> Value:
    (images,) = floats(graph, x)
    return graph.add("AveragePool", images, **_window(kernel, geometry), count_include_pad=1)


@onnx_converter(_avg_pool_gradient)
def _shares(graph: Graph, g: Value, *, kernel: Size, geometry: Geometry, size: Size) -> Value:
    (cotangent,) = floats(graph, g)
    rows = fixed(graph, g.dims and g.dims[2:])
    share = graph.add("Div", cotangent, float(kernel[0] * kernel[1]))
    channels_apart = graph.add("Reshape", share, graph.ints(-1, 1, *rows))
    ones = graph.constant(np.ones((1, 1, *kernel), share.dtype))
    spread = transposed(graph, channels_apart, ones, geometry, kernel, rows, size)
    return graph.add("Reshape", spread, graph.shape(graph.dims))
