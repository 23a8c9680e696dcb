"""Convolution, pooling, windows and matrix products as ONNX files, on other values and batches than the traced ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from images import numbers, pool_geometries
from onnx_files import RUNTIMES, check_file
from op_checks import seeds, some

import tinygrad_mnist as tg
from tinygrad_mnist.export.converters import CONVERTERS, convolution
from tinygrad_mnist.kernels import Geometry
from tinygrad_mnist.ops.average import _avg_pool, _avg_pool_gradient
from tinygrad_mnist.ops.conv import _conv_input, _conv_output, _conv_weight
from tinygrad_mnist.ops.pool import _max_pool, _max_pool_gather, _max_pool_scatter
from tinygrad_mnist.ops.windows import _fold, _unfold

few = st.integers(1, 3)


def pairs(least: int, most: int) -> Any:
    return st.tuples(st.integers(least, most), st.integers(least, most))


geometries = st.builds(Geometry, pairs(1, 4), pairs(0, 4), pairs(1, 3), st.integers(1, 2), pairs(-2, 2))
sizes, kernels = pairs(1, 8), pairs(1, 3)
single = st.sampled_from([np.float32, np.float32, np.float16])


def batches(seed: int, dtype: Any, *shapes: Any) -> list[list[Any]]:
    """Whole numbers for each shape of one example: a batch to trace with, and another one of another size."""
    return [[numbers(seed + i, (n, *shape), dtype) for i, shape in enumerate(shapes)] for n in (2, 3)]


@some
@given(geometries, sizes, kernels, few, few, single, seeds)
@example(
    Geometry((2, 4), (4, 2), (1, 1), 2, (0, -2)), (8, 2), (2, 1), 1, 1, np.float32, 0
)  # nothing but padding is left
@example(Geometry((2, 1), (3, 1), (1, 2), 1, (2, -2)), (7, 5), (2, 1), 1, 1, np.float32, 0)  # rows beyond the stride
def test_each_partial_derivative_of_a_convolution(
    geometry: Geometry, size: Any, kernel: Any, channels: int, filters: int, dtype: Any, seed: int
) -> None:
    rows = geometry.output_size(size, kernel)
    assume(min(rows) > 0)
    groups = geometry.groups
    w = numbers(seed, (filters * groups, channels, *kernel), dtype)
    bias = numbers(seed + 1, (filters * groups,), dtype)
    traced, others = batches(seed + 2, dtype, (channels * groups, *size), (filters * groups, *rows))
    check_file(lambda x: _conv_output(x, w, bias, geometry=geometry), traced[:1], others[:1])
    check_file(lambda x, g: _conv_weight(x, g, geometry=geometry, size=kernel), traced, others)
    runtimes = RUNTIMES[groups > 1 :]  # onnx.reference 1.23 computes ConvTranspose wrongly where there are groups
    check_file(lambda g: _conv_input(g, w, geometry=geometry, size=size), traced[1:], others[1:], runtimes=runtimes)


@some
@given(pool_geometries, single, seeds)
def test_pooling_and_its_adjoints(drawn: Any, dtype: Any, seed: int) -> None:
    (_, *shape), kernel, stride, padding = drawn
    window: Any = {"kernel": kernel, "geometry": Geometry(stride, padding)}
    rows = window["geometry"].output_size(shape, kernel)
    traced, others = batches(seed, dtype, shape, (shape[0], *rows), shape)
    ties = [np.sign(x[0]) for x in (traced, others)]

    def pooled(x: Any) -> Any:
        return _max_pool(x, **window)

    runtimes = RUNTIMES[stride == (1, 1) :]  # onnx.reference 1.23 counts Indices wrongly where windows step by one
    model = check_file(
        lambda x, g, v: (
            pooled(x),
            _max_pool_scatter(g, x, pooled(x), **window),
            _max_pool_gather(v, x, pooled(x), **window),
        ),
        [ties[0], *traced[1:]],
        [ties[1], *others[1:]],
        runtimes=runtimes,
    )
    assert {node.op_type for node in model.graph.node} >= {"MaxPool", "ScatterElements", "Gather"}
    check_file(lambda x: _avg_pool(x, **window), traced[:1], others[:1])
    check_file(lambda g: _avg_pool_gradient(g, **window, size=shape[1:]), traced[1:2], others[1:2])


@some
@given(st.integers(1, 3), st.integers(1, 3), few, few, st.sampled_from("feil"), seeds)
def test_windows_and_their_sums(axis: int, size: int, step: int, more: int, kind: str, seed: int) -> None:
    shape = [2, 3, 2]
    shape[axis - 1] = size + more
    traced, others = batches(seed, np.dtype(kind), shape)
    check_file(lambda x: _unfold(x, axis=axis, size=size, step=step), traced, others)
    windows = [_unfold(x, axis=axis, size=size, step=step).data for (x,) in (traced, others)]
    length = size + more
    check_file(lambda y: _fold(y, axis=axis, length=length, step=step), windows[:1], windows[1:])


@some
@given(st.sampled_from("efdbBhiqQ?"), st.sampled_from([(3,), (2, 3), (1, 2, 3)]), st.booleans(), seeds)
def test_matrix_products(kind: str, shape: Any, stacked: bool, seed: int) -> None:
    y = numbers(seed, (2, 3, 4) if stacked and len(shape) == 3 else (3, 4), np.dtype(kind))
    traced, others = batches(seed + 1, np.dtype(kind), shape)
    check_file(lambda x: tg.matmul(x, y), traced, others)


def test_nan_and_infinities_spread_as_in_the_ops() -> None:
    w = numbers(0, (2, 2, 2, 2), np.float32)
    traced, others = batches(1, np.float32, (2, 4, 4))
    special = others[0].copy()
    special[0, 0, 1, 2], special[1, 1, 3, 3], special[2, 0, 0, 0] = np.nan, np.inf, -np.inf

    def all_of_them(x: Any) -> list[Any]:
        fields = tg.im2col(x, 2, 2)
        return [
            tg.conv2d(x, w),
            tg.conv_transpose2d(x, w, stride=2),
            tg.avg_pool2d(x, 2),
            fields,
            fields @ w.reshape(8, 2),
        ]

    with np.errstate(invalid="ignore"):
        check_file(all_of_them, traced, [special])


def test_a_bias_of_the_columns_joins_the_product_and_nothing_else_does() -> None:
    w, bias, one = (np.ones(shape, np.float32) for shape in ((3, 4), (4,), (3, 1)))
    traced, others = batches(0, np.float32, (3,))

    def kinds(function: Any) -> list[str]:
        return [node.op_type for node in check_file(function, traced, others).graph.node]

    assert kinds(lambda x: x @ w + bias) == kinds(lambda x: bias + x @ w) == ["Gemm"]
    assert kinds(lambda x: x @ one + bias) == ["Gemm", "Add"]  # the sum is larger than the product
    assert kinds(lambda x: [y := x @ w, y + bias]) == ["Gemm", "Add"]  # an output, too


def test_a_wrong_converter_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    w = numbers(0, (2, 1, 3, 3), np.float32)
    traced, others = batches(1, np.float32, (1, 5, 5))

    def convolved(x: Any) -> Any:
        return tg.conv2d(x, w, padding=1, dilation=2)

    def undilated(graph: Any, x: Any, w: Any, bias: Any, *, geometry: Geometry) -> Any:
        wrong = geometry._replace(dilation=(1, 1), padding=(0, 0))
        return convolution._output(graph, x, w, bias, geometry=wrong)

    check_file(convolved, traced, others)
    monkeypatch.setitem(CONVERTERS, _conv_output, undilated)
    with pytest.raises(AssertionError):
        check_file(convolved, traced, others)


def test_what_onnx_cannot_say_is_refused_by_name() -> None:
    whole = np.ones((2, 1, 3, 3), np.int64)
    with pytest.raises(NotImplementedError, match="images are int64 .*test_onnx_images.py.*astype"):
        tg.export.to_onnx(lambda x: tg.conv2d(x, whole), whole)
