"""Adaptive and global average pooling against PyTorch's definition of the windows; `avg_pool2d` is in test_pool.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import check_value_error, layouts
from op_checks import dtypes, seeds
from planted import normal, plants, vjp

import tinygrad_mnist as tg
from tinygrad_mnist.testing import check_gradients

sides = st.integers(1, 7)
images = st.tuples(st.integers(0, 2), st.integers(1, 2), sides, sides)


@given(images, st.tuples(sides, sides), dtypes, layouts, seeds, st.booleans())
def test_each_window_has_its_mean(shape: Any, size: Any, dtype: Any, layout: str, seed: int, special: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(dtype)
    x = np.ascontiguousarray(x.T).T if layout == "batch innermost" else x
    if special:
        x[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    leaf = tg.Tensor(x, requires_grad=True)
    out = tg.adaptive_avg_pool2d(leaf, size)
    assert out.dtype == dtype and out.shape == (*shape[:2], *size)
    g = rng.normal(size=out.shape).astype(dtype) * dtype(1000)
    (found,) = tg.grad(out, [leaf], gradient=g)
    gradient = np.zeros(shape)
    for i, j in np.ndindex(*size):
        rows, columns = (
            slice(int(np.floor(at * length / count)), int(np.ceil((at + 1) * length / count)))
            for at, length, count in zip((i, j), shape[2:], size, strict=True)
        )
        seen = x[:, :, rows, columns].astype(np.float64)
        np.testing.assert_allclose(out.data[:, :, i, j], seen.mean((2, 3)), rtol=1e-5, atol=1e-5)
        gradient[:, :, rows, columns] += g[:, :, i, j, None, None].astype(np.float64) / (seen.shape[2] * seen.shape[3])
    np.testing.assert_allclose(found.data, gradient, rtol=1e-5, atol=1e-2)


@given(images.filter(lambda shape: shape[0]), dtypes, seeds)
def test_the_mean_of_whole_images(shape: Any, dtype: Any, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    pooled = tg.global_avg_pool(x)
    assert pooled.dtype == dtype
    np.testing.assert_allclose(pooled.data, x.astype(np.float64).mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tg.adaptive_avg_pool2d(x, 1).data[:, :, 0, 0], pooled.data, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 1), (4, 3)])
def test_gradients_match_finite_differences(size: Any) -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 3, 2))
    check_gradients(lambda x: tg.sin(tg.adaptive_avg_pool2d(x, size)), x, order=2, rng=0)
    check_gradients(lambda x: tg.sin(tg.global_avg_pool(x)), x, order=2, rng=0)


def test_a_layer_pools() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 8))
    layer = tg.nn.AvgPool2d((2, 3), 2, (1, 0))
    np.testing.assert_array_equal(layer(x).data, tg.avg_pool2d(x, (2, 3), 2, (1, 0)).data)
    assert [repr(layer), repr(tg.nn.AvgPool2d(2))] == [
        "AvgPool2d((2, 3), stride=2, padding=(1, 0))",
        "AvgPool2d(2, stride=2, padding=0)",
    ]


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tg.adaptive_avg_pool2d(np.zeros((2, 3, 4)), 2), ["adaptive_avg_pool2d", "(2, 3, 4)", "(N, C, H, W)"]),
        (lambda: tg.adaptive_avg_pool2d(np.zeros((2, 3, 0, 4)), 2), ["adaptive_avg_pool2d", "(2, 3, 0, 4)", "pixel"]),
        (lambda: tg.adaptive_avg_pool2d(np.zeros((2, 3, 4, 4)), 0), ["adaptive_avg_pool2d", "output_size must be"]),
        (lambda: tg.global_avg_pool(np.zeros((3, 4, 4))), ["global_avg_pool", "(3, 4, 4)", "(N, C, H, W)"]),
        (lambda: tg.global_avg_pool(np.zeros((3, 4, 0, 4))), ["global_avg_pool", "(3, 4, 0, 4)", "one pixel"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(call: Any, parts: list[str]) -> None:
    check_value_error(call, parts)


# Planted errors -------------------------------------------------------------------------------------------------------
def thirds(x: Any) -> tg.Tensor:
    return tg.adaptive_avg_pool2d(x, (2, 3))


@plants("adaptive_avg_pool2d: windows side by side", thirds, normal((1, 2, 3, 4)), kind="windows")
def _(right, g, out, x):
    return vjp(lambda x: tg.adaptive_avg_pool2d(x[:, :, :2, :3], (2, 3)), 0, g, x)


@plants("global_avg_pool: the sum", tg.global_avg_pool, normal((2, 2, 3, 3)), kind="windows")
def _(right, g, out, x):
    return right * 9
