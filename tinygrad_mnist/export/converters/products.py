"""Converters of matrix products, and of the windows that make products of convolutions."""

from __future__ import annotations

import numpy as np

from ...ops.products import _matmul
from ...ops.windows import _fold, _unfold
from ...tensor import Array
from ..onnx_graph import Graph, Value
from .common import computed, dims_of, filled
from .convolution import fixed
from .registry import onnx_converter

__all__: list[str] = []


@onnx_converter(_matmul)
def _product(graph: Graph, x: Value, y: Value) -> Value:
    """Write products of two matrices of floats as Gemm, which can take a bias (biases.py)."""
    dtype = computed(graph.dtype)
    matrices = len(dims_of(x)) == len(dims_of(y)) == 2
    kind = "Gemm" if matrices and dtype.kind == "f" else "MatMul"
    return graph.add(
        kind,
        graph.cast(x, dtype),
        graph.cast(y, dtype),
    )


@onnx_converter(_unfold)
def _windows(
    graph: Graph,
    x: Value,
    *,
    axis: int,
    size: int,
    step: int,
) -> Value:
    """Gather (..., O, size, ...) from (..., L, ...), and move the axis of the window to the end."""
    (count,) = fixed(graph, [graph.dims[axis]])
    places = _places(count, size, step)
    gathered = graph.add("Gather", x, graph.constant(places), axis=axis)
    order = [*range(len(graph.dims))]
    order.append(order.pop(axis + 1))
    return graph.add("Transpose", gathered, perm=order)


def _places(count: int, size: int, step: int) -> Array:
    """Return where the elements of each window are, (O, size)."""
    starts = np.arange(count) * step
    return starts[:, None] + np.arange(size)


@onnx_converter(_fold)
def _summed(
    graph: Graph,
    windows: Value,
    *,
    axis: int,
    length: int,
    step: int,
) -> Value:
    """Scatter windows, with their places on the first two axes, into zeros of (length, ...)."""
    dims = dims_of(windows)
    last = len(dims) - 1
    count, size = fixed(graph, [dims[axis], dims[last]])
    others = [i for i in range(last) if i != axis]
    wide = graph.cast(windows, computed(graph.dtype))
    updates = graph.add("Transpose", wide, perm=[axis, last, *others])
    fixed(graph, [length])
    shape = length, *(dims[i] for i in others)
    zeros = filled(graph, 0.0, updates.dtype, shape)
    places = _places(count, size, step)[:, :, None]
    total = graph.add(
        "ScatterND",
        zeros,
        graph.constant(places),
        updates,
        reduction="add",
    )
    order = [*range(1, last)]
    order.insert(axis, 0)
    return graph.add("Transpose", total, perm=order)
