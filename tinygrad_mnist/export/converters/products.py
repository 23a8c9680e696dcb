"""Converters of matrix products, and of the windows that make products of convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from ...ops.products import _matmul
from ...ops.windows import _fold, _unfold
from ...tensor import Array
from ..onnx_graph import Graph, Value
from .convolution import fixed
from .registry import onnx_converter

__all__: list[str] = []

PRODUCTS = ("float32", "float64", "int32", "int64", "uint32", "uint64")  # dtypes that MatMul knows and runtimes have


def _computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a node computes: sums of halves in float32, of short integers modulo theirs."""
    if dtype.name in PRODUCTS:
        return dtype
    return np.dtype(np.float32 if dtype.kind == "f" else np.int32)


@onnx_converter(_matmul)
def _product(graph: Graph, x: Value, y: Value) -> Value:
    """Write products of two matrices of floats as Gemm, which can take a bias (biases.py)."""
    dtype = _computed(graph.dtype)
    matrices = len(x.dims or ()) == len(y.dims or ()) == 2
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
    dims = windows.dims or ()
    last = len(dims) - 1
    count, size = fixed(graph, [dims[axis], dims[last]])
    others = [i for i in range(last) if i != axis]
    wide = graph.cast(windows, _computed(graph.dtype))
    updates = graph.add("Transpose", wide, perm=[axis, last, *others])
    fixed(graph, [length])
    zeros = graph.add(
        "ConstantOfShape",
        graph.shape([length, *(dims[i] for i in others)]),
        dtype=updates.dtype,
        value=numpy_helper.from_array(np.zeros(1, updates.dtype)),
    )
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
