"""Indexing with all that NumPy takes: values as in NumPy, right derivatives."""

from __future__ import annotations

import array
import ctypes
from collections import UserList, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Shape, agree, dtypes, many, orders, seeds, shapes, some
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


class ByProtocol:
    """An array by one of NumPy's protocols."""

    def __init__(self, name: str, values: Any) -> None:
        self.array = np.array(values)
        setattr(self, name, getattr(self.array, name))


class ByMethod:
    def __init__(self, values: Any) -> None:
        self.array = np.array(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.array, dtype, copy=copy)


class Position:
    def __index__(self) -> int:
        return 1


ARRAY_LIKES: dict[str, Callable[[list[int]], Any]] = {
    "array.array": lambda n: array.array("l", n),
    "bytearray": lambda n: bytearray([i % 3 for i in n]),
    "memoryview": lambda n: memoryview(np.array(n)),
    "deque": deque,
    "user's sequence": UserList,
    "__array__": ByMethod,
    "__array_interface__": lambda n: ByProtocol("__array_interface__", n),
    "Tensor": lambda n: Tensor(np.array(n, np.intp)),
    "int8 Tensor": lambda n: Tensor(np.array(n, np.int8)),
    "masked array": lambda n: np.ma.array(n, dtype=np.intp),
    "ctypes": lambda n: (ctypes.c_int64 * len(n))(*n),
    "pandas Series": lambda n: pytest.importorskip("pandas").Series(n, range(5, 5 + len(n))),
    "pandas Index": lambda n: pytest.importorskip("pandas").Index(n),
    "torch": lambda n: pytest.importorskip("torch").tensor(n, dtype=pytest.importorskip("torch").int64),
}


@pytest.mark.parametrize("name", ARRAY_LIKES)
@some
@given(st.lists(st.integers(-3, 2), max_size=5), st.sampled_from([0, 1, 2, 3]))
def test_whatever_numpy_makes_an_array_of_is_an_index(name: str, positions: list[int], place: int) -> None:
    """Repeats add up, alone and within a tuple; what is changed later does not count."""
    part = ARRAY_LIKES[name](positions)
    plain = np.asarray(part.data if isinstance(part, Tensor) else part).astype(np.intp)
    index, expected = [(p, (p, slice(None, None, -2)), (Ellipsis, p), (p, None, 1))[place] for p in (part, plain)]
    values = np.random.default_rng(0).normal(size=(3, 3, 3))
    x = Tensor(values, requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.data, values[expected])
    if name in ("array.array", "memoryview", "__array__") and positions:
        (part.array if name == "__array__" else part)[0] = 0
    g = np.random.default_rng(1).normal(size=y.shape)
    right = np.zeros_like(values)
    np.add.at(right, expected, g)
    np.testing.assert_allclose(tg.grad(y, [x], gradient=g)[0].data, right, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("make", [list, np.array, ByMethod, Tensor, deque])
def test_masks_select(make: Callable[[Any], Any]) -> None:
    x, mask = Tensor(np.arange(3.0), requires_grad=True), [True, False, True]
    y = x[make(mask)]
    assert y.data.tolist() == [0.0, 2.0]
    assert tg.grad(y, [x], gradient=np.array([5.0, 7.0]))[0].data.tolist() == [5.0, 0.0, 7.0]


@pytest.mark.parametrize("one", [Position(), np.int64(1), np.array(1), Tensor(1), Tensor([1]).sum(), np.uint8(1)])
def test_single_positions_alone_in_tuples_and_in_slices(one: Any) -> None:
    values = np.arange(12.0).reshape(3, 4)
    x = Tensor(values, requires_grad=True)
    for index, expected in (
        (one, 1),
        ((one, one), (1, 1)),
        ((slice(one, None), [0, 0]), (slice(1, None), [0, 0])),
        (slice(None, None, one), slice(None)),
    ):
        y, right = x[index], np.zeros_like(values)
        np.testing.assert_array_equal(y.data, values[expected])
        np.add.at(right, expected, 1.0)
        np.testing.assert_array_equal(tg.grad(y.sum(), [x])[0].data, right)


def test_the_ends_of_a_slice_are_remembered_as_they_were() -> None:
    x, start = Tensor(np.arange(3.0), requires_grad=True), np.array(1)
    y = x[start:]
    start += 1
    assert tg.grad(y.sum(), [x])[0].data.tolist() == [0.0, 1.0, 1.0]


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
        (IndexError, r"getitem\(float64 \(2, 3\)\).*index 5", lambda: Tensor(X)[array.array("l", [0, 5])]),
        (IndexError, r"getitem\(float64 \(2, 3\)\).*index -4", lambda: Tensor(X)[:, deque([0, -4])]),
        (IndexError, "getitem.*integer", lambda: Tensor(X)[array.array("d", [0.0])]),
        (IndexError, "getitem.*integer", lambda: Tensor(X)[Tensor([0.0, 1.0])]),
        (IndexError, "getitem.*integer", lambda: Tensor(X)[Tensor(1.0, requires_grad=True)]),
        (IndexError, "getitem.*integer", lambda: Tensor(X)[1.0]),
        (IndexError, "getitem.*integer", lambda: Tensor(X)["a"]),
        (IndexError, "getitem.*integer", lambda: Tensor(X)[{0, 1}]),
        (IndexError, "getitem.*boolean", lambda: Tensor(X)[deque([True, False, True])]),
        (TypeError, "integer", lambda: Tensor(X)[0.5:]),
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
