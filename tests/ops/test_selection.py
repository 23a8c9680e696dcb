"""Masks select: a gradient that is not passed on is exactly 0, whatever stands in the cotangent, at every order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Function, Shape, gradients_of_sum, seeds, shapes, some
from planted import fixed, plants, signed

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor, kernels
from tinygrad_mnist.testing import InconclusiveWarning, check_gradients

dtypes = st.sampled_from([np.float16, np.float32, np.float64])
kinds = st.sampled_from(["C", "F", "reversed", "every second", "broadcast"])
SHAPE = (3, 4)
EVEN = np.arange(12).reshape(SHAPE) % 2 == 0


def special(rng: np.random.Generator, shape: Shape, dtype: Any) -> Array:
    """Draw NaN, infinities, zeros of both signs, the smallest and the largest number, and ordinary ones."""
    limits = np.finfo(dtype)
    pool = [np.nan, np.inf, -np.inf, 0.0, -0.0, limits.smallest_subnormal, -limits.tiny, limits.max, 1.0, 1.0, -2.0]
    return rng.choice(np.array(pool, dtype), shape)


def first_of(x: Array, better: Callable[[Any, Any], bool]) -> Array:
    """Mark the first NaN of each row or, without one, the first of those than which none is better."""
    marks = np.zeros(x.shape)
    for row, mark in zip(x, marks, strict=True):
        best = 0
        for i, value in enumerate(row):
            if not np.isnan(row[best]) and (np.isnan(value) or better(value, row[best])):
                best = i
        mark[best] = 1
    return marks


def dropped(x: Any) -> Any:
    return tg.dropout(x, 0.5, np.random.default_rng(0))


def placed(g: Array) -> Array:
    out = np.zeros(SHAPE)
    out[EVEN] = g
    return out


CASES: dict[str, tuple[Function, int, Callable[..., list[Array]]]] = {  # op, inputs, gradients for a finite cotangent
    "relu": (tg.relu, 1, lambda g, x: [g * ~(x <= 0)]),
    "abs": (tg.abs, 1, lambda g, x: [g * (x > 0) - g * (x < 0)]),
    "sign": (tg.sign, 1, lambda g, x: [0 * g]),
    "exponent 0": (lambda x: x**0, 1, lambda g, x: [0 * g]),
    "exponents 0": (lambda x: x ** np.zeros(SHAPE, x.dtype), 1, lambda g, x: [0 * g]),
    "base 0": (lambda y: tg.power(0, tg.where(y > 0, y, 2.0)), 1, lambda g, y: [0 * g]),
    "clip": (lambda x: tg.clip(x, -1, 1.5), 1, lambda g, x: [g * ((x >= -1) & (x <= 1.5))]),
    "clip between Tensors": (
        tg.clip,
        3,
        lambda g, x, low, high: [
            g * ((x >= low) & (x <= high)),
            g * ((x < low) & (low <= high)),
            g * (np.maximum(x, low) > high),
        ],
    ),
    "maximum": (tg.maximum, 2, lambda g, x, y: [g * ~(x < y), g * ~(x >= y)]),
    "minimum": (tg.minimum, 2, lambda g, x, y: [g * ~(x > y), g * ~(x <= y)]),
    "where": (lambda x, y: tg.where(EVEN, x, y), 2, lambda g, x, y: [g * EVEN, g * ~EVEN]),
    "where numbers": (lambda x, y: tg.where(EVEN - 2.5 * EVEN, x, y), 2, lambda g, x, y: [g * EVEN, g * ~EVEN]),
    "max": (lambda x: x.max(1), 1, lambda g, x: [g[:, None] * first_of(x, lambda a, b: a > b)]),
    "min": (lambda x: x.min(1, True), 1, lambda g, x: [g * first_of(x, lambda a, b: a < b)]),
    "max of all": (tg.max, 1, lambda g, x: [(g * first_of(x.reshape(1, -1), lambda a, b: a > b)).reshape(SHAPE)]),
    "dropout": (dropped, 1, lambda g, x: [g * dropped(np.ones(SHAPE)).data]),
    "getitem": (lambda x: x[EVEN], 1, lambda g, x: [placed(g)]),
    "pad": (lambda x: tg.pad(x, 1), 1, lambda g, x: [g[1:-1, 1:-1]]),
}


def matrices(gradients: Callable[..., list[Array]], shape: Shape, values: list[Array]) -> list[Array]:
    """Return, for each input, the matrix of the map from cotangents of that shape to gradients."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    columns = [gradients(unit, *values) for unit in units]
    return [np.stack([column.ravel() for column in found], -1) for found in zip(*columns, strict=True)]


def applied(matrix: Array, g: Array, shape: Shape) -> Array:
    """Multiply, but leave out what has the factor 0, so that 0 times infinity is not formed."""
    out = np.zeros(len(matrix), g.dtype)
    for i, j in np.argwhere(matrix):
        out[i] += g.ravel()[j] * g.dtype.type(matrix[i, j])
    return out.reshape(shape)


def check(actual: Tensor, matrix: Array, g: Array) -> None:
    expected = applied(matrix, g, actual.shape)
    np.testing.assert_array_equal(actual.data, expected, strict=True)
    unselected = ~matrix.any(axis=1).reshape(actual.shape)
    assert not np.signbit(actual.data[unselected]).any()  # exactly +0


@pytest.mark.parametrize("name", CASES)
@some
@given(dtypes, seeds)
def test_what_is_not_passed_on_is_exactly_0_at_every_order(name: str, dtype: Any, seed: int) -> None:
    op, count, gradients = CASES[name]
    rng = np.random.default_rng(seed)
    leaves = [Tensor(special(rng, SHAPE, dtype), requires_grad=True) for _ in range(count)]
    with np.errstate(all="ignore"):
        out = op(*leaves)
        g = Tensor(special(rng, out.shape, dtype), requires_grad=True)
        first = tg.grad(out, leaves, create_graph=True, gradient=g)
        for found, matrix in zip(first, matrices(gradients, out.shape, [x.data for x in leaves]), strict=True):
            check(found, matrix, g.data)
            h = Tensor(special(rng, SHAPE, dtype), requires_grad=True)
            second, *others = tg.grad(found, [g, *leaves], create_graph=True, gradient=h)
            check(second, matrix.T, h.data)
            assert not any(other.data.tobytes().strip(b"\0") for other in others)
            k = special(rng, out.shape, dtype)
            check(tg.grad(second, [h], gradient=k)[0], matrix, k)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_dropped_element_is_0_whatever_it_was(dtype: Any) -> None:
    kept = dropped(np.ones(SHAPE)).data != 0
    for value in (np.nan, np.inf, -np.inf):
        out = dropped(np.full(SHAPE, value, dtype)).data
        np.testing.assert_array_equal(out, np.where(kept, dtype(value), dtype(0)), strict=True)


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (lambda x: tg.sqrt(tg.relu(x)), [[-1, 4]], [[0, 0.25]]),
        (lambda x: tg.sqrt(tg.clip(x, 0, 9)), [[-1, 4]], [[0, 0.25]]),
        (lambda x: tg.sqrt(tg.maximum(x, 0)), [[-1, 4]], [[0, 0.25]]),
        (lambda x: 1 / tg.minimum(x, 0), [[1, -2]], [[0, -0.25]]),
        (lambda x: tg.sqrt(tg.where(x > 0, x, 0.0)), [[-1, 4]], [[0, 0.25]]),
        (lambda x: tg.sqrt(tg.abs(x)), [[0, 4]], [[0, 0.25]]),
        (lambda x: tg.sqrt(tg.sign(x) + x**0), [[-1, 4]], [[0, 0]]),
        (lambda x: tg.log(tg.max(x, 0)) + tg.log(tg.min(x)), [[[0.5], [2]]], [[[2], [0.5]]]),
        (lambda x: tg.sqrt(dropped(x)), [np.ones(4)], [np.sqrt(dropped(np.ones(4)).data) / 2]),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_steep_functions_of_what_is_masked(function: Function, values: list[Any], expected: list[Any]) -> None:
    for found, wanted in zip(gradients_of_sum(function, *values), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mixed_derivatives_of_a_power_at_exponent_0_are_kept() -> None:
    """d2/dxdy of x ** y is 1/x there, though the derivative by x is 0."""
    x, y = Tensor([0.5, 2.0], requires_grad=True), Tensor([0.0, 0.0], requires_grad=True)
    (by_x,) = tg.grad(x**y, [x], create_graph=True, gradient=[1.0, 1.0])
    mixed, again = tg.grad(by_x, [y, x], gradient=[1.0, 1.0])
    assert by_x.data.tolist() == again.data.tolist() == [0.0, 0.0] and mixed.data.tolist() == [2.0, 0.5]


# The kernel -----------------------------------------------------------------------------------------------------------
def laid_out(x: Array, kind: str) -> Array:
    if kind == "every second":
        return np.repeat(x, 2, -1)[..., ::2] if x.ndim else x
    if kind == "broadcast":
        return np.broadcast_to(x[:1], x.shape) if x.ndim else x
    return x[(slice(None, None, -1),) * x.ndim] if kind == "reversed" else np.array(x, order=kind)


@given(shapes, st.sampled_from("f2 f4 f8 >f4 >f8 g".split()), kinds, kinds, hnp.array_shapes(), seeds)
def test_the_kernel_selects_the_bits(
    shape: Shape, dtype: Any, g_kind: str, mask_kind: str, more: Shape, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    g, mask = laid_out(special(rng, shape, dtype), g_kind), laid_out(rng.random(shape) < 0.5, mask_kind)
    for choice in (mask, True, False, mask * 0.5, np.broadcast_to(mask, more[:1] + shape)):
        out = np.asarray(kernels.select(g, choice))
        expected = np.where(choice, g, np.zeros((), g.dtype))
        assert out.shape == expected.shape and out.dtype.type is g.dtype.type  # NumPy's scalars have no byte order
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


# PyTorch --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["relu", "maximum", "minimum", "clamp", "clamp between", "max", "min"])
@some
@given(st.sampled_from([np.float32, np.float64]), seeds)
def test_gradients_go_where_those_of_pytorch_go(name: str, dtype: Any, seed: int) -> None:
    """Also at NaN and infinities; but not at ties, which PyTorch shares out."""
    torch = pytest.importorskip("torch")  # for comparison only: no dependency of the project
    ours, theirs, count = {
        "relu": (tg.relu, torch.relu, 1),
        "maximum": (tg.maximum, torch.maximum, 2),
        "minimum": (tg.minimum, torch.minimum, 2),
        "clamp": (lambda x: tg.clip(x, -1, 1.5), lambda x: torch.clamp(x, -1, 1.5), 1),
        "clamp between": (tg.clip, torch.clamp, 3),
        "max": (lambda x: x.max(1), lambda x: x.max(1).values, 1),
        "min": (lambda x: x.min(1), lambda x: x.min(1).values, 1),
    }[name]
    rng = np.random.default_rng(seed)
    values = [special(rng, SHAPE, dtype) for _ in range(count)]
    if name in ("maximum", "minimum"):
        values[1] = np.where(values[0] == values[1], dtype(0.5), values[1])
    if name == "clamp between":
        values[1:] = np.full(SHAPE, -1, dtype), np.full(SHAPE, 1.5, dtype)
    leaves = [Tensor(x, requires_grad=True) for x in values]
    copies = [torch.tensor(x, requires_grad=True) for x in values]
    out, other = ours(*leaves), theirs(*copies)
    g = special(rng, out.shape, dtype)
    np.testing.assert_array_equal(out.data, other.detach().numpy())
    other.backward(torch.tensor(g))
    for found, copy in zip(tg.grad(out, leaves, gradient=g), copies, strict=True):
        np.testing.assert_array_equal(found.data, copy.grad.numpy(), strict=True)


# The gradient check ---------------------------------------------------------------------------------------------------
STEEP: dict[str, tuple[Function, list[Any]]] = {
    "relu": (lambda x: tg.sqrt(tg.relu(x)).sum(), [[-1.0, 4.0]]),
    "clip": (lambda x: tg.clip(x, 0, 3) ** 0.5, [[-1.0, 2.0, 4.0]]),
    "maximum": (lambda x, y: tg.sqrt(tg.maximum(x * y, 0.0)), [[-1.0, 4.0], [2.0, 3.0]]),
    "where": (lambda x: tg.sqrt(tg.where(x > 0, x, 0.0)), [[-1.0, 4.0]]),
    "exponent 0": (lambda x: tg.sqrt(x**0 - 1).sum() + (x * x).sum(), [[0.5, 4.0]]),
    "dropout": (lambda x: tg.sqrt(dropped(x)), [[1.0, 2.0, 3.0, 4.0]]),
}


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_check_does_not_call_a_steep_function_of_what_is_masked_wrong(name: str, dtype: Any) -> None:
    fn, inputs = STEEP[name]
    arrays = [np.array(x, dtype) for x in inputs]
    assert check_gradients(fn, *arrays).verdict == "pass"
    with pytest.warns(InconclusiveWarning, match="order 2: by the cotangent not compared"):
        report = check_gradients(fn, *arrays, order=2)
    assert report.compared > check_gradients(fn, *arrays).compared and len(report.notes) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_second_derivative_of_a_steep_function_is_found() -> None:
    op = tg.primitive(lambda x: x**3)
    op.defvjp(lambda g, out, x: g * Tensor(3 * x.data**2))
    with pytest.raises(tg.testing.GradientMismatch):
        check_gradients(lambda x: tg.sqrt(tg.relu(op(x))), [-1.0, 4.0], order=2, inconclusive="ignore")


# Planted errors -------------------------------------------------------------------------------------------------------
steep = tg.primitive(np.sqrt)  # its slope at 0 is infinite, without a warning
steep.defvjp(lambda g, out, x: g * tg.where(x == 0, np.inf, 0.5 / tg.where(x == 0, 1.0, out)))


def multiplied(g: Tensor, mask: Any) -> Tensor:
    with np.errstate(invalid="ignore"):
        return g * mask


plants("relu: its mask multiplies", tg.relu, signed((4,)), kind="choice", within=lambda op, x: steep(op(x)))(
    lambda right, g, out, x: multiplied(g, x > 0)
)
plants(
    "maximum: its mask multiplies",
    lambda x: tg.maximum(x, 0.0),
    signed((4,)),
    kind="choice",
    within=lambda op, x: steep(op(x)),
)(lambda right, g, out, x: multiplied(g, x > 0))
plants(
    "where: its mask multiplies",
    lambda x: tg.where(EVEN[0], x, 0.0),
    fixed([1.0, 2.0, 3.0, 4.0]),
    kind="choice",
    within=lambda op, x: steep(op(x)),
)(lambda right, g, out, x: multiplied(g, EVEN[0]))
plants("dropout: its mask multiplies", dropped, fixed(np.ones(6)), kind="choice", within=lambda op, x: steep(op(x)))(
    lambda right, g, out, x: multiplied(g, dropped(np.ones(6)))
)
