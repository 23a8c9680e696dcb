"""`check_gradients` and `adjoint_check`.

Verdicts, precision, diagnosis, bad input. Planted errors are in test_planted.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.record import mode
from tinygrad_mnist.testing import (
    GradientMismatch,
    InconclusiveWarning,
    adjoint_check,
    arrays,
    broadcastable_shapes,
    check_gradients,
)
from tinygrad_mnist.testing.differences import derivatives_at_zero, rounding_noise

seeds = st.integers(0, 2**32 - 1)
powers = st.integers(-30, 30).map(lambda n: 10.0**n)


def wrong(forward: Callable[..., Any], *rules: Any) -> tg.Primitive:
    op = tg.primitive(lambda *xs: forward(*xs))
    op.defvjp(lambda position, *args: rules[position](*args))
    return op


# Verdicts -------------------------------------------------------------------------------------------------------------
def test_a_pass_is_silent(capsys: Any) -> None:
    report = check_gradients(lambda x, y: tg.tanh(x) * y, np.ones((2, 1)), np.arange(3.0), order=2)
    assert (report.verdict, report.notes) == ("pass", ()) and report.compared > 7 * 5
    assert capsys.readouterr() == ("", "")


KINKS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "relu": (tg.relu, [[-1.0, 0.0, 2.0]]),
    "abs": (tg.abs, [0.0]),
    "clip": (lambda x: tg.clip(x, -1, 1), [[-1.0, 1.0, 0.3]]),
    "maximum": (tg.maximum, [[1.0, 2.0], [1.0, 3.0]]),
    "max": (tg.max, [[[2.0, 2.0], [1.0, 2.0]]]),
    "min over an axis": (lambda x: x.min(axis=0), [[[2.0, 2.0], [2.0, 3.0]]]),
    "max_pool2d": (lambda x: tg.max_pool2d(x, 2), [np.ones((1, 1, 4, 4))]),
    "overlapping windows": (lambda x: tg.max_pool2d(x, 2, 1).sum(), [np.zeros((1, 1, 3, 3))]),
    "windows of either sign": (
        lambda x: (tg.max_pool2d(x, 2, 1) * [[1.0, -2.0], [3.0, -4.0]]).sum(),
        [np.zeros((1, 1, 3, 3))],
    ),
    "leaky": (lambda x: tg.where(x > 0, x, 0.1 * x), [[0.0, 1.0]]),
    "many inputs at once": (lambda x: tg.relu(x).sum(), [np.zeros(600)]),
}


@pytest.mark.parametrize("name", KINKS)
def test_at_a_kink_the_verdict_is_inconclusive(name: str) -> None:
    fn, inputs = KINKS[name]
    with pytest.warns(InconclusiveWarning, match="(?s)at a kink: .*one-sided derivatives .*inconclusive='ignore'"):
        report = check_gradients(fn, *inputs)
    assert report.verdict == "inconclusive" and "one-sided derivatives" in report.notes[0]
    assert check_gradients(fn, *inputs, inconclusive="ignore") == report


def test_at_a_kink_a_derivative_outside_is_a_mistake() -> None:
    op = wrong(lambda x: np.maximum(x, 0), lambda g, out, x: g * (x > 0) + g * 5 * (x == 0))
    with pytest.raises(
        GradientMismatch, match=r"output\[1\] by input 0\[1\] is wrong\n.*5\n.*one-sided derivatives 0 and 1"
    ):
        check_gradients(op, [-1.0, 0.0, 2.0])


def test_a_gradient_given_to_all_that_tie_is_a_mistake() -> None:
    op = wrong(np.max, lambda g, out, x: g * (x == out))
    check_gradients(op, [1.0, 2.0, 3.0])
    with pytest.raises(GradientMismatch, match=r"2 entries that tie, together is wrong\n  derived:            2\n"):
        check_gradients(op, [1.0, 3.0, 3.0])


def test_near_a_kink_the_rest_is_still_checked() -> None:
    op = wrong(lambda x: np.where(x > 0, x * x, 0), lambda g, out, x: g * x * (x > 0))
    with pytest.raises(GradientMismatch, match="near the given inputs"):
        check_gradients(lambda x: tg.relu(x) + op(x), np.zeros(2))


@given(st.floats(-12, -1), st.sampled_from([-1.0, 1.0]), seeds)
def test_however_near_a_kink_is_it_does_no_harm(exponent: float, side: float, seed: int) -> None:
    x = np.array([side * 10.0**exponent, -0.7, 1.3])
    assert check_gradients(tg.relu, x, rng=seed, inconclusive="ignore").verdict == "pass"
    for fn in (
        lambda x: tg.abs(x) * tg.tanh(x + 0.3),
        lambda x: tg.max(x * np.array([1.0, -1.0, 0.1])),
        lambda x: tg.relu(x) ** 2,
    ):
        check_gradients(fn, x, rng=seed, inconclusive="ignore")
    with pytest.raises(GradientMismatch):
        check_gradients(
            wrong(lambda x: np.maximum(x, 0), lambda g, out, x: 1.1 * g * (x > 0)), x, rng=seed, inconclusive="ignore"
        )


def test_a_jump_and_an_undefined_side_are_inconclusive() -> None:
    for fn, x in ((lambda x: tg.where(x > 2, 1.0, 0.0) + x, 2.0), (lambda x: x**1.5, 0.0)):
        assert check_gradients(fn, x, inconclusive="ignore").verdict == "inconclusive"


def test_a_function_may_refuse_inputs_elsewhere() -> None:
    def positive(x: Tensor) -> Tensor:
        if (x.data <= 0).any() or (x.data > 1).any():
            raise ValueError("x must be from 0 to 1")
        return tg.log(x)

    assert check_gradients(positive, [0.3, 0.99999], order=2).verdict == "pass"
    assert (
        check_gradients(positive, [0.3, 1.0], inconclusive="ignore").verdict == "inconclusive"
    )  # on the edge, one side is missing
    assert check_gradients(lambda x: tg.relu(positive(x)), [0.3, 1.0], inconclusive="ignore").verdict == "inconclusive"


# Precision ------------------------------------------------------------------------------------------------------------
@given(powers, powers, st.sampled_from([1.0, 1 + 1e-6, 2.0, -1.0, 0.0]), seeds)
def test_tiny_and_huge_are_judged_alike(scale: float, size: float, factor: float, seed: int) -> None:
    assume(1e-150 < scale * size**2 < 1e150)
    x = np.random.default_rng(seed).uniform(0.5, 2, 3) * size
    op = wrong(lambda x: scale * x * x, lambda g, out, x: g * x * (2 * scale * factor))
    if factor == 1:
        assert check_gradients(op, x, rng=seed).verdict == "pass"
    else:
        with pytest.raises(GradientMismatch):
            check_gradients(op, x, rng=seed)


@given(st.floats(0, 8), st.floats(0.1, 3), seeds)
def test_digits_lost_to_a_shift_are_no_mistake(exponent: float, spread: float, seed: int) -> None:
    x, shift = np.random.default_rng(seed).normal(size=(2, 3)) * spread, 10.0**exponent
    assert check_gradients(lambda x: tg.softmax(x + shift, axis=1), x, rng=seed).verdict == "pass"
    assert check_gradients(lambda x: (x * 1.1 + shift - x) - shift - x * 0.1, x, rng=seed).verdict == "pass"


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (lambda x: tg.log_softmax(x, axis=1), [[0.3], [-2.0]]),  # constantly zero
        (lambda x: tg.cross_entropy(x, [0]), [[-10.2, -50.8]]),  # zero to rounding, with a gradient of 1e-18
        (lambda x: tg.softmax(x).sum(), [0.1, 0.5, -1.0]),
        (tg.tanh, [25.0, -19.0, 8.0]),
        (tg.sigmoid, [-700.0, -30.0, 40.0]),
        (lambda x: tg.sin(100 * x), [0.3, 1e-3]),
        (lambda x: tg.exp(-(x**2) * 1e4), [0.01, 0.2]),
        (lambda x: 1 / x, [1e-8, -3.0, 1e8]),
        (tg.log, [1e-12, 1.0, 1e12]),
        (tg.sqrt, [1e-150, 1e150]),
        (lambda x: x**20, [1e-9, 0.5, 30.0]),
        (lambda x: x * 0, [1.0, 2.0]),
        (lambda x: x * x, [0.0, 0.0]),
        (lambda x: x / tg.abs(x), [1e-5, -1e-10]),
        (lambda x: 2 * x, [1e160]),
        (tg.softmax, [0.0, -736.0, -742.0]),
        (tg.softmax, [1e7, 1e7 + 0.3, 1e7 - 1]),
        (lambda x: tg.softmax(x).sum(), np.float32([0.3, 1.2, 0.1])),
        (lambda x: tg.astype(tg.tanh(x), np.float16), np.linspace(-1, 1, 40)),
        (lambda x: x[0:0] * 2.0, np.ones(2, np.float32)),
        (lambda x: x[:0], [1.0, 2.0]),
        (lambda x: tg.sum(x, axis=0), np.zeros((0, 3))),
        (lambda x: tg.sqrt((x * x).sum()), [1e-9, 1e-9]),
    ],
)
def test_awkward_functions_raise_no_alarm(fn: Any, x: Any) -> None:
    assert check_gradients(fn, x, order=2).verdict == "pass"


def test_large_functions_are_checked_in_random_directions() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(40, 30)), rng.normal(size=(30, 20))
    report = check_gradients(lambda x, w: tg.tanh(x @ w), x, w)
    assert report.verdict == "pass" and report.compared < 500
    good = np.ones((40, 30))
    good[17, 4] = 1 + 1e-3
    op = wrong(np.sin, lambda g, out, x: g * tg.cos(x) * good)
    with pytest.raises(GradientMismatch, match="in random direction|a random combination of the outputs"):
        check_gradients(op, x)
    small = wrong(lambda x: x * 10.0 ** -np.arange(100), lambda g, out, x: g * 10.0 ** -np.minimum(np.arange(100), 6))
    with pytest.raises(GradientMismatch):  # small outputs count as much as large ones
        check_gradients(small, rng.uniform(1, 2, 100))


def test_the_loss_of_the_21_layers_is_checked_and_a_mistake_in_it_found(monkeypatch: Any) -> None:
    from models.deep_convnet import DeepConvNet

    model, images = DeepConvNet(rng=np.random.default_rng(0)), np.random.default_rng(1).random((2, 28, 28))
    parameters = tg.nn.parameters(model)

    def loss(*values: Tensor) -> Tensor:
        for name, value in zip(parameters, values, strict=True):
            _, number, kind = name.split(".")
            setattr(model.layers[int(number)], kind, value)
        return model.loss(images, [3, 8], rng=np.random.default_rng(2))

    values = [p.data.astype(np.float64) for p in parameters.values()]
    assert check_gradients(loss, *values).verdict == "pass"
    monkeypatch.setattr(tg.relu, "rules", [lambda g, out, x: g * (out > 0) * 1.001])
    with pytest.raises(GradientMismatch):
        check_gradients(loss, *values)


# What goes in and out -------------------------------------------------------------------------------------------------
def test_tuples_integers_and_wrt() -> None:
    def fn(x: Tensor, index: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x[index] * y, tg.argmax(x), y.sum(), tg.exp(x)

    x, index, y = np.array([0.1, 0.5, 0.2]), np.array([0, 0, 2]), np.array([1.0, 2.0, 3.0])
    assert check_gradients(fn, x, index, y, order=2).compared > check_gradients(fn, x, index, y, wrt=[-1]).compared
    assert check_gradients(lambda x, y: [x.detach() * y], x, y, wrt=[1]).verdict == "pass"
    with pytest.raises(
        GradientMismatch, match=r"output by input 0\[\d\] is wrong(?s:.*)no gradient arrives(?s:.*)wrt=\[0\]"
    ):
        check_gradients(lambda x, y: (x.detach() * y + 0 * x).sum(), x, y, wrt=[0])
    with pytest.raises(GradientMismatch, match=r"output 1\[(\d)\] by input 0\[\1\]"):
        check_gradients(lambda x: (x, x.detach() * 2), x)


def test_a_function_may_differentiate_something_itself() -> None:
    def penalty(x: Tensor) -> Tensor:
        (slope,) = tg.grad((x**3).sum(), [x], create_graph=True)
        return (slope**2).sum()

    assert check_gradients(penalty, [0.3, -1.2], order=2).verdict == "pass"
    with tg.no_grad():
        assert check_gradients(penalty, [0.3, -1.2]).verdict == "pass"


# At 0, tanh is so straight that its differences do not show its rounding.
@given(arrays((2, 3), np.float32, away_from=[0.0]), seeds)
def test_single_precision(x: Any, seed: int) -> None:
    assume(np.abs(x).min() < 2)  # where it is flat, rounding may explain a gradient that is wrong by a hundredth
    assert check_gradients(lambda x: tg.softmax(x) * x, x, rng=seed).verdict == "pass"
    inside = check_gradients(
        lambda x: tg.astype(tg.tanh(tg.astype(x, np.float32)), np.float64), x, rng=seed, inconclusive="ignore"
    )
    assert inside.verdict == "pass"
    for off in (1.01, 0.9):
        low = wrong(np.tanh, lambda g, out, x, off=off: g * (1 - out * out) * (off if x.dtype == np.float32 else 1))
        with pytest.raises(GradientMismatch, match="in float32 differs from that in float64"):
            check_gradients(low, x, rng=seed)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_overflows_in_single_precision() -> None:
    assert check_gradients(lambda x: 1 / x, np.float32([1e-25, 2])).verdict == "pass"  # the gradient does
    assert check_gradients(tg.multiply, np.float16([300, 1]), np.float16([0.1, 2]), order=2).verdict == "pass"
    with pytest.warns(InconclusiveWarning, match="an output is not finite"):
        assert check_gradients(tg.exp, np.float32([100, 1])).verdict == "inconclusive"
    for off in (np.nan, np.inf):
        low = wrong(np.tanh, lambda g, out, x, off=off: g * (1 - out * out) + (off if x.dtype == np.float32 else 0))
        with pytest.raises(GradientMismatch, match="in float32 differs from that in float64"):
            check_gradients(low, np.float32([0.5, 1]))


# The whole range of floats --------------------------------------------------------------------------------------------
EXTREMES = [0.0, -0.0, 5e-324, 2.2e-308, 1e-160, 1.8e154, 1e292, np.finfo(np.float64).max, -np.finfo(np.float64).max]
anything = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EXTREMES)
UNARY: list[Callable[..., Any]] = [
    *(tg.negative, tg.relu, tg.abs, tg.tanh, tg.sigmoid, tg.exp, tg.sin, tg.sum, tg.max, tg.softmax, tg.logsumexp),
    *(lambda x: x * x, lambda x: 1 / x, lambda x: tg.clip(x, -1, 1), lambda x: tg.log(tg.abs(x)), tg.mean),
]
LONG = np.random.default_rng(5).normal(size=4099)
BINARY: list[Callable[..., Any]] = [tg.add, tg.multiply, tg.divide, tg.maximum, lambda x, y: tg.sum(x * y)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, about overflow
@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])  # the message shows numbers; shrinking takes minutes
@given(st.data(), st.sampled_from(UNARY + BINARY), st.sampled_from([1, 1, 1, 2]), seeds)
def test_the_whole_range_of_floats_raises_no_alarm(data: Any, fn: Any, order: int, seed: int) -> None:
    size = data.draw(st.integers(1, 3))
    xs = [np.array(data.draw(st.lists(anything, min_size=size, max_size=size))) for _ in range(1 + (fn in BINARY))]
    try:
        report = check_gradients(fn, *xs, order=order, rng=seed, inconclusive="ignore")
        assert report.verdict == "inconclusive" or not report.notes
    except ValueError as error:
        assert "of fn is" in str(error)  # an output is not finite


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (tg.relu, [2.2e-308]),
        (tg.max, [1e-160, 1e-160]),
        (lambda x: x * x, 5e-324),
        (tg.softmax, [1e12, 1e12]),  # as steep as a jump
        (tg.logsumexp, [3170186710487899.0, 3170186710487899.0]),
        (tg.log_softmax, np.full(3, -1e16)),
        pytest.param(tg.softmax, [1e154, 2.2e-308, 1e154], marks=pytest.mark.slow),
        pytest.param(tg.softmax, np.full((2, 2), 3e38), marks=pytest.mark.slow),
        (lambda x: tg.clip(x, -1, 1), [1.7e308, 0.0, 2.0]),
        (tg.log, [1e-310]),
        (lambda x: x**1.5e284, [1.0]),
        (lambda x: 1 / x, np.float32([3e38, 1])),
        (tg.multiply, [1.7e308, 1.0]),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, about overflow
def test_points_far_from_1(fn: Any, x: Any) -> None:
    check_gradients(fn, *([x, [2.0**-1, 1.0]] if fn is tg.multiply else [x]), order=2, inconclusive="ignore")


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (LONG[:1120], -0.0),
        (np.where(LONG[:1299] > 0, LONG[:1299], 0.0), LONG[1299:2598]),
        (LONG[:1100] * np.logspace(-8, 1.3, 1100), LONG[1100:2200] * np.logspace(1.3, -8, 1100)),
    ],
)
def test_smooth_functions_of_many_numbers_pass(x: Any, y: Any) -> None:
    assert check_gradients(lambda x, y: tg.tanh(x) * y, x, y, order=2).verdict == "pass"


@pytest.mark.parametrize("size", [1e-300, 1e-120, 1.0, 1e120, 1e300])
def test_mistakes_are_found_at_both_ends_of_the_range(size: float) -> None:
    op = wrong(lambda x: np.maximum(x, 0), lambda g, out, x: 1.1 * g * (x > 0))
    with pytest.raises(GradientMismatch):
        check_gradients(op, [size, -size])


def test_what_overflows_is_inconclusive_and_what_is_infinite_is_a_mistake() -> None:
    with pytest.warns(InconclusiveWarning, match="inconclusive: not compared: the derived gradient of input 0 is -inf"):
        assert check_gradients(lambda x: 1 / x, [1e-200, 1.0]).verdict == "inconclusive"
    with pytest.raises(GradientMismatch, match="is inf"):
        check_gradients(wrong(np.sin, lambda g, out, x: g / (x - x)), [0.5, 0.7])


# Variants -------------------------------------------------------------------------------------------------------------
X, M = np.random.default_rng(3).normal(size=4), np.random.default_rng(4).normal(size=(3, 4))


def sine(change: Callable[..., Any]) -> tg.Primitive:
    """Make a sine whose right gradient is multiplied by ``change(g, x)``."""
    return wrong(np.sin, lambda g, out, x: g * tg.cos(x) * change(g, x))


def product(change: Callable[..., Any]) -> tg.Primitive:
    return wrong(np.multiply, lambda g, out, x, y: g * y * change(x, y), lambda g, out, x, y: g * x)


def contiguous(x: Tensor) -> bool:
    return x.data.flags.c_contiguous


HIDDEN: dict[str, tuple[Any, list[Any], str]] = {
    "clipped at 2": (wrong(np.sin, lambda g, out, x: tg.clip(g, -2, 2) * tg.cos(x)), [X], r"2\*\*20 times as large"),
    "lost below 1e-3": (sine(lambda g, x: np.abs(g.data) >= 1e-3), [X], r"2\*\*-20 times as large"),
    "stride 0": (sine(lambda g, x: 2 if 0 in g.data.strides else 1), [X], "stride 0"),
    "recorded": (sine(lambda g, x: 1.1 if mode.recording else 1), [X], "with create_graph=True"),
    "gaps": (sine(lambda g, x: 1 if contiguous(x) else 2), [X], "not C-contiguous"),
    "Fortran": (sine(lambda g, x: 2 if x.data.flags.fnc else 1), [M], "not C-contiguous"),
    "gaps, of two": (product(lambda x, y: 1 if contiguous(y) else 2), [M, M + 1], "not C-contiguous"),
    "the other constant": (product(lambda x, y: 1 if y.requires_grad else 2), [X, X + 1], "no other input requires"),
    "one Tensor": (product(lambda x, y: 2 if x is y else 1), [X, X + 1], "the same Tensor"),
    "float32": (sine(lambda g, x: 1.001 if x.dtype == np.float32 else 1), [M.astype(np.float32)], "in float32 differs"),
    "entry 1000": (sine(lambda g, x: 1 + (np.arange(x.size) >= 1000)), [LONG[:1003]], "is wrong"),
    "the last entry": (sine(lambda g, x: 1 + (np.arange(x.size) > 4097)), [LONG], "is wrong"),
    "at 0": (wrong(np.square, lambda g, out, x: g * (2 * x + (x == 0))), [[0.0, 1.0]], r"input 0\[0\] is wrong"),
    "at -0": (wrong(np.square, lambda g, out, x: g * (2 * x + (x == 0))), [-0.0], "is wrong"),
    "g.data": (wrong(np.sin, lambda g, out, x: Tensor(g.data) * tg.cos(x)), [X], "does not depend on the cotangent"),
    "x.data": (wrong(np.sin, lambda g, out, x: g * np.cos(x.data)), [X], "does not depend on input 0, though"),
    "out.data": (wrong(np.tanh, lambda g, out, x: g * (1 - out.data**2)), [np.zeros(3)], "depend on input 0, though"),
    "y.data": (
        wrong(np.matmul, lambda g, out, x, y: g @ y.data.T, lambda g, out, x, y: x.T @ g),
        [M, M.T],
        "does not depend on input 0 or input 1, though",
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_mistakes_that_show_in_other_circumstances_only(name: str) -> None:
    op, inputs, pattern = HIDDEN[name]
    with pytest.raises(GradientMismatch, match=pattern):
        check_gradients(op, *inputs)


@pytest.mark.parametrize("name", ["clipped at 2", "lost below 1e-3", "stride 0", "recorded"])
def test_such_mistakes_of_second_derivatives(name: str) -> None:
    op, (x,), pattern = HIDDEN[name]
    cosine = wrong(np.cos, lambda g, out, x: -g * tg.sin(x))
    first = tg.primitive(lambda g, x: g * np.cos(x))
    first.defvjp(lambda h, out, g, x: h * cosine(x), lambda h, out, g, x: vjp(op, h, g, x))
    outer = wrong(np.sin, lambda g, out, x: first(g, x))
    assert check_gradients(outer, x).verdict == "pass"
    with pytest.raises(GradientMismatch, match=pattern):
        check_gradients(outer, x, order=2)


def vjp(op: tg.Primitive, h: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of ``g * cos(x)`` by x, with the rule of a wrong sine applied to the cotangent `h`."""
    shifted = x + np.pi / 2  # the derivative of cos is cos(x + pi/2)
    return op.rule(0)(h, None, shifted) * g


def test_kinks_and_rounding_hide_nothing_and_raise_no_alarm_in_other_circumstances() -> None:
    for fn, *xs in (
        (tg.maximum, [1.0, 2.0], [1.0, 3.0]),
        (lambda x, y: tg.relu(x @ y), [[1.0, -1.0], [2.0, -1.0]], [[1.0, 2.0], [1.0, 2.0]]),
        (lambda x, y: tg.divide(x - y, x + y), [1.0, 2.0], [2.0, 3.0]),
        (lambda x: tg.relu(x) * tg.sign(x), [[0.0, 1.0], [-2.0, 1e-9]]),
        (lambda x, y: x.detach() * 0 + y * 2, [1.0], [3.0]),
    ):
        check_gradients(fn, *xs, inconclusive="ignore")


# Diagnosis ------------------------------------------------------------------------------------------------------------
TWICE = wrong(np.multiply, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x * 2)


def caught(*args: Any, **keywords: Any) -> GradientMismatch:
    with pytest.raises(GradientMismatch) as found:
        check_gradients(*args, **keywords)
    return found.value


@given(st.integers(1, 4), st.sampled_from([2.0, -1.0, 0.0, 0.5, 1.25]), seeds)
def test_the_message_is_a_diagnosis(size: int, factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.5, 2, (2, size))
    op = wrong(np.multiply, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x * factor)
    text = str(caught(op, x, y, rng=seed))
    place = int(re.match(r"output\[(\d)\] by input 1\[\1\] is wrong", text)[1])
    derived, numerical, bar, ratio = (
        float(n) for n in re.search(r"derived: +(\S+)\n.*differences: (\S+) ± (\S+)\n.*ratio: +([^ :]+)", text).groups()
    )
    np.testing.assert_allclose([derived, numerical], [factor * x[place], x[place]], rtol=1e-8)
    assert abs(ratio - factor) < 1e-6 and 0 < bar < 1e-6
    assert f"in all {2 * size if size > 1 else 1} wrong ones" in text or size == 1
    assert {-1.0: "the sign is wrong", 0.0: "no gradient arrives"}.get(factor, "ratio") in text
    assert "by input 1" in text.split("wrong:")[1] and "by input 0" not in text.split("wrong:")[1]
    assert "float64" in text and f"({size},)" in text and len(text.splitlines()) <= 8


def test_the_message_reproduces_itself() -> None:
    rng = np.random.default_rng(5)
    error = caught(TWICE, rng.normal(size=(2, 3)), np.float32([[0.1, 1, 3]] * 2), order=2, rng=rng, wrt=[1])
    line = re.search("again: +(.*)", str(error))[1]
    again = pytest.raises(GradientMismatch, eval, line, {"tg": tg, "np": np, "fn": TWICE})
    assert (
        str(again.value) == str(error) and f"rng={error.seed}" in line and error.order == 1 and len(error.inputs) == 2
    )
    large = caught(TWICE, np.ones(300), np.ones(300))
    assert "*error.inputs" in str(large) and len(str(large)) < 1500
    np.testing.assert_array_equal(large.inputs[1], np.ones(300))


def test_a_failing_test_is_short(tmp_path: Any) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import numpy as np\nimport tinygrad_mnist as tg\n\nhalf = tg.primitive(lambda x: x / 2)\nhalf.defvjp(lambda "
        "g, out, x: g * 2)\n\n"
        "def test_half():\n    tg.testing.check_gradients(half, np.ones(3))\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tg.__path__[0] + "/..")
    assert done.returncode == 1 and len(done.stdout.splitlines()) < 30
    assert "ratio:              4 in all 6 wrong ones" in done.stdout and "comparison.py" not in done.stdout


def test_a_mistake_at_one_point_alone_is_named() -> None:
    by_division = wrong(lambda x: np.array(np.prod(x)), lambda g, out, x: g * out / tg.where(x == 0, 1.0, x))
    assert "hint" not in str(caught(TWICE, [1.0], [2.0]))
    assert "next to this point it is right" in str(caught(by_division, [0.0, 2.0, 3.0]))
    assert "next to this point it is right" in str(caught(lambda x: tg.relu(x) - tg.relu(-x), [0.0]))


# Bad input ------------------------------------------------------------------------------------------------------------
SHARED = np.random.default_rng(0)
ERRORS: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "no function": (TypeError, "must be a function of Tensors, not ndarray", lambda: check_gradients(np.ones(3))),
    "no inputs": (TypeError, "at least one floating-point input.*inputs: none", lambda: check_gradients(tg.exp)),
    "integers": (TypeError, r"integers cannot be.*astype.*int64 \(3,\)", lambda: check_gradients(tg.exp, [1, 2, 3])),
    "text": (TypeError, "cannot compute with str", lambda: check_gradients(tg.exp, "1")),
    "wrt": (TypeError, r"wrt: \[1\]", lambda: check_gradients(tg.multiply, [1.0], [2], wrt=[1])),
    "wrt out of range": (TypeError, r"wrt: \[3\]", lambda: check_gradients(tg.exp, [1.0], wrt=[3])),
    "array returned": (
        TypeError,
        "returned ndarray; it must return a Tensor",
        lambda: check_gradients(lambda x: x.data, [1.0]),
    ),
    "nothing returned": (TypeError, "returned NoneType", lambda: check_gradients(lambda x: None, [1.0])),
    "constant": (ValueError, "depends on none of the inputs", lambda: check_gradients(lambda x: Tensor([1.0]), [1.0])),
    "cut off": (ValueError, "detach", lambda: check_gradients(lambda x: x.detach() * 2, [1.0])),
    "integers returned": (ValueError, "depends on none", lambda: check_gradients(tg.argmax, [1.0, 2.0])),
    "nan in": (ValueError, r"input 0 is nan at \[1\]", lambda: check_gradients(tg.exp, [1.0, np.nan])),
    "inf in": (ValueError, "input 1 is inf", lambda: check_gradients(tg.add, [1.0], np.inf)),
    "nan out": (ValueError, r"output of fn is nan at \[0, 1\]", lambda: check_gradients(tg.log, [[1.0, -1.0]])),
    "nan gradient": (
        GradientMismatch,
        r"gradient of input 0 is inf at \[0\]",
        lambda: check_gradients(tg.sqrt, [0.0, 1.0]),
    ),
    "order": (ValueError, "order must be 1, 2 or 3", lambda: check_gradients(tg.exp, [1.0], order=4)),
    "order 0": (ValueError, "order is 0; it must be an integer", lambda: check_gradients(tg.exp, [1.0], order=0)),
    "order of another type": (
        TypeError,
        "order is True; it must be an integer",
        lambda: check_gradients(tg.exp, [1.0], order=True),
    ),
    "seed": (ValueError, "rng is -1; it must be an integer", lambda: check_gradients(tg.exp, [1.0], rng=-1)),
    "seed of another type": (TypeError, "rng is 'a'", lambda: check_gradients(tg.exp, [1.0], rng="a")),
    "wrt of another type": (TypeError, "wrt is 0.0", lambda: check_gradients(tg.exp, [1.0], wrt=0.0)),
    "inconclusive": (ValueError, "'warn' or 'ignore'", lambda: check_gradients(tg.exp, [1.0], inconclusive="no")),
    "random": (
        ValueError,
        "fix the generator",
        lambda: check_gradients(lambda x: tg.dropout(x, 0.5, SHARED), np.ones(50)),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_has_its_own_message(name: str) -> None:
    error, pattern, call = ERRORS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, for the cases that are about nan and inf
        with pytest.raises(error, match=pattern) as found:
            call()
    assert "check_gradients" in str(found.value)


# Differences ----------------------------------------------------------------------------------------------------------
@given(st.lists(st.floats(-3, 3), min_size=7, max_size=7), st.floats(-14, -4), seeds)
def test_error_bars_hold_for_noisy_polynomials(coefficients: list[float], noise: float, seed: int) -> None:
    size = 10.0**noise

    def f(t: float) -> Any:
        shaken = np.random.default_rng([seed, abs(hash(t))]).uniform(-size, size) if t else 0.0
        return np.array([np.polyval(coefficients, t) + shaken])

    slope, seen = np.array([coefficients[-2]]), np.maximum(rounding_noise(f, 1e-9), size)
    found = derivatives_at_zero(f, f(0.0), seen, slope, np.zeros(1), (2.0**-10, 2.0**-10, 0.25), 9)
    assert (
        abs(found.value - slope) <= found.error <= 1e5 * size**0.75 + 2e-5 * abs(slope)
    )  # optimal for third-order errors


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-1, 1))
def test_one_sided_derivatives_at_a_kink(left: float, right: float, curvature: float) -> None:
    assume(abs(left - right) > 1e-3)

    def f(t: float) -> Any:
        return np.array([(right if t > 0 else left) * t + curvature * t * t])

    found = derivatives_at_zero(
        f, f(0.0), np.array([1e-16]), np.array([left]), np.zeros(1), (2.0**-10, 2.0**-10, 0.25), 9
    )
    assert not found.resolved[0] and abs(found.left[0] - left) < 1e-6 and abs(found.right[0] - right) < 1e-6
    assert not any(found.contradict(np.array([derived]))[0] for derived in (left, right, (left + right) / 2))
    assert all(
        found.contradict(np.array([derived]))[0] for derived in (max(left, right) + 1e-3, min(left, right) - 1e-3)
    )


# Adjoints -------------------------------------------------------------------------------------------------------------
@given(st.data(), broadcastable_shapes(2, min_side=1), st.sampled_from([np.float32, np.float64]), seeds)
def test_adjoint_pairs(data: Any, shapes: Any, dtype: Any, seed: int) -> None:
    small, large = shapes[0], np.broadcast_shapes(*shapes)
    adjoint_check(lambda x: tg.broadcast_to(x, large), lambda y: tg.sum_to(y, small), small, dtype=dtype, rng=seed)
    w = np.random.default_rng(seed).normal(size=(3, 2, 2, 3)).astype(dtype)
    x = Tensor(np.zeros((2, 2, 5, 6), dtype), requires_grad=True)

    def backward(y: Any) -> Tensor:
        return tg.grad(tg.conv2d(x, w, stride=2, padding=1), [x], gradient=y)[0]

    adjoint_check(lambda x: tg.conv2d(x, w, stride=2, padding=1), backward, (2, 2, 5, 6), dtype=dtype, rng=seed)


@pytest.mark.parametrize(
    ("linear_op", "adjoint", "pattern"),
    [
        (lambda x: np.cumsum(x), lambda y: np.cumsum(y), r"<A x, y> = .*<x, A\* y> = "),
        (lambda x: 2 * x, lambda y: y * (2 + 1e-9), "ratio 1"),
        (lambda x: x + 1, lambda y: y, "not linear"),
        (lambda x: x[:2], lambda y: y, r"returned shape \(2,\)"),
    ],
)
def test_wrong_adjoints(linear_op: Any, adjoint: Any, pattern: str) -> None:
    with pytest.raises(GradientMismatch, match=pattern):
        adjoint_check(linear_op, adjoint, 4)
    adjoint_check(np.cumsum, lambda y: np.cumsum(y[::-1])[::-1], 4)


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (TypeError, "shape.0. is 'a'; it must be an integer", lambda: adjoint_check(np.cumsum, np.cumsum, "a")),
        (
            TypeError,
            "dtype is .*; it must be floating-point",
            lambda: adjoint_check(np.cumsum, np.cumsum, 4, dtype=np.int64),
        ),
        (ValueError, "is nan at", lambda: adjoint_check(lambda x: x * np.nan, lambda y: y, 4)),
    ],
)
def test_bad_input_to_the_adjoint_check(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=f"adjoint_check: .*{pattern}"):
        call()
