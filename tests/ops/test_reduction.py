"""Reductions over any axes: values as in NumPy, right derivatives, ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Function, Shape, agree, dtypes, gradients_of_sum, orders, seeds, shapes, some
from planted import distinct, fixed, normal, only_at, plants, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import (
    arrays,
)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
@given(st.data(), shapes, st.booleans(), orders, seeds)
def test_reductions_over_any_axes(name: str, data: Any, shape: Shape, keepdims: bool, order: int, seed: int) -> None:
    axis, x = (
        data.draw(tg.testing.axes(len(shape))),
        data.draw(arrays(shape, dtypes, low=-1.5, high=1.5, distinct=True)),
    )
    try:
        with np.errstate(all="raise"):
            expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    except (ValueError, FloatingPointError, RuntimeWarning):
        with pytest.raises(ValueError, match=name):
            getattr(tg, name)(x, axis=axis, keepdims=keepdims)
    else:
        agree(lambda lib, x: getattr(lib, name)(x, axis=axis, keepdims=keepdims), x, order=order, seed=seed)
        assert getattr(Tensor(x), name)(axis, keepdims).shape == expected.shape


@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_a_number_has_an_axis_as_in_numpy(name: str) -> None:
    x = Tensor(3.0, requires_grad=True)
    for axis in (0, -1):
        out = getattr(tg, name)(x, axis)
        assert out.data == getattr(np, name)(x.data, axis) == 3
        assert tg.grad(out, [x], gradient=np.array(5.0))[0].data == 5
        with pytest.raises(IndexError, match="axis 1"):
            getattr(tg, name)(x, 1)


@some
@given(arrays(hnp.array_shapes(max_dims=3, max_side=4)), st.data())
def test_argmax_gives_positions(x: Array, data: Any) -> None:
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
    assert tg.argmax(x, axis).data.tolist() == np.argmax(x, axis).tolist()


def test_argmax_has_no_gradient() -> None:
    x = Tensor([0.25, 1.0], requires_grad=True)
    assert not tg.argmax(x).requires_grad
    assert gradients_of_sum(lambda x: tg.argmax(x) * x, [0.25, 1.0]) == [[1.0, 1.0]]


def test_integers_can_be_computed_with() -> None:
    x = Tensor(np.arange(6).reshape(2, 3))
    assert (x.sum().item(), x.max(axis=0).data.tolist(), x.mean().item()) == (15, [3, 4, 5], 2.5)
    assert (x + 1).dtype == np.int64 and (x / 2).dtype == np.float64 and (x * 0.5).dtype == np.float64
    assert gradients_of_sum(lambda w: x * w, np.ones(3)) == [[3.0, 5.0, 7.0]]


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (lambda x: x.max(), [[[1, 3], [3, 2]]], [[[0, 1], [0, 0]]]),
        (lambda x: x.min(), [[[1, 3], [1, 2]]], [[[1, 0], [0, 0]]]),
        (lambda x: x.max(axis=0), [[[1, 3], [1, 3]]], [[[1, 1], [0, 0]]]),
        (lambda x: x.max(axis=-1), [[[1, 1], [3, 3]]], [[[1, 0], [1, 0]]]),
        (
            lambda x: x.max(axis=(2, 0)),
            [[[[1, 5]], [[5, 1]]]],
            [[[[0, 1]], [[0, 0]]]],
        ),
    ],
)
def test_ties_send_the_gradient_to_the_first_in_row_major_order(
    function: Function, values: list[Any], expected: list[Any]
) -> None:
    assert gradients_of_sum(function, *values) == expected


@some
@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=3), elements=st.integers(0, 2).map(float)), st.data()
)
def test_ties_send_the_gradient_to_the_first(x: Array, data: Any) -> None:
    axis, ramp = data.draw(tg.testing.axes(x.ndim)), np.arange(x.size).reshape(x.shape) / 100
    for op, first_wins in ((tg.max, x - ramp), (tg.min, x + ramp)):
        assert gradients_of_sum(lambda x, op=op: op(x, axis=axis), x) == gradients_of_sum(
            lambda x, op=op: op(x, axis=axis), first_wins
        )


X = np.ones((2, 3))


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (IndexError, r"sum\(float64 \(2, 3\)\).*axis 2", lambda: tg.sum(X, 2)),
        (IndexError, r"mean.*\(2, 3\).*axis 2", lambda: tg.mean(X, 2)),
        (ValueError, r"mean\(float64 \(0, 3\)\): axis 0 is empty", lambda: tg.mean(X[:0], 0)),
        (IndexError, r"max\(float64 \(2, 3\)\).*axis -3", lambda: tg.max(X, -3)),
        (ValueError, r"max\(float64 \(0, 3\)\)", lambda: tg.max(X[:0], 0)),
        (IndexError, r"argmax.*\(2, 3\).*axis 2", lambda: tg.argmax(X, 2)),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------
plants("sum: divided by the count", lambda x: tg.sum(x, 0), normal((3, 2)))(lambda right, g, out, x: right / 3)
plants("mean: not divided", lambda x: tg.mean(x, 1), normal((2, 3)))(lambda right, g, out, x: right * x.shape[1])


@plants("mean: divided by one of two lengths", lambda x: tg.mean(x, (0, 2)), normal((2, 3, 4)))
def _(right, g, out, x):
    return right * x.shape[0]


@plants("sum: spread along the wrong axis", lambda x: tg.sum(x, 0), normal((3, 3)), kind="axes")
def _(right, *rest):
    return right.T


@plants("mean: over all axes", lambda x: tg.mean(x, 1), normal((3, 3)), kind="axes")
def _(right, g, out, x):
    return tg.broadcast_to(tg.mean(g) / 3, x.shape)


@plants("max: only one for all rows", lambda x: tg.max(x, 1), distinct((3, 3)), kind="axes")
def _(right, g, out, x):
    return only_at(right, tg.argmax(out).item())


@plants("max: to the smallest", lambda x: tg.max(x, 0), distinct((4, 2)), kind="indices")
def _(right, g, out, x):
    return vjp(lambda x: tg.min(x, 0), 0, g, x)


plants("min: to the largest", tg.min, distinct((4,)), kind="indices")(lambda right, g, out, x: vjp(tg.max, 0, g, x))


@plants("sum: forgotten", lambda x: tg.sum(x, 1), normal((2, 3)), kind="cotangent")
def _(right, g, out, x):
    return tg.broadcast_to(1.0, x.shape)


@plants("sum: beyond the first 64", tg.sum, normal((100,)), kind="some entries")
def _(right, *rest):
    return right * (np.arange(100) < 64)


@plants("mean: the last of an odd number", tg.mean, normal((7,)), kind="some entries")
def _(right, *rest):
    return right * (np.arange(7) < 6)


@plants("max: to all ties", lambda x: tg.max(x, 1), fixed([[1, 3, 3], [2, 2, 2]]), kind="kinks")
def _(right, g, out, x):
    return tg.expand_dims(g, 1) * (x == tg.expand_dims(out, 1))


plants("min: to all ties", tg.min, fixed([2, 1, 1]), kind="kinks")(lambda right, g, out, x: g * (x == out))


@plants(
    "argmax: straight through",
    lambda x: tg.astype(tg.argmax(x), np.float64),
    distinct((4,)),
    kind="steps",
    within=lambda op, x: op(x) * x,
)
def _(right, g, out, x):
    return g * tg.softmax(x)


@plants("mean: cotangent constant", tg.mean, normal((3,)), kind="second order", order=2, within=lambda op, x: op(x * x))
def _(right, *rest):
    return right.detach()


@plants("sum: axis -2 taken for 2", lambda x: tg.sum(x, -2), normal((2, 2, 2)), kind="use")
def _(right, g, out, x):
    return tg.broadcast_to(tg.expand_dims(g, 2), x.shape)


@plants("mean: four axes", lambda x: tg.mean(x, (1, 3)), normal((1, 2, 2, 3)), kind="use")
def _(right, g, out, x):
    return right * x.shape[3] / x.shape[2]


@plants("sum: a cotangent that is broadcast", lambda x: tg.sum(x, 1), normal((3, 2)), kind="use")
def _(right, g, out, x):
    return right if 0 not in g.data.strides else right / 3
