"""Elementwise ops: values as in NumPy, right derivatives, over drawn shapes and precisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, Function, Shape, agree, dtypes, gradients_of_sum, orders, seeds, some
from planted import LATEST_CALL, between, distinct, fixed, normal, of_size, plants, signed, single

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.record import mode
from tinygrad_mnist.testing import (
    arrays,
    broadcastable_shapes,
    check_gradients,
)

# what NumPy lacks
NUMPY = SimpleNamespace(**vars(np), relu=lambda x: np.maximum(x, 0), sigmoid=lambda x: 1 / (1 + np.exp(-x)))


def each(low: float, high: float, *functions: str, away_from: Sequence[float] = ()) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(functions, {"low": low, "high": high, "away_from": away_from})


ELEMENTWISE = {  # functions, and which arguments they take
    **each(
        -2,
        2,
        "negative(x)",
        "exp(x)",
        "sin(x)",
        "cos(x)",
        "tanh(x)",
        "sigmoid(x)",
        "x ** 3",
        "x ** 2",
        "x ** 1",
        "x ** 0",
        "2 ** x",
    ),
    **each(-2, 2, "x * x + x", "add(x, y)", "subtract(x, y)", "multiply(x, y)"),
    **each(0.5, 3, "log(x)", "sqrt(x)", "x ** -1", "x ** 0.5", "divide(x, y)", "power(x, y)"),
    **each(1.5, 3, "1 / (y + x * y - 2) + (2 - y) / 3"),
    **each(-1, 1, "abs(x)", "relu(x)", "x.clip(0)", "x.clip(None, 0)", away_from=[0]),
    **each(-1, 1, "maximum(x, y)", "minimum(x, y)", "where(x > y, x * y, y)"),
    **each(-1, 1, "clip(x, -0.5, 0.25)", "clip(x, y, 0.25)", away_from=[-0.5, 0.25]),
}


@pytest.mark.parametrize("expression", ELEMENTWISE)
@some
@given(st.data(), orders, seeds)
def test_elementwise_functions_broadcast(expression: str, data: Any, order: int, seed: int) -> None:
    drawn = data.draw(broadcastable_shapes(2 if "y" in expression else 1, max_side=2))
    ends = np.cumsum([math.prod(shape) for shape in drawn])
    entries = np.split(
        data.draw(arrays(int(ends[-1]), distinct=True, **ELEMENTWISE[expression])), ends[:-1]
    )  # no two equal, x and y
    values = [part.reshape(shape).astype(data.draw(dtypes)) for part, shape in zip(entries, drawn, strict=True)]
    agree(
        lambda lib, x, y=None: eval(expression, {**vars(lib), "x": x, "y": y}),
        *values,
        order=order,
        seed=seed,
        numpy=NUMPY,
    )


@given(st.data(), broadcastable_shapes(3, max_dims=2), seeds)
def test_where_broadcasts_all_three(data: Any, drawn: tuple[Shape, ...], seed: int) -> None:
    condition = np.random.default_rng(seed).random(drawn[0]) < 0.5
    x, y = (data.draw(arrays(shape, dtypes)) for shape in drawn[1:])
    agree(lambda lib, condition, x, y: lib.where(condition, x, y), condition, x, y, seed=seed)
    agree(lambda lib, x: lib.where(condition, x, 1.0), x, seed=seed)


@pytest.mark.parametrize("function", [lambda x: x > 0.5, lambda x: x == x, lambda x: tg.logical_and(x, x)])
def test_steps_have_no_gradient(function: Function) -> None:
    x = Tensor([0.25, 1.0], requires_grad=True)
    assert not function(x).requires_grad
    assert gradients_of_sum(lambda x: function(x) * x, [0.25, 1.0]) == [(function(x).data * np.ones(2)).tolist()]


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (tg.relu, [[-1, 0, 1]], [[0, 0, 1]]),
        (tg.abs, [[-1, 0, 1]], [[-1, 0, 1]]),
        (tg.sign, [[-0.5, 0, 2]], [[0, 0, 0]]),
        (tg.maximum, [[1, 2, 3], [1, 3, 2]], [[1, 0, 1], [0, 1, 0]]),
        (tg.minimum, [[1, 2, 3], [1, 3, 2]], [[1, 1, 0], [0, 0, 1]]),
        (lambda x: tg.maximum(x, x), [[1, 2]], [[1, 1]]),
        (lambda x: x.clip(low=0, high=2), [[-1, 0, 1, 2, 3]], [[0, 1, 1, 1, 0]]),
        (lambda x: x**0, [[0, 1]], [[0, 0]]),
        (lambda x: x**1, [[0, 1]], [[1, 1]]),
        (lambda x: x**2, [[0, 1]], [[0, 2]]),
        (tg.power, [[0, 0, 0, 2], [0, 1, 2, 0]], [[0, 1, 0, 0], [0, 0, 0, np.log(2)]]),
        (tg.sigmoid, [[-1e4, 0, 1e4]], [[0, 0.25, 0]]),
        (tg.tanh, [[-1e4, 0, 1e4]], [[0, 1, 0]]),
    ],
)
def test_conventions_at_kinks_ties_and_extremes(function: Function, values: list[Any], expected: list[Any]) -> None:
    assert gradients_of_sum(function, *values) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(0,), (7,), (9000,), (3000, 4), (4, 3000), (1, 16, 30, 30), (20, 1, 21, 22)])
def test_relu_of_small_and_large_arrays_in_any_memory_order(shape: Shape, dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=shape).round(1).astype(dtype)
    if x.size and x.dtype.kind == "f":
        x.flat[:: x.size // 3] = [np.nan, -np.inf, np.inf, -0.0][: len(x.flat[:: x.size // 3])]
    for order in (tuple(range(x.ndim)), tuple(range(x.ndim))[::-1], tuple(np.roll(range(x.ndim), 1))):
        y = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        out = tg.relu(y)
        assert out.dtype == dtype
        np.testing.assert_array_equal(out.data, np.where(np.isnan(x), x, np.where(x > 0, x, np.zeros_like(x))))
    wide = np.broadcast_to(x[:1], (20 + 9000 // x[:1].size, *x.shape[1:])) if x.size else x
    np.testing.assert_array_equal(tg.relu(wide).data, np.maximum(wide, np.zeros_like(wide)))


X = np.ones((2, 3))


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, r"add\(float64 \(2, 3\), float64 \(4,\)\).*broadcast", lambda: Tensor(X) + np.ones(4)),
        (ValueError, r"subtract\(float64 \(4,\), float64 \(2, 3\)\)", lambda: np.ones(4) - Tensor(X)),
        (ValueError, r"where\(bool \(2,\), float64 \(2, 3\), 0.0\)", lambda: tg.where(np.ones(2, bool), X, 0.0)),
        (TypeError, "exp: cannot compute with NoneType", lambda: tg.exp(None)),
        (TypeError, "add: cannot compute with str", lambda: Tensor(X) + "1"),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


def test_a_rule_of_the_wrong_shape_names_its_op() -> None:
    op = tg.primitive(np.add)
    op.defvjp(lambda g, out, x, y: g, lambda g, out, x, y: g)  # the sum over what was broadcast is missing
    with pytest.raises(
        ValueError, match=r"add: the rule of argument 1 returned shape \(3, 2\) for an argument of shape \(2,\)"
    ):
        check_gradients(op, np.ones((3, 2)), np.ones(2))


# Planted errors -------------------------------------------------------------------------------------------------------
ROWS, ONES = np.array([0.2, 0.5, 1.5]), np.ones((3, 3))


def quotient(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
    """``g * out / x``, and 0 where x is 0."""
    return tg.where(x == 0, 0.0, g * out / tg.where(x == 0, 1.0, x))


def product(x: Tensor) -> Tensor:
    return x[0] * x[1] * x[2]


def as_number(compare: Function) -> Function:
    return lambda x, y: tg.astype(compare(x, y), np.float64)


def overwrite(t: Tensor, values: Array) -> None:
    t.data[...] = values


def used_twice(op: Function, x: Tensor) -> Tensor:
    double = x * 2.0
    return double * double + op(double)


class Workspace:
    """Results in a buffer that the next call writes to."""

    def __init__(self) -> None:
        self.buffer = Tensor(np.zeros(3))

    def __call__(self, right: Tensor, *rest: Tensor) -> Tensor:
        overwrite(self.buffer, right.data)
        return self.buffer.detach()


plants("tanh: a thousandth too large", tg.tanh, normal((3,)))(lambda right, *rest: right * 1.001)
plants("sqrt: without 1/2", tg.sqrt, between(0.5, 2, (4,)))(lambda right, g, out, x: g / out)
plants("power: without the exponent", lambda x: x**3, normal((3,)))(lambda right, g, out, x: g * x**2)


@plants("power: without the logarithm", tg.power, between(0.5, 2, (3,), (3,)), argument=1)
def _(right, g, out, x, y):
    return g * out


@plants("divide: by y instead of its square", tg.divide, between(0.5, 2, (3,), (3,)), argument=1)
def _(right, g, out, x, y):
    return -g * x / y


plants("log: with an epsilon", tg.log, between(0.5, 2, (3,)))(lambda right, g, out, x: g / (x + 1e-5))
plants("astype: halved", lambda x: tg.astype(x, np.float64), normal((3,)))(lambda right, *rest: right / 2)
plants("negative: lost", tg.negative, normal((3,)), kind="sign")(lambda right, g, *rest: g)
plants("cos: lost", tg.cos, normal((3,)), kind="sign")(lambda right, *rest: -right)


@plants("subtract: lost for the second", tg.subtract, normal((3,), (3,)), kind="sign", argument=1)
def _(right, *rest):
    return -right


@plants("divide: lost for the second", tg.divide, between(0.5, 2, (2, 2), (2,)), kind="sign", argument=1)
def _(right, *rest):
    return -right


@plants("add: summed over the wrong axis", tg.add, normal((3, 3), (3,)), kind="broadcasting", argument=1)
def _(right, g, *rest):
    return tg.sum(g, 1)


@plants("add: mean for sum", tg.add, normal((3, 2), (2,)), kind="broadcasting", argument=1)
def _(right, *rest):
    return right / 3


@plants("multiply: not summed", tg.multiply, normal((3, 2), (2,)), kind="broadcasting", argument=1)
def _(right, g, out, x, y):
    return (g * x)[0]


@plants("minimum: only the last row", tg.minimum, fixed([[2, 1], [3, 4]], [1.5, 2]), kind="broadcasting", argument=1)
def _(right, g, out, x, y):
    return (g * (x > y))[-1]


@plants(
    "where: only the first row",
    lambda x, y: tg.where(ONES > 0, x, y),
    normal((3,), (3, 3)),
    kind="broadcasting",
    argument=0,
)
def _(right, g, *rest):
    return g[0]


plants("exp: forgotten", tg.exp, normal((3,)), kind="cotangent")(lambda right, g, out, x: out)
plants("exp: averaged", tg.exp, normal((4,)), kind="cotangent")(lambda right, g, out, x: tg.mean(g) * out)
plants("sin: squared", tg.sin, normal((3,)), kind="cotangent")(lambda right, g, *rest: right * g)
plants("cos: without its sign", tg.cos, normal((12,)), kind="cotangent")(lambda right, g, *rest: right * tg.sign(g))


@plants("add: clipped to 1", tg.add, normal((20,), (20,)), kind="cotangent", argument=0)
def _(right, g, *rest):
    return tg.clip(g, -1, 1)


plants("abs: as if all were positive", tg.abs, signed((4,)), kind="some entries")(lambda right, g, *rest: g)


@plants("relu: leaks where negative", tg.relu, signed((4,)), kind="some entries")
def _(right, g, out, x):
    return right + g * 0.01 * (x < 0)


@plants("clip: passes above", lambda x: tg.clip(x, -0.5, 0.5), fixed([-0.9, 0.1, 0.9]), kind="some entries")
def _(right, g, out, x):
    return tg.where(x > 0.5, g, right)


@plants("clip: stopped below 0", lambda x: tg.clip(x, -2, 2), signed((4,)), kind="some entries")
def _(right, g, out, x):
    return right * (x > 0)


@plants("multiply: 0 in a product of all, by division", product, fixed([2.0, 0.0, -1.5]), kind="some entries")
def _(right, g, out, x):
    return quotient(g, out, x)


@plants("power: 0 at 0, by division", lambda x: x**1, fixed([-1.0, 0.0, 2.0]), kind="some entries")
def _(right, g, out, x):
    return quotient(g, out, x)


@plants("power: not a number at 0", lambda x: x**2, fixed([-1.0, 0.0, 2.0]), kind="some entries")
def _(right, g, out, x):
    return tg.where(x == 0, np.nan, right)


plants("tanh: 0 at 0", tg.tanh, fixed([-1.0, 0.0, 2.0]), kind="some entries")(lambda right, g, out, x: right * (x != 0))


@plants("power: one entry of 400", lambda x: x**2, normal((400,)), kind="some entries")
def _(right, *rest):
    return right * (1 + 0.001 * (np.arange(400) == 137))


@plants("sigmoid: tiny ones flushed to zero", tg.sigmoid, between(-20, -16, (4,)), kind="some entries")
def _(right, *rest):
    return tg.where(tg.abs(right) < 1e-6, 0.0, right)


@plants("sigmoid: tiny ones doubled", tg.sigmoid, fixed([-14.0, 0.5, -17.0]), kind="some entries")
def _(right, g, out, x):
    return tg.where(out < 0.001, 2 * right, right)


@plants(
    "sin: tiny ones flushed to zero on the way",
    tg.sin,
    normal((3,)),
    kind="some entries",
    within=lambda op, x: op(x) * 1e-8,
)
def _(right, *rest):
    return tg.where(tg.abs(right) < 1e-6, 0.0, right)


@plants("exp: overflow guard too low", tg.exp, fixed([1.0, 12.0]), kind="some entries")
def _(right, g, out, x):
    return tg.where(x > 10, 0.0, right)


plants("maximum: to both of equals", tg.maximum, fixed([1, 2, 3], [1, 3, 2]), kind="kinks")(
    [lambda right, g, out, x, y: g * (x >= y), lambda right, g, out, x, y: g * (x <= y)]
)
plants("maximum: to none of equals", tg.maximum, fixed([1, 2, 3], [1, 3, 2]), kind="kinks")(
    [lambda right, g, out, x, y: g * (x > y), lambda right, g, out, x, y: g * (x < y)]
)
plants("relu: 2 at 0", tg.relu, fixed([-1, 0, 1]), kind="kinks")(lambda right, g, out, x: right + g * 2 * (x == 0))
plants("abs: -3 at 0", tg.abs, fixed([-1, 0, 1]), kind="kinks")(lambda right, g, out, x: right - g * 3 * (x == 0))
plants("sign: straight through", tg.sign, signed((3,)), kind="steps")(lambda right, g, *rest: g)
for step, draw in (
    (tg.greater, distinct((3,), (3,))),
    (tg.greater_equal, distinct((3,), (3,))),
    (tg.less, distinct((3,), (3,))),
    (tg.less_equal, distinct((3,), (3,))),
    (tg.logical_and, signed((3,), (3,))),
    (tg.not_equal, signed((3,), (3,))),
):
    plants(
        f"{step.__name__}: straight through",
        as_number(step),
        draw,
        kind="steps",
        argument=0,
        within=lambda op, x, y: op(x, y) * x,
    )(lambda right, g, *rest: g)


@plants(
    "equal: straight through",
    as_number(tg.equal),
    signed((3,), (3,)),
    kind="steps",
    argument=0,
    within=lambda step, x, y: (step(x, y) + 1) * x,
)
def _(right, g, *rest):
    return g


@plants("where: exchanged", lambda x, y: tg.where(ROWS > 1, x, y), normal((3,), (3,)), kind="choice")
def _(right, g, *rest):
    return g - right


@plants("where: not masked", lambda x, y: tg.where(ROWS > 1, x, y), normal((3,), (3,)), kind="choice")
def _(right, g, *rest):
    return g


plants("minimum: exchanged", tg.minimum, distinct((4,), (4,)), kind="choice")(lambda right, g, *rest: g - right)
plants("multiply: arguments exchanged", tg.multiply, normal((2,), (2,)), kind="choice")(
    [lambda right, g, out, x, y: g * x, lambda right, g, out, x, y: g * y]
)


@plants(
    "multiply: an argument used twice counts once",
    tg.multiply,
    normal((3,)),
    kind="choice",
    argument=1,
    within=lambda op, x: op(x, x),
)
def _(right, g, out, x, y):
    return right * 0 if x is y else right


plants("relu: mask of the latest call", tg.relu, signed((8,)), kind="state")(LATEST_CALL)
plants("multiply: factors of the latest call", tg.multiply, normal((3,), (3,)), kind="state")(LATEST_CALL)
plants(
    "tanh: of the latest call, used twice",
    tg.tanh,
    normal((3,), (3,)),
    kind="state",
    within=lambda op, x, y: op(x) * op(y),
)(LATEST_CALL)


@plants("tanh: its output overwritten", tg.tanh, normal((3,)), kind="state")
def _(right, g, out, x):
    overwrite(out, right.data)
    return right


@plants("sin: its input overwritten", tg.sin, normal((3,)), kind="state")
def _(right, g, out, x):
    overwrite(x, right.data)
    return right


@plants("sin: its input overwritten, wanted elsewhere", tg.sin, normal((3,)), kind="state", within=used_twice)
def _(right, g, out, x):
    overwrite(x, right.data)
    return right


@plants("relu: cotangent masked in place", tg.relu, signed((4,)), kind="state")
def _(right, g, *rest):
    overwrite(g, right.data)
    return right


@plants(
    "relu: cotangent masked in place, wanted elsewhere",
    tg.relu,
    signed((4,), (4,)),
    kind="state",
    within=lambda op, x, y: op(x * 1.0) + y,
)
def _(right, g, *rest):
    overwrite(g, right.data)
    return g


plants(
    "exp: one buffer for all results", tg.exp, normal((3,), (3,)), kind="state", within=lambda op, x, y: op(x) + op(y)
)(Workspace)
plants("sin: a millionth off", tg.sin, normal((20, 20)), kind="precision")(lambda right, *rest: right * (1 + 1e-6))


@plants("sin: in half precision", tg.sin, normal((3,)), kind="precision")
def _(right, g, out, x):
    return g * np.cos(x.data.astype(np.float16)).astype(np.float64)


@plants("astype: rounded on the way", lambda x: tg.astype(x, np.float64), normal((4,)), kind="precision")
def _(right, g, *rest):
    return tg.astype(tg.astype(g, np.float16), np.float64)


@plants("exp: wrong in float64 only", tg.exp, normal((3,)), kind="precision")
def _(right, g, out, x):
    return right + 1e-5 * g if x.dtype == np.float64 else right


@plants("tanh: in single precision", tg.tanh, normal((8,)), kind="precision")
def _(right, *rest):
    return tg.astype(tg.astype(right, np.float32), np.float64)


@plants(
    "multiply: the other factor constant", tg.multiply, normal((2,), (2,)), kind="second order", order=2, argument=0
)
def _(right, g, out, x, y):
    return g * y.detach()


@plants("power: slope constant", lambda x: x**3, between(0.5, 2, (3,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * Tensor(3 * x.data**2)


@plants("exp: output constant", tg.exp, normal((2,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * out.detach()


@plants("tanh: one of two outputs constant", tg.tanh, normal((3,)), kind="second order", order=2)
def _(right, g, out, x):
    return g * (1 - out * out.detach())


@plants("sqrt: output constant", tg.sqrt, between(0.5, 2, (3,)), kind="second order", order=2)
def _(right, g, out, x):
    return g / (2 * out.detach())


@plants(
    "divide: denominator constant", tg.divide, between(0.5, 2, (2,), (2,)), kind="second order", order=2, argument=0
)
def _(right, g, out, x, y):
    return g / y.detach()


@plants("sin: halved through the cotangent", tg.sin, normal((3,)), kind="second order", order=2)
def _(right, g, out, x):
    return (g / 2 + g.detach() / 2) * tg.cos(x)


@plants("power: curvature constant", lambda x: x**3, between(0.5, 2, (2,)), kind="third order", order=3)
def _(right, g, out, x):
    return (lambda c: g * (3 * c * c + 6 * c * (x - c)))(x.detach())


@plants("exp: curvature constant", tg.exp, normal((2,)), kind="third order", order=3)
def _(right, g, out, x):
    return g * out.detach() * (1 + x - x.detach())


@plants("sin: curvature constant", tg.sin, between(0.3, 1.2, (2,)), kind="third order", order=3)
def _(right, g, out, x):
    return (lambda c: g * (tg.cos(c) - tg.sin(c) * (x - c)))(x.detach())


# In unusual ways of use: most of these are right for a few ordinary numbers in C order, with a cotangent of about 1
@plants("add: cotangent clipped at 2", tg.add, normal((3,), (3,)), kind="use")
def _(right, g, *rest):
    return tg.clip(right, -2, 2)


@plants("negative: cotangent dropped below a thousandth", tg.negative, normal((3,)), kind="use")
def _(right, g, *rest):
    return tg.where(tg.abs(g) < 1e-3, 0.0, right)


@plants("tanh: a thousandth off in float32", tg.tanh, single(normal((4,))), kind="use")
def _(right, g, out, x):
    return right * 1.001 if x.dtype == np.float32 else right


@plants("cos: another one with create_graph", tg.cos, normal((3,)), kind="use")
def _(right, *rest):
    return right * 1.01 if mode.recording else right


@plants("power: whole exponents", tg.power, fixed([0.5, 1.5, 0.7], [2.0, 0.5, 3.0]), kind="use", argument=0)
def _(right, g, out, x, y):
    return tg.where(y.data == np.round(y.data), g * out, right)


@plants("subtract: one Tensor twice", tg.subtract, normal((3,), (3,)), kind="use", argument=1)
def _(right, g, out, x, y):
    return -right if x is y else right


@plants("sqrt: not in C order", tg.sqrt, between(0.5, 2, (2, 3)), kind="use")
def _(right, g, out, x):
    return right if x.data.flags.c_contiguous else right * 2


@plants("multiply: the other input needs no gradient", tg.multiply, normal((3,), (3,)), kind="use", argument=0)
def _(right, g, out, x, y):
    return right if y.requires_grad else right * 2


@plants("divide: the other input needs no gradient", tg.divide, between(0.5, 2, (3,), (3,)), kind="use", argument=1)
def _(right, g, out, x, y):
    return right if x.requires_grad else -right


@plants("exp: a cotangent that is broadcast", tg.exp, normal((4,)), kind="use")
def _(right, g, out, x):
    return right if g.size < 2 or 0 not in g.data.strides else right * 2


@plants("sigmoid: flat beyond 10", tg.sigmoid, fixed([0.5, 12.0, -1.0]), kind="use")
def _(right, g, out, x):
    return tg.where(tg.abs(x) > 10, 0.0, right)


@plants("sin: flat below a ten thousandth", tg.sin, fixed([1e-6, 0.5, -2.0]), kind="use")
def _(right, g, out, x):
    return tg.where((x.data != 0) & (np.abs(x.data) < 1e-4), 0.0, right)


@plants("sin: flat at 0", tg.sin, fixed([0.0, 0.5, -2.0]), kind="use")
def _(right, g, out, x):
    return right * (x.data != 0)


@plants("sin: backwards at negative zero", tg.sin, fixed([-0.0, 0.5, -2.0]), kind="use")
def _(right, g, out, x):
    return tg.where((x.data == 0) & np.signbit(x.data), -right, right)


@plants("multiply: four axes", tg.multiply, normal((2, 1, 2, 2), (2, 2)), kind="use", argument=1)
def _(right, g, *rest):
    return right * 2 if g.ndim == 4 else right


@plants("sin: from the 1000th entry on", tg.sin, normal((1100,)), kind="use")
def _(right, g, out, x):
    return right * (of_size(x) < 1000)


@plants("tanh: the tail of a vector", tg.tanh, normal((2, 13)), kind="use")
def _(right, g, out, x):
    return right * (1 + 0.1 * (of_size(x) >= max(x.size // 8 * 8, 8)))
