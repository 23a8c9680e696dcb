"""Saliency is the derivative of the chosen logit by each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.explain import saliency

SEEDS = st.integers(0, 2**32 - 1)


class Smooth:
    """A classifier in float64, of images of any size, that is smooth: finite differences are exact to 1e-8."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.conv = tg.nn.Conv2d(1, 3, 2, rng=rng, dtype=np.float64)
        self.out = tg.nn.Linear(3, 4, rng=rng, dtype=np.float64)

    def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
        return self.out(tg.tanh(self.conv(tg.data.as_input(images, np.float64))).mean(axis=(2, 3)))


def differences(model: Any, images: Any, classes: Any) -> Any:
    """Central differences of the logits of these classes, pixel by pixel."""
    step, pixels = 1e-5, images[0].size
    moves = step * np.eye(pixels).reshape(pixels, *images.shape[1:])
    found = []
    for image, k in zip(images, classes, strict=True):
        up, down = model(tg.Tensor(image + moves)).data[:, k], model(tg.Tensor(image - moves)).data[:, k]
        found.append((up - down).reshape(image.shape) / (2 * step))
    return np.array(found)


@given(SEEDS, st.integers(1, 3), st.integers(2, 5), st.integers(2, 5), st.data())
def test_it_is_the_difference_that_a_pixel_makes(seed: int, n: int, height: int, width: int, data: Any) -> None:
    model, images = Smooth(seed), np.random.default_rng(seed).random((n, height, width))
    targets = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), min_size=n, max_size=n)
    target = data.draw(targets)
    chosen = model(tg.Tensor(images)).data.argmax(axis=1) if target is None else np.broadcast_to(target, n)
    found = saliency(model, images, target)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, differences(model, images, chosen), rtol=1e-6, atol=1e-8)
    for alike in (np.array(chosen), chosen.astype(np.uint8), chosen.tolist()):
        np.testing.assert_array_equal(saliency(model, images, alike), found)


@given(SEEDS)
def test_of_a_linear_model_it_is_the_weight_with_its_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, images = rng.normal(size=(12, 3)), rng.integers(0, 256, (4, 3, 4)).astype(np.uint8)

    def model(x: tg.Tensor) -> tg.Tensor:
        return x.reshape(len(x), 12) @ weight

    for k in range(3):
        expected = np.broadcast_to(weight[:, k].reshape(3, 4), (4, 3, 4))
        for samples in (1, 5):
            np.testing.assert_allclose(saliency(model, images, k, samples=samples), expected, rtol=1e-5)


def squares(x: tg.Tensor) -> tg.Tensor:
    """Logits whose gradients are the pixels, and twice the pixels: the brightest image is of class 1."""
    return (x * x).sum(axis=(1, 2)).reshape(-1, 1) * np.array([0.5, 1.0])


def test_noise_is_added_to_the_pixels_and_averaged() -> None:
    images = np.random.default_rng(0).random((3, 20, 20))
    np.testing.assert_allclose(saliency(squares, images, 0), images)
    np.testing.assert_allclose(saliency(squares, images, 0, samples=4, noise=0), images)
    expected = images * np.array([1, 2, 1]).reshape(3, 1, 1)
    np.testing.assert_allclose(saliency(squares, images, [0, 1, 0], samples=2, noise=0), expected)
    mean_noise = saliency(squares, images, 0, samples=25, noise=0.5) - images
    assert mean_noise.std() == pytest.approx(0.5 / 5, rel=0.15) and abs(mean_noise.mean()) < 0.02
    np.testing.assert_allclose(mean_noise[0], mean_noise[1])  # the same for all images, and in every call
    np.testing.assert_array_equal(saliency(squares, images, 0, samples=25, noise=0.5) - images, mean_noise)


def test_noise_does_not_change_the_class_that_is_explained() -> None:
    def model(x: tg.Tensor) -> tg.Tensor:  # of class 1, but of class 0 where a pixel is brighter by 0.05
        first = x[:, :1, 0]
        return tg.concatenate([first, 0 * first + 0.05], axis=1)

    assert not saliency(model, np.zeros((1, 2, 2)), samples=50, noise=1.0).any()
    assert saliency(model, np.zeros((1, 2, 2)), 0, samples=50, noise=1.0).sum() == pytest.approx(1)
