"""The built-in digits: reproducible to the bit, by the convention of MNIST, and enough like it to learn from."""

from __future__ import annotations

import doctest
import itertools
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist.data.idx import read_idx
from tinygrad_mnist.data.synthetic import CHUNK, KNOTS, SKELETONS, synthetic_digits

REAL = os.environ.get("TINYGRAD_MNIST_DATA")
MANY = 2 * CHUNK + 44  # whole chunks and a part of one

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    return synthetic_digits(5000, np.random.default_rng(1))


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(0, MANY))
def test_fewer_images_are_the_first_of_more(seed: int, n: int) -> None:
    images, labels = synthetic_digits(n, np.random.default_rng(seed))
    more_images, more_labels = synthetic_digits(MANY, np.random.default_rng(seed))
    np.testing.assert_array_equal(images, more_images[:n])
    np.testing.assert_array_equal(labels, more_labels[:n])


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(0, 60))
def test_shape_type_balance_and_convention(seed: int, n: int) -> None:
    images, labels = synthetic_digits(n, np.random.default_rng(seed))
    assert images.shape == (n, 28, 28) and images.dtype == np.uint8
    assert labels.shape == (n,) and labels.dtype == np.uint8
    for ten in np.split(labels[: n - n % 10], max(n // 10, 1)):
        assert len(ten) in (0, 10) and len(set(ten.tolist())) == len(ten)
    assert set(labels.tolist()) <= set(range(10))
    assert_convention(images)


def test_convention_holds_for_every_image(digits: Any) -> None:
    images, labels = digits
    assert_convention(images)
    assert np.bincount(labels, minlength=10).tolist() == [500] * 10
    assert (labels.reshape(-1, 10) != labels[:10]).any(), "every ten has the same order"


def assert_convention(images: npt.NDArray[np.uint8]) -> None:
    """Ink 20 pixels long and no more, black and white reached, centre of mass within a pixel of the middle."""
    for axis in (1, 2):
        inked = images.max(axis=axis) > 0  # (n, 28)
        extent = 28 - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
        assert np.all(inked.any(axis=1)) and np.all(extent <= 20)
        mass = images.sum(axis=axis, dtype=np.int64)  # (n, 28)
        assert np.all(abs(mass @ np.arange(28) / mass.sum(axis=1) - 13.5) < 1)
    assert np.all(images.max(axis=(1, 2)) == 255)
    assert np.all(images.min(axis=(1, 2)) == 0)


def test_ink_profile_is_that_of_a_pen(digits: Any) -> None:
    """Mostly paper; where there is ink, a full core with soft edges (MNIST: 81 % paper, 6 % full, mean 33)."""
    images, _ = digits
    assert 0.75 < np.mean(images == 0) < 0.85
    assert 0.04 < np.mean(images >= 253) < 0.09
    assert 28 < images.mean() < 40


def test_no_two_images_are_alike(digits: Any) -> None:
    images, _ = digits
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_seeds_and_calls_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = synthetic_digits(10, rng)[0], synthetic_digits(10, rng)[0]
    other = synthetic_digits(10, np.random.default_rng(seed + 1))[0]
    assert (first != second).any() and (first != other).any()


def test_the_generator_advances_by_the_same_amount_whatever_n() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    synthetic_digits(0, one)
    synthetic_digits(MANY, other)
    assert one.integers(2**63) == other.integers(2**63)


def test_no_generator_means_seed_zero() -> None:
    for ours, theirs in zip(synthetic_digits(12), synthetic_digits(12, rng=np.random.default_rng(0)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state(legacy=False)
    synthetic_digits(30)
    np.testing.assert_equal(np.random.get_state(legacy=False), before)


def test_numpy_integers_count() -> None:
    assert synthetic_digits(np.int64(3))[0].shape == (3, 28, 28)


@pytest.mark.parametrize(
    ("n", "rng", "error", "message"),
    [
        (-1, None, ValueError, "synthetic_digits: n is -1; it must be an integer of at least 0"),
        (2.0, None, TypeError, "synthetic_digits: n is 2.0; it must be an integer of at least 0"),
        (True, None, TypeError, "synthetic_digits: n is True"),
        (np.True_, None, TypeError, "synthetic_digits: n is"),
        ("3", None, TypeError, "synthetic_digits: n is '3'"),
        (None, None, TypeError, "synthetic_digits: n is None"),
        (3, 0, TypeError, "synthetic_digits: rng is 0; give a generator"),
        (3, np.random.RandomState(0), TypeError, "synthetic_digits: rng is RandomState"),
    ],
)
def test_errors_name_the_function_and_the_remedy(n: Any, rng: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        synthetic_digits(n, rng)


def test_skeletons_are_well_formed() -> None:
    """At least two points in every stroke, no point twice in a row, room for all, several ways to write each digit."""
    assert sorted(SKELETONS) == list(range(10))
    for digit, paths in SKELETONS.items():
        assert len(set(paths)) == len(paths) >= 8, digit
        for path in paths:
            strokes = [[token.rstrip("!") for token in stroke.split()] for stroke in path.split("|")]
            assert sum(map(len, strokes)) <= KNOTS, path
            assert all(len(stroke) >= 2 for stroke in strokes), path
            assert all(a != b for stroke in strokes for a, b in itertools.pairwise(stroke)), path


@pytest.mark.skipif(not REAL, reason="TINYGRAD_MNIST_DATA does not name a folder with the IDX files")
def test_a_linear_classifier_trained_on_them_reads_real_digits(digits: Any) -> None:
    """Least squares with a ridge penalty: 73 % measured on MNIST's training images (chance: 10 %)."""
    images, labels = digits
    names = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
    real, real_labels = (read_idx(os.path.join(str(REAL), name))[:5000] for name in names)
    x, real_x = (np.pad(a.reshape(len(a), -1) / 255, ((0, 0), (0, 1)), constant_values=1) for a in (images, real))
    weights = np.linalg.solve(x.T @ x + 50 * np.eye(785), x.T @ np.eye(10)[labels])
    assert np.mean((real_x @ weights).argmax(axis=1) == real_labels) > 0.65


def test_documented_examples_run() -> None:
    results = doctest.testmod(sys.modules[synthetic_digits.__module__])
    assert results.attempted > 0 and results.failed == 0
