"""Augmentation: each part against a plain loop or an exact equivalent, and what holds for all parts together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist.data.augment import _gaussian, _sample, augment

Images = npt.NDArray[np.uint8]
NOTHING = {"shift": 0, "rotation": 0, "stretch": 0, "shear": 0, "bend": 0}
images = hnp.arrays(np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7)))


class Drawn:
    """A generator whose uniform numbers are given: angle, stretches, slant, shifts."""

    def __init__(self, *values: float) -> None:
        self.values = np.array(values)

    standard_normal = None

    def uniform(self, low: float, high: float, shape: tuple[int, int]) -> Any:
        assert (low, high) == (-1, 1)
        return np.broadcast_to(self.values[:, None], shape)


def by_loops(image: Images, places: Any) -> Images:
    """Bilinear interpolation, pixel by pixel."""

    def pixel(row: int, column: int) -> float:
        inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
        return float(image[row, column]) if inside else 0.0

    out = np.zeros(places.shape[1:])
    for at in np.ndindex(out.shape):
        row, column = map(float, places[(slice(None), *at)])
        top, left = math.floor(row), math.floor(column)
        for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            out[at] += pixel(r, c) * (1 - abs(row - r)) * (1 - abs(column - c))
    return out


@given(images.filter(len), st.integers(0, 2**32))
def test_sampling_is_bilinear_interpolation(x: Images, seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = rng.uniform(-3, 10, (2, *x.shape)).astype(np.float32)
    places[rng.random(places.shape) < 0.3] //= 1
    expected = np.stack([by_loops(image, places[:, i]) for i, image in enumerate(x)])
    assert np.all(abs(_sample(x, places) - expected) <= 0.5 + 1e-3)


@given(images, st.integers(0, 2**32))
def test_without_any_distortion_nothing_changes(x: Images, seed: int) -> None:
    out = augment(x, np.random.default_rng(seed), **NOTHING)
    assert out.dtype == np.uint8 and np.array_equal(out, x) and not np.shares_memory(out, x)


@given(images, st.integers(-4, 4), st.integers(-4, 4))
def test_integer_shifts_move_pixels(x: Images, down: int, right: int) -> None:
    out = augment(x, Drawn(0, 0, 0, 0, down / 4, right / 4), **{**NOTHING, "shift": 4})
    n, height, width = x.shape
    wide = np.zeros((n, height + 8, width + 8), np.uint8)
    wide[:, 4:-4, 4:-4] = x
    assert np.array_equal(out, wide[:, 4 + down :, 4 + right :][:, :height, :width])


@given(st.integers(1, 7).flatmap(lambda n: hnp.arrays(np.uint8, (2, n, n))), st.sampled_from([-2, -1, 1, 2]))
def test_right_angles_turn_the_image(x: Images, quarters: int) -> None:
    out = augment(x, Drawn(quarters / 2, 0, 0, 0, 0, 0), **{**NOTHING, "rotation": 180})
    assert np.all(abs(out.astype(int) - np.rot90(x, quarters, axes=(1, 2))) <= 1)


def test_stretching_by_half_takes_every_other_pixel() -> None:
    x = np.arange(49, dtype=np.uint8).reshape(1, 7, 7) + 100
    out = augment(x, Drawn(0, 2, 2, 0, 0, 0), **{**NOTHING, "stretch": 0.5})
    expected = np.zeros((1, 7, 7), np.uint8)
    expected[:, 2:5, 2:5] = x[:, 1:6:2, 1:6:2]
    assert np.array_equal(out[:, 2:5, 2:5], expected[:, 2:5, 2:5])


@given(st.integers(0, 3), st.integers(1, 6), st.integers(-3, 3), st.integers(0, 2**32))
def test_an_integer_shear_moves_each_row_by_its_distance_from_the_center(
    half: int, width: int, slant: int, seed: int
) -> None:
    x = np.random.default_rng(seed).integers(0, 256, (2, 2 * half + 1, width), np.uint8)
    out = augment(x, Drawn(0, 0, 0, slant / 3, 0, 0), **{**NOTHING, "shear": 3})
    wide = np.pad(x, ((0, 0), (0, 0), (9, 9)))
    for row in range(2 * half + 1):
        assert np.array_equal(out[:, row], wide[:, row, 9 + slant * (row - half) :][:, :width])


@given(images, st.floats(0, 5), st.integers(0, 2**32))
def test_strength_is_a_factor_on_every_amount(x: Images, strength: float, seed: int) -> None:
    amounts = {"shift": 1, "rotation": 20, "stretch": 0.15, "shear": 0.3, "bend": 0.5}
    expected = augment(x, np.random.default_rng(seed), **{name: strength * amount for name, amount in amounts.items()})
    assert np.array_equal(augment(x, np.random.default_rng(seed), **amounts, strength=strength), expected)


@given(images, st.integers(1, 4), st.integers(0, 2**32))
def test_the_channels_of_an_image_are_distorted_alike(x: Images, channels: int, seed: int) -> None:
    several = np.stack([np.roll(x, c, axis=2) for c in range(channels)], axis=1)
    expected = np.stack([augment(x, np.random.default_rng(seed)) for x in several.swapaxes(0, 1)], axis=1)
    for layout, axis in (("NCHW", 1), ("NHWC", 3)):
        given_ = np.moveaxis(several, 1, axis)
        out = augment(given_, np.random.default_rng(seed), layout=layout)
        assert out.shape == given_.shape and np.array_equal(np.moveaxis(out, axis, 1), expected)


@given(st.integers(1, 30), st.floats(0, 6))
def test_the_smooth_field_is_symmetric_and_keeps_its_variance(n: int, deviation: float) -> None:
    matrix = _gaussian(n, deviation).astype(float)
    variance = (matrix**2).sum(axis=0)
    np.testing.assert_allclose(matrix, matrix.T)
    assert variance.max() == pytest.approx(1, abs=1e-5) and variance.min() > 0.3


@given(st.integers(0, 2**32))
def test_digits_stay_digits_and_every_one_changes_in_its_own_way(seed: int) -> None:
    x, _ = tg.data.synthetic_digits(1, rng=np.random.default_rng(seed))
    many = np.repeat(x, 6, axis=0)
    out = augment(many, np.random.default_rng(seed))
    assert len(np.unique(out, axis=0)) == 6 and np.array_equal(many[0], x[0])
    assert np.array_equal(out, augment(many, np.random.default_rng(seed)))
    ink = out.sum(axis=(1, 2)) / x.sum()
    assert np.all((ink > 0.3) & (ink < 3)), "about as much ink as before"


@pytest.mark.parametrize(
    "x, how, words",
    [
        (np.zeros((1, 28, 28), np.float32), {}, r"images are float32 \(1, 28, 28\)"),
        (np.zeros((28, 28), np.uint8), {}, r"uint8 \(28, 28\); pass"),
        ([[1]], {}, r"images are int64 \(1, 1\); pass uint8"),
        ([[1], [1, 2]], {}, "images, of type list, cannot become an array"),
        (np.zeros((1, 2, 2), np.uint8), {"shift": -1}, "shift, times strength, is -1.0; .* at least 0"),
        (np.zeros((1, 2, 2), np.uint8), {"bend": math.nan, "rotation": math.inf}, "rotation is inf"),
        (np.zeros((1, 2, 2), np.uint8), {"stretch": 1.5}, "stretch, times strength, is 1.5; .* at most 0.99"),
        (np.zeros((1, 2, 2), np.uint8), {"shear": -0.5}, "shear, times strength, is -0.5"),
        (np.zeros((1, 2, 2), np.uint8), {"strength": -1, "shift": -1}, "strength is -1; .* at least 0"),
        (np.zeros((1, 2, 2), np.uint8), {"strength": math.nan}, "strength is nan"),
    ],
)
def test_what_makes_no_sense_is_refused(x: Any, how: dict[str, float], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        augment(x, np.random.default_rng(0), **how)
    with pytest.raises(TypeError, match="rng is NoneType"):
        augment(np.zeros((1, 2, 2), np.uint8), None)


@pytest.mark.parametrize("shape", [(0, 28, 28), (3, 0, 5), (2, 5, 0)])
def test_no_pixels_stay_no_pixels(shape: tuple[int, ...]) -> None:
    assert augment(np.zeros(shape, np.uint8), np.random.default_rng(0)).shape == shape


def test_a_trainer_uses_new_images_each_time_and_the_threads_do_not_matter() -> None:
    from models.mlp import MLP

    x, y = tg.data.synthetic_digits(40)
    seen: list[Images] = []

    def noted(images: Images, rng: np.random.Generator) -> Images:
        seen.append(augment(images, rng))
        return seen[-1]

    found = []
    for threads in (1, 3):
        model = MLP(np.random.default_rng(0))
        trainer = tg.training.Trainer(
            model,
            tg.optim.SGD(tg.nn.parameters(model)),
            x,
            y,
            epochs=2,
            batch_size=40,
            rng=np.random.default_rng(1),
            shard_size=10,
            threads=threads,
            augment=noted,
        )
        found.append([step.loss for step in trainer.steps()])
    assert found[0] == found[1] and len(np.unique(np.concatenate(seen[:8]), axis=0)) == 80
