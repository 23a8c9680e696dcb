"""Gradient ascent moves images towards a class, smoothly, and within the pixels that there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import convolve1d
from scipy.special import log_softmax

import tinygrad_mnist as tg
from tinygrad_mnist.explain import ascend

SEEDS = st.integers(0, 2**32 - 1)
BLUR = np.array([1, 4, 6, 4, 1]) / 16


class Linear:
    """Logits whose gradients are known."""

    def __init__(self, rng: np.random.Generator, pixels: int) -> None:
        self.weight = rng.normal(size=(pixels, 3))

    def __call__(self, x: tg.Tensor) -> tg.Tensor:
        return x.reshape(len(x), -1) @ self.weight

    def log_probabilities(self, images: Any) -> Any:
        return log_softmax(images.reshape(len(images), -1) @ self.weight, axis=1)


def blurred(images: Any) -> Any:
    for axis in (1, 2):
        images = convolve1d(images, BLUR, axis, mode="constant")
    return images


@given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.floats(0.001, 2), st.floats(0, 2), st.integers(0, 3))
def test_steps_are_those_of_the_definition(
    seed: int, height: int, width: int, step_size: float, smoothing: float, steps: int
) -> None:
    rng = np.random.default_rng(seed)
    model, images = Linear(rng, height * width), rng.random((2, height, width))
    target = rng.integers(0, 3, 2)
    expected = images
    for _ in range(steps):
        p = np.exp(model.log_probabilities(expected))
        slope = blurred(((np.eye(3)[target] - p) @ model.weight.T).reshape(images.shape))
        slope /= abs(slope).max(axis=(1, 2), keepdims=True)
        change = slope + smoothing * (blurred(expected) - expected - 0.1)
        expected = (expected + step_size * change).clip(0, 1)
    found = ascend(model, images, target, steps=steps, step_size=step_size, smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found.dtype == np.float64 and not np.shares_memory(found, images)


@given(SEEDS, st.integers(0, 2))
def test_the_class_becomes_more_probable(seed: int, target: int) -> None:
    rng = np.random.default_rng(seed)
    model, images = Linear(rng, 36), rng.uniform(0.2, 0.8, (3, 6, 6))
    before = model.log_probabilities(images)[:, target]
    after = model.log_probabilities(ascend(model, images, target, step_size=0.01, smoothing=0))[:, target]
    assert (after > before).all()


def test_it_goes_on_from_a_result_and_repeats_itself() -> None:
    model = Linear(np.random.default_rng(0), 784)
    images = tg.data.synthetic_digits(2, rng=np.random.default_rng(1))[0]
    whole = ascend(model, images, [2, 0], steps=6)
    np.testing.assert_array_equal(ascend(model, ascend(model, images, [2, 0], steps=2), [2, 0], steps=4), whole)
    np.testing.assert_array_equal(ascend(model, images[1:], 0, steps=6), whole[1:])
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 1
    np.testing.assert_array_equal(ascend(model, images, 0, steps=0), images / np.float32(255))


def test_smoothing_makes_images_smoother_and_darker() -> None:
    model = Linear(np.random.default_rng(0), 784)
    images = tg.data.synthetic_digits(2, rng=np.random.default_rng(1))[0]
    hazy, clear = (ascend(model, images, 2, steps=20, smoothing=smoothing) for smoothing in (0, 1))

    def variation(x: Any) -> float:
        return sum(float(np.abs(np.diff(x, axis=axis)).mean()) for axis in (1, 2))

    assert variation(clear) < variation(hazy) and clear.mean() < hazy.mean()


def test_without_a_slope_only_smoothing_moves_an_image() -> None:
    def model(x: tg.Tensor) -> tg.Tensor:
        return 0 * x.reshape(len(x), -1)[:, :3]

    images = np.full((1, 9, 9), 0.5)
    np.testing.assert_array_equal(ascend(model, images, 1, steps=3, smoothing=0), images)
    assert (ascend(model, images, 1, steps=3) < images).all()


def test_without_a_target_it_goes_nowhere() -> None:
    with pytest.raises(TypeError, match="^ascend: target is None; it must be a class"):
        ascend(Linear(np.random.default_rng(0), 4), np.zeros((1, 2, 2)), None)
