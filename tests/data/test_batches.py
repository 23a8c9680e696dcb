"""Batches: every example once, the same ones for the same seed; images become a network's input."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist.data import as_input, augment, batches

images = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=6))


@given(st.integers(0, 200), st.integers(1, 60), st.none() | st.integers(0, 9), st.booleans())
def test_batches_cut_all_examples(n: int, size: int, seed: int | None, drop_last: bool) -> None:
    def draw() -> list[npt.NDArray[np.intp]]:
        return list(batches(n, size, None if seed is None else np.random.default_rng(seed), drop_last))

    result = draw()
    assert [len(batch) for batch in result] == [size] * (n // size) + [n % size] * (n % size > 0 and not drop_last)
    order = np.concatenate([np.empty(0, np.intp), *result])
    assert order.dtype == np.intp and len(set(order.tolist())) == len(order)
    assert not len(order) or 0 <= order.min() <= order.max() < n
    if seed is None:
        assert order.tolist() == list(range(len(order)))
    assert order.tolist() == np.concatenate([np.empty(0, np.intp), *draw()]).tolist()


def test_a_generator_shuffles_anew_at_every_call() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.concatenate(list(batches(100, 7, rng))) for _ in range(2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, np.arange(100))


@pytest.mark.parametrize(
    ("n", "size", "message"), [(-1, 5, "n is -1"), (5, 0, "batch_size is 0"), (5, -2, "batch_size is -2")]
)
def test_nonsense_is_refused_at_the_call(n: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"batches: {message}"):
        batches(n, size)


@given(images, st.sampled_from([np.float32, np.float64]))
def test_input_is_the_pixels_over_255_with_the_batch_innermost(x: npt.NDArray[np.uint8], dtype: Any) -> None:
    before = x.copy()
    result = as_input(x, dtype)
    assert result.dtype == dtype and result.shape == (len(x), 1, *x.shape[1:])
    np.testing.assert_array_equal(result[:, 0], x.astype(dtype) / dtype(255))
    assert result.transpose(2, 1, 3, 0).flags.c_contiguous
    assert result.flags.writeable and not np.shares_memory(result, x)
    np.testing.assert_array_equal(x, before)


def test_input_spans_zero_to_one_and_takes_views() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    assert as_input(x).min() == 0 and as_input(x).max() == 1
    np.testing.assert_array_equal(as_input(x[::-2, :, ::3]), as_input(x)[::-2, :, :, ::3])


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, min_side=0, max_side=5)), st.booleans())
def test_input_has_the_channels_second(x: npt.NDArray[np.uint8], last: bool) -> None:
    expected = np.stack([as_input(channel)[:, 0] for channel in x.swapaxes(0, 1)], 1) if x.shape[1] else x
    result = as_input(np.moveaxis(x, 1, 3), layout="NHWC") if last else as_input(x, layout="NCHW")
    np.testing.assert_array_equal(result, expected)
    assert result.transpose(2, 1, 3, 0).flags.c_contiguous and result.dtype == np.float32
    if x.shape[1] <= 4:
        np.testing.assert_array_equal(as_input(x), expected)


@given(images, st.sampled_from([np.float32, np.float64]))
def test_a_tensor_of_floats_keeps_its_history(x: npt.NDArray[np.uint8], dtype: Any) -> None:
    pixels = tg.Tensor(x / 255, requires_grad=True)
    result = as_input(pixels, dtype)
    assert isinstance(result, tg.Tensor) and result.dtype == dtype and result.shape == (len(x), 1, *x.shape[1:])
    np.testing.assert_array_equal(result.data[:, 0], (x / 255).astype(dtype))
    (slope,) = tg.grad((3 * result).sum(), [pixels])
    np.testing.assert_array_equal(slope.data, np.full(x.shape, 3.0))
    assert not as_input(pixels.detach()).requires_grad
    assert as_input(tg.Tensor(np.ones((2, 5, 4, 3))), layout="NHWC").shape == (2, 3, 5, 4)


@given(images, st.sampled_from([np.float16, np.float32, np.float64]))
def test_a_tensor_of_pixels_gives_the_same_bits(x: npt.NDArray[np.uint8], dtype: Any) -> None:
    result = as_input(tg.Tensor(x), dtype)
    assert isinstance(result, tg.Tensor) and result.dtype == dtype
    np.testing.assert_array_equal(result.data, as_input(x, dtype))


def test_channels_that_seem_to_be_last_must_be_announced() -> None:
    remedy = r"channels seem to be last; pass images.transpose\(0, 3, 1, 2\), or layout='NHWC'"
    for channels in (1, 3, 4):
        x = np.zeros((2, 8, 9, channels), np.uint8)
        for use in (as_input, lambda x: augment(x, np.random.default_rng(0))):
            with pytest.raises(ValueError, match=rf"images have shape \(2, 8, 9, {channels}\); {remedy}"):
                use(x)
        assert as_input(x, layout="NCHW").shape == x.shape
        assert as_input(x.transpose(0, 3, 1, 2)).shape == (2, channels, 8, 9)
    with pytest.raises(ValueError, match="layout is 'HWCN'; it must be 'NCHW' or 'NHWC'"):
        as_input(x, layout="HWCN")


def test_input_refuses_scaled_or_flat_images() -> None:
    with pytest.raises(TypeError, match="as_input: images are float32; expected uint8"):
        as_input(np.zeros((1, 28, 28), np.float32))
    with pytest.raises(ValueError, match=r"as_input: images have shape \(28, 28\); expected \(N, H, W\)"):
        as_input(tg.Tensor(np.zeros((28, 28), np.float32)))
    with pytest.raises(ValueError, match=r"as_input: images have shape \(28, 28\); expected \(N, H, W\)"):
        as_input(np.zeros((28, 28), np.uint8))


def test_the_examples_run() -> None:
    for module in ("batches", "layout"):
        assert doctest.testmod(importlib.import_module(f"tinygrad_mnist.data.{module}")).failed == 0
