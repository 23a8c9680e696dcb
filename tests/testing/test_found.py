"""The test that the manual shows, with its default strategies, finds what is wrong for unusual inputs only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import GradientMismatch, arrays, axes, broadcastable_shapes, check_gradients

search = settings(
    max_examples=1000,
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
Wrong = Callable[[Any, Any], Any]  # of the values of both factors, where the gradient by the first one is wrong


def position(x: Any) -> Any:
    return np.arange(x.size).reshape(x.shape)


WRONG: dict[str, Wrong] = {
    "at 0": lambda x, y: x == 0,
    "at negative zero": lambda x, y: (x == 0) & np.signbit(x),
    "at whole numbers": lambda x, y: np.array_equal(x, np.round(x)) and x.size > 2 and x.any(),
    "at whole exponents": lambda x, y: y == np.round(y),
    "beyond 10": lambda x, y: np.abs(x) > 10,
    "below 1e-5": lambda x, y: (x != 0) & (np.abs(x) < 1e-5),
    "with 4 axes": lambda x, y: x.ndim == 4,
    "from the 1000th entry on": lambda x, y: position(x) >= 1000,
    "with a few hundred entries": lambda x, y: x.size > 200,
    "in a vector's tail": lambda x, y: (position(x) >= x.size // 8 * 8) & (x.size > 8),
    "in Fortran order": lambda x, y: x.flags.f_contiguous and not x.flags.c_contiguous,
    "with one row that is broadcast": lambda x, y: x.ndim > 1 and x.shape[0] == 1 < y.shape[0] if y.ndim > 1 else False,
}
LONG = ["from the 1000th entry on", "with a few hundred entries"]  # the others are checked where that is quick


@settings(max_examples=max(settings().max_examples // 2, 8))
@given(st.data(), broadcastable_shapes(2), st.sampled_from([1, 1, 1, 2]))
def test_the_manuals_lines_raise_no_alarm_and_are_never_inconclusive_for_a_smooth_function(
    data: Any, shapes: Any, order: int
) -> None:
    x, y = (data.draw(arrays(shape)) for shape in shapes)
    assert check_gradients(lambda x, y: tg.tanh(x) * y, x, y, order=order).verdict == "pass"


def product(wrong: Wrong) -> tg.Primitive:
    def first(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tg.sum_to(g * y * (1 + 0.01 * np.asarray(wrong(x.data, y.data))), x.shape)

    op = tg.primitive(lambda x, y: x * y)
    op.defvjp(first, lambda g, out, x, y: tg.sum_to(g * x, y.shape))
    return op


def test_the_manuals_lines_find_errors_that_depend_on_what_is_drawn() -> None:
    found: dict[str, int] = {}  # error: the number of the example that shows it
    drawn_axes: set[Any] = set()
    numbers = itertools.count(1)
    inputs = broadcastable_shapes(2).flatmap(lambda shapes: st.tuples(*map(arrays, shapes), axes(4)))

    def complete(drawn: Any) -> bool:
        x, y, axis = drawn
        drawn_axes.add(axis)
        number = next(numbers)
        for name, wrong in WRONG.items():
            quick = x.size + y.size < 30 or name in LONG
            if name not in found and quick and np.any(wrong(x, y)):  # elsewhere nothing is wrong
                try:
                    check_gradients(product(wrong), x, y)
                except GradientMismatch:
                    found[name] = number
        return found.keys() == WRONG.keys() and {-1, -2, -3, -4} <= drawn_axes

    try:
        find(inputs, complete, settings=search)
    except NoSuchExample:
        pytest.fail(f"not found: {WRONG.keys() - found.keys()}; found: {found}; axes: {drawn_axes}")
    assert max(found.values()) <= 300, f"numbers of examples: {found}"  # three times Hypothesis' default
