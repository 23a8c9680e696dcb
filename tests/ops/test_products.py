"""Matrix products of vectors, matrices and stacks: values as in NumPy, right derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from op_checks import Array, Shape, agree, dtypes, many, seeds, shapes
from planted import normal, plants, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import (
    matmul_operands,
)


@many
@given(matmul_operands(dtypes), seeds)
def test_matmul_of_vectors_matrices_and_stacks(operands: tuple[Array, Array], seed: int) -> None:
    x, y = operands
    assume(np.matmul(x, y).size <= 40)
    agree(lambda lib, x, y: lib.matmul(x, y), x, y, order=2, seed=seed)
    agree(lambda lib, x: x @ y, x, seed=seed)
    agree(lambda lib, y: x @ y, y, seed=seed)
    if x.ndim > 1 < y.ndim:
        agree(lambda lib, x, y: y.swapaxes(-1, -2) @ x.swapaxes(-1, -2), x, y, seed=seed)


@given(shapes, shapes)
def test_matmul_refuses_what_numpy_refuses(a: Shape, b: Shape) -> None:
    try:
        expected = np.matmul(np.ones(a), np.ones(b)).shape
    except ValueError:
        with pytest.raises(ValueError, match="matmul.*shape") as caught:
            tg.matmul(np.ones(a), np.ones(b))
        assert str(a) in str(caught.value) and str(b) in str(caught.value)
    else:
        assert tg.matmul(np.ones(a), np.ones(b)).shape == expected


X = np.ones((2, 3))


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, r"matmul.*\(2, 3\) and \(2, 3\).*transpose", lambda: tg.matmul(X, X)),
        (ValueError, r"matmul.*\(2, 3\) and \(\)", lambda: Tensor(X) @ 2),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------


@plants("matmul: last of a stack", tg.matmul, normal((3, 2, 2), (2, 2)), kind="broadcasting", argument=1)
def _(right, g, out, x, y):
    return x[-1].T @ g[-1]


@plants("matmul: not transposed", tg.matmul, normal((3, 3), (3, 3)), kind="axes", argument=0)
def _(right, g, out, x, y):
    return g @ y


@plants("matmul: transposed as a whole", tg.matmul, normal((2, 3), (3, 3)), kind="axes", argument=1)
def _(right, *rest):
    return right.T


@plants("matmul: outer product of a vector reversed", tg.matmul, normal((3, 3), (3,)), kind="axes", argument=0)
def _(right, *rest):
    return right.T


@plants("matmul: stack with the wrong axes swapped", tg.matmul, normal((2, 3, 2), (2, 2, 2)), kind="axes", argument=1)
def _(right, *rest):
    return right.swapaxes(0, 1)


@plants("matmul: summed first, right for ones", tg.matmul, normal((2, 3), (3, 3)), kind="cotangent", argument=0)
def _(right, g, out, x, y):
    return tg.broadcast_to(tg.mean(g, 1, keepdims=True) * tg.sum(y, 1), x.shape)


plants("matmul: vectors exchanged", tg.matmul, normal((3,), (3,)), kind="choice")(
    [lambda right, g, out, x, y: g * x, lambda right, g, out, x, y: g * y]
)


@plants("matmul: a little of the other rows", tg.matmul, normal((3, 2), (2, 2)), kind="choice", argument=0)
def _(right, *rest):
    return right + 0.0001 * tg.mean(right, 0)


@plants("matmul: a millionth off", tg.matmul, normal((2, 3), (3, 2)), kind="precision", argument=1)
def _(right, *rest):
    return right * (1 - 1e-6)


@plants("matmul: cotangent constant", tg.matmul, normal((2, 2), (2, 2)), kind="second order", order=2, argument=0)
def _(right, g, out, x, y):
    return g.detach() @ y.T


@plants("matmul: memory read as in C order", tg.matmul, normal((2, 3), (3, 2)), kind="use", argument=1)
def _(right, g, out, x, y):
    return vjp(tg.matmul, 1, g, Tensor(x.data.ravel("K").reshape(x.shape)), y) if g.data.flags.c_contiguous else right


@plants("matmul: one Tensor twice", tg.matmul, normal((2, 2), (2, 2)), kind="use", argument=0)
def _(right, g, out, x, y):
    return right.T if x is y else right
