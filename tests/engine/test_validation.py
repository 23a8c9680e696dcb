"""A saved state fits itself; every change of a copy is listed with its path, and nothing else is."""

from __future__ import annotations

import copy
import doctest
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist import validation
from tinygrad_mnist.validation import parameter_mismatches, state_mismatches

finite = st.floats(allow_nan=False, allow_infinity=False)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.int64]), hnp.array_shapes(max_dims=3, max_side=3), elements=st.just(1)
)
leaves = st.none() | st.booleans() | st.integers() | finite | st.text(max_size=3) | arrays
keys = st.sampled_from("abcdefgh")
states = st.dictionaries(
    keys,
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)),
    max_size=4,
)


def places(state: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield container, key and path of everything that is no container itself."""
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        here = f"{path}/{key}".lstrip("/")
        yield from places(value, here) if isinstance(value, (dict, list)) else [(state, key, here)]


def other(value: Any) -> Any:
    """Return something that does not fit where `value` is."""
    if isinstance(value, np.ndarray):
        return value[None]
    return {bool: 1, int: 0.5, float: math.nan}.get(type(value), 3)


@given(states)
def test_a_state_fits_itself_and_its_copy(state: dict[str, Any]) -> None:
    assert state_mismatches(state, copy.deepcopy(state), "the model", finite=True) == []


@given(states, st.data())
def test_every_change_is_listed_and_nothing_else(state: dict[str, Any], data: st.DataObject) -> None:
    saved = copy.deepcopy(state)
    found = list(places(saved))
    changed = data.draw(st.lists(st.sampled_from(found), unique_by=lambda place: place[2])) if found else []
    expected = []
    for container, key, path in changed:
        how = data.draw(st.sampled_from(["other", "missing", "unknown"])) if isinstance(container, dict) else "other"
        if how == "unknown":
            container[f"{key}-new"] = container[key]
            expected.append(f"{path}-new is not in the model")
        elif how == "missing":
            del container[key]
            expected.append(f"{path} is missing")
        else:
            container[key] = other(container[key])
            expected.append(f"{path} {'has shape' if isinstance(container[key], np.ndarray) else 'is'} ")
    listed = state_mismatches(state, saved, "the model")
    assert len(listed) == len(expected)
    for line in expected:
        assert any(difference.startswith(line) for difference in listed), (line, listed)


@pytest.mark.parametrize(
    ("live", "saved", "fits"),
    [
        (1.0, 2, True),
        (1.0, np.float32(2), True),
        (1.0, True, False),
        (1.0, "1", False),
        (1.0, math.inf, False),
        (1.0, 10**400, False),
        (1.0, 1j, False),
        (1.0, np.ones(1), False),
        (1, 5, True),
        (1, np.int64(5), True),
        (1, 10**400, True),
        (1, 5.0, False),
        (1, False, False),
        (1, None, False),
        (True, True, True),
        (True, False, False),
        (None, None, True),
        (None, np.zeros(2), False),
        ("a", "a", True),
        ("a", "b", False),
        ("a", 1, False),
        ([1, 2], (3, 4), True),
        ([1, 2], [3], False),
        ([1, 2], np.array([3, 4]), False),
        ({}, [], False),
        (np.zeros(2), [0.0, 0.0], False),
        (np.zeros(2), np.zeros(2, np.float32), False),
        (np.zeros(2), np.zeros(2, int), False),
        (np.zeros(()), 0.0, False),
    ],
)
def test_values_fit_by_their_kind(live: Any, saved: Any, fits: bool) -> None:
    assert (state_mismatches({"x": live}, {"x": saved}, "the model") == []) is fits


def test_what_is_checked_beyond_the_kind_is_asked_for() -> None:
    live: dict[str, Any] = {"n": 1, "h": np.zeros(2), "inner": {"lr": 0.1}}
    saved: dict[str, Any] = {"n": -2, "h": np.array([np.nan, 0], np.float32), "inner": {"lr": -1}}
    assert state_mismatches(live, saved, "it") == ["h is float32, it's is float64"]
    assert state_mismatches(live, saved, "it", any_float=True) == []
    assert state_mismatches(live, saved, "it", unchecked=["h"]) == []
    assert state_mismatches(live, {**saved, "h": np.zeros(2, int)}, "it", any_float=True) == [
        "h is int64, it's is float64"
    ]
    asked = {"equal": ["n"], "nonnegative": ["inner/lr"], "finite": True, "any_float": True}
    assert state_mismatches(live, saved, "it", **asked) == [
        "n is -2, it's is 1",
        "h has values that are NaN or infinite",
        "inner/lr is -1, not a finite number of at least 0",
    ]
    assert state_mismatches(live, [1], "it") == ["the state is [1], not a dict"]
    assert "\n" not in "".join(state_mismatches(live, dict.fromkeys(live, np.zeros((20, 20))), "it"))


def test_parameters_are_compared_by_shape_and_dtype() -> None:
    wanted = {"a": ((2,), np.dtype("f4")), "b": ((3,), np.dtype("f4")), "c": ((), np.dtype("f8"))}
    found = {"b": ((3, 1), np.dtype("f4")), "c": ((), np.dtype("f4")), "d": ((1,), np.dtype("f4"))}
    assert parameter_mismatches(wanted, wanted) == []
    assert parameter_mismatches(wanted, found) == [
        "a is missing",
        "d is not in the model",
        "b has shape (3, 1), the model's is (3,)",
        "c is float32, the model's is float64",
    ]


def test_the_examples_run() -> None:
    assert doctest.testmod(validation).failed == 0


def test_tensors_are_arrays() -> None:
    live, saved = {"w": tg.Tensor([1.0])}, {"w": tg.Tensor([np.nan])}
    assert state_mismatches(live, live, "the model", finite=True) == []
    assert state_mismatches(live, saved, "the model", finite=True) == ["w has values that are NaN or infinite"]
