"""Occlusion is what covering, patch by patch, makes of the probability."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

import tinygrad_mnist as tg
from tinygrad_mnist.explain import occlusion

places = importlib.import_module("tinygrad_mnist.explain.occlusion")  # the function has its name


class Model:
    """Random logits of images of a size; counts how often it is called."""

    def __init__(self, rng: np.random.Generator, pixels: int) -> None:
        self.weights = rng.normal(size=(pixels, 6)), rng.normal(size=(6, 3))
        self.calls = 0

    def __call__(self, x: tg.Tensor) -> tg.Tensor:
        self.calls += 1
        return tg.tanh(x.reshape(len(x), -1) @ self.weights[0]) @ self.weights[1]


def naive(model: Any, images: Any, classes: Any, size: int, stride: int, fill: float) -> Any:
    """Cover one patch after the other, and average over the patches that cover a pixel."""

    def probability(image: Any, k: int) -> float:
        return float(softmax(model(tg.Tensor(image[None])).data[0])[k])

    found = np.zeros_like(images)
    height, width = images.shape[1:]
    for i, (image, k) in enumerate(zip(images, classes, strict=True)):
        count = np.zeros((height, width))
        for top in {*range(0, height - size + 1, stride), height - size}:
            for left in {*range(0, width - size + 1, stride), width - size}:
                covered = image.copy()
                covered[top : top + size, left : left + size] = fill
                found[i, top : top + size, left : left + size] += probability(image, k) - probability(covered, k)
                count[top : top + size, left : left + size] += 1
        found[i] /= count
    return found


@given(st.data())
def test_it_is_what_a_loop_over_the_patches_finds(data: Any) -> None:
    n, height, width = (data.draw(st.integers(1, most)) for most in (3, 6, 6))
    size = data.draw(st.integers(1, min(height, width)))
    stride, fill = data.draw(st.integers(1, size)), data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    model, images = Model(rng, height * width), rng.random((n, height, width))
    target = data.draw(st.none() | st.integers(0, 2) | st.lists(st.integers(0, 2), min_size=n, max_size=n))
    chosen = model(tg.Tensor(images)).data.argmax(axis=1) if target is None else np.broadcast_to(target, n)
    expected = naive(model, images, chosen, size, stride, fill)
    for batch in (2, 512):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(places, "BATCH", batch)
            found = occlusion(model, images, target, size=size, stride=stride, fill=fill)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_single_image_of_28_pixels_is_one_batch() -> None:
    model = Model(np.random.default_rng(0), 784)
    occlusion(model, np.zeros((1, 28, 28), np.uint8))
    assert model.calls == 2  # the image itself, and all patches


def test_the_pixel_that_decides_is_found_with_its_sign() -> None:
    def model(x: tg.Tensor) -> tg.Tensor:
        return 4 * x[:, 9:10, 5] * np.array([1.0, 0.0])

    image = np.full((1, 16, 16), 255, np.uint8)
    found = occlusion(model, image, size=3, stride=1)
    near = np.zeros((16, 16), bool)
    near[7:12, 3:8] = True  # what a patch covers together with the pixel
    assert (found[0][near] > 0).all() and not found[0][~near].any()
    assert np.unravel_index(found[0].argmax(), (16, 16)) == (9, 5)
    assert found.max() == pytest.approx(1 / (1 + np.exp(-4)) - 0.5, rel=1e-5)
    np.testing.assert_allclose(occlusion(model, image, 1, size=3, stride=1), -found, atol=1e-6)
    assert not occlusion(model, image, size=3, stride=1, fill=1.0).any()


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (3, 4), (4, 2)])
def test_patches_that_do_not_fit_or_leave_gaps_are_refused(size: int, stride: int) -> None:
    model = Model(np.random.default_rng(0), 15)
    with pytest.raises(ValueError, match=rf"^occlusion: size is {size} and stride {stride}, images .*\(2, 3, 5\); "):
        occlusion(model, np.zeros((2, 3, 5), np.uint8), size=size, stride=stride)


def test_a_fill_that_is_no_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="occlusion: fill is 255; it must be a finite number of at least 0"):
        occlusion(Model(np.random.default_rng(0), 784), np.zeros((2, 28, 28), np.uint8), fill=255)
