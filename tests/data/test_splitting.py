"""Training and validation together are the whole, and every class has its share."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.data import hold_out, splitting


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_a_split_is_a_stratified_partition(labels: list[int], data: st.DataObject) -> None:
    classes = np.array(labels)
    count = data.draw(st.integers(0, len(labels) - 1))
    seed = data.draw(st.integers(0, 9))
    training, validation = hold_out(classes, count, np.random.default_rng(seed))
    assert len(validation) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    for part in (training, validation):
        np.testing.assert_array_equal(part, np.sort(part))
    for digit in range(4):
        assert abs(np.sum(classes[validation] == digit) - count * np.mean(classes == digit)) <= 1
    again = hold_out(classes, count, np.random.default_rng(seed))
    assert all(np.array_equal(*pair) for pair in zip(again, (training, validation), strict=True))


@pytest.mark.parametrize("count", [-1, 3, 4])
def test_something_must_remain_for_training(count: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"hold_out: (count is {count}|cannot hold out {count} of 3 examples; at least one must remain)",
    ):
        hold_out(np.zeros(3), count, np.random.default_rng(0))


def test_one_function_has_two_addresses() -> None:
    assert tg.data.hold_out is tg.training.hold_out


def test_the_examples_run() -> None:
    assert doctest.testmod(splitting).failed == 0
