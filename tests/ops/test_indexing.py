"""Indexing with all that NumPy takes: values as in NumPy, right derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Shape, agree, dtypes, many, orders, seeds, shapes
from planted import normal, plants

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import (
    arrays,
    indices,
)


@many
@given(st.data(), shapes, orders, seeds)
def test_indices(data: Any, shape: Shape, order: int, seed: int) -> None:
    index, x = data.draw(indices(shape)), data.draw(arrays(shape, dtypes, away_from=[0.5]))
    agree(lambda lib, x: x[index] * 1, x, order=order, seed=seed)
    tensors = tuple(
        Tensor(part) if isinstance(part, np.ndarray) else part
        for part in (index if isinstance(index, tuple) else (index,))
    )
    agree(lambda lib, x: x[tensors if lib is tg else index] ** 2, x, seed=seed)
    agree(lambda lib, x: x[x > 0.5] * 2, x, seed=seed)


INDICES: dict[str, Any] = {
    "integer": 1,
    "negative": -1,
    "numpy integer": np.int64(2),
    "slice": slice(None, None, -2),
    "empty slice": slice(2, 1),
    "nothing": (),
    "ellipsis": Ellipsis,
    "none": (None, 1, None),
    "list": [2, 0, 0],
    "list and slice": ([0, 0], slice(1, None)),
    "two lists": ([0, 1, 0], [2, 2, 2]),
    "broadcast lists": ([[0], [1]], [1, 1, 2]),
    "list, none, integer": ([1, 1], None, 0),
    "split lists": (slice(None), [0, 0, 1]),
    "negative positions": np.array([-1, 2, -1]),
    "empty array": np.array([], np.int64),
    "empty list": [],
    "mask list": [True, False, True],
    "mask and integers": (np.array([True, False, True]), [1, 1]),
    "row tuple": ((0, 0, 2),),
    "pair of tuples": ((0, 0), (1, 1)),
    "range": range(2),
    "scalar array": np.array(1),
    "uint8": np.array([1, 1], np.uint8),
    "true": True,
    "false": False,
    "two masks": (np.array([True, False, True]), np.array([True, True, False, False])),
    "matrix": np.array([[0, 1], [1, 1]]),
}


@pytest.mark.parametrize("name", INDICES)
def test_every_kind_of_index(name: str) -> None:
    index = INDICES[name]
    x = np.random.default_rng(0).normal(size=(3, 4))
    agree(lambda lib, x: x[index], x, order=2)
    agree(lambda lib, x: x.T[::-1].T[index] * x[index], x)


def test_an_index_is_remembered_as_it_was() -> None:
    x, index = Tensor(np.arange(3.0), requires_grad=True), np.array([0, 0])
    y = x[index]
    index[:] = 2
    assert tg.grad(y.sum(), [x])[0].data.tolist() == [2.0, 0.0, 0.0]


X = np.ones((2, 3))


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (IndexError, r"getitem\(float64 \(2, 3\)\).*index 5", lambda: Tensor(X)[5]),
        (IndexError, r"getitem\(float64 \(2, 3\)\)", lambda: Tensor(X)[np.array([0.5])]),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------


@plants("getitem: repeated, the last wins", lambda x: x[[0, 2, 0, 0]], normal((3,)), kind="indices")
def _(right, g, *rest):
    return tg.stack([g[3], g[0] * 0, g[1]])


@plants("getitem: negative, off by one", lambda x: x[[-1, 0]], normal((3,)), kind="indices")
def _(right, *rest):
    return tg.concatenate([right[:1], right[1:][::-1]])


@plants("getitem: step forgotten", lambda x: x[::2], normal((5,)), kind="indices")
def _(right, g, out, x):
    return tg.pad(g, ((0, len(x) - len(g)),))


@plants("getitem: mask inverted", lambda x: x[np.array([True, True, False, False])], normal((4,)), kind="indices")
def _(right, *rest):
    return right[::-1]


@plants("getitem: reversed slice not reversed back", lambda x: x[:, ::-1], normal((2, 3)), kind="indices")
def _(right, g, *rest):
    return g


@plants(
    "getitem: cotangent constant",
    lambda x: x[1:],
    normal((3,)),
    kind="second order",
    order=2,
    within=lambda op, x: op(x) ** 2 + x[:2],
)
def _(right, *rest):
    return right.detach()
