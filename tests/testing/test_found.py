"""The five lines of the manual, with default settings, find what is wrong for unusual inputs only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import GradientMismatch, arrays, axes, broadcastable_shapes, check_gradients

EXAMPLES = 300  # three times Hypothesis' default: what is long is drawn rarely
five_lines = settings(
    max_examples=EXAMPLES,
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


@settings(max_examples=max(settings().max_examples // 2, 8))
@given(st.data(), broadcastable_shapes(2), st.sampled_from([1, 1, 1, 2]))
def test_five_lines_raise_no_alarm_and_are_never_inconclusive_for_a_smooth_function(
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


def test_five_lines_find_errors_that_depend_on_what_is_drawn() -> None:
    table: dict[str, int] = {}  # error: the number of the example that shows it
    numbers = itertools.count(1)

    @five_lines
    @given(st.data(), broadcastable_shapes(2))
    def run(data: Any, shapes: Any) -> None:
        x, y = (data.draw(arrays(shape)) for shape in shapes)
        number = next(numbers)
        for name, wrong in WRONG.items():
            if name not in table and np.any(wrong(x, y)):  # elsewhere nothing is wrong
                try:
                    check_gradients(product(wrong), x, y)
                except GradientMismatch:
                    table[name] = number

    run()
    assert table.keys() == WRONG.keys(), f"not found: {WRONG.keys() - table.keys()}; found: {table}"


def test_every_negative_axis_is_drawn() -> None:
    found: set[Any] = set()

    @five_lines
    @given(st.data(), broadcastable_shapes(1))
    def run(data: Any, shapes: Any) -> None:
        found.add(data.draw(axes(len(shapes[0]))))

    run()
    assert {-1, -2, -3, -4} <= found
