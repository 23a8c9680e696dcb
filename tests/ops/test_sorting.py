"""Sorting and picking: values and order as in NumPy and PyTorch, gradients to where the elements come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Shape, agree, dtypes, gradients_of_sum, orders, seeds, shapes, some
from planted import distinct, normal, plants, vjp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import arrays

few = st.sampled_from([0.0, -0.0, 1.0, 2.0, math.inf, -math.inf, math.nan])  # with many ties


def key(value: float) -> tuple[bool, float]:
    """NaN behind everything else."""
    return math.isnan(value), 0.0 if math.isnan(value) else value


def sorted_places(row: Array, descending: bool) -> list[int]:
    """Python's sort is stable, in both directions."""
    return sorted(range(len(row)), key=lambda i: key(row[i]), reverse=descending)


def axis_of(data: Any, ndim: int) -> Any:
    return data.draw(st.none() | st.integers(-ndim, ndim - 1)) if ndim else None


# Sorting --------------------------------------------------------------------------------------------------------------
@some
@given(st.data(), shapes, orders, seeds)
def test_sort(data: Any, shape: Shape, order: int, seed: int) -> None:
    axis, x = axis_of(data, len(shape)), data.draw(arrays(shape, dtypes, low=-1.5, high=1.5, distinct=True))
    agree(lambda lib, x: np.sort(x, axis) if lib is np else tg.sort(x, axis), x, order=order, seed=seed)
    values, places = Tensor(x).sort(axis), Tensor(x).argsort(axis)
    assert places.dtype == np.int64 and places.data.tolist() == np.argsort(x, axis, kind="stable").tolist()
    assert np.array_equal(tg.take_along_axis(x, places, axis).data, values.data)


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 3), st.integers(0, 6)), elements=few), st.booleans())
def test_ties_stay_in_their_order_and_nans_are_the_largest(x: Array, descending: bool) -> None:
    expected = [sorted_places(row, descending) for row in x]
    assert tg.argsort(x, descending=descending).data.tolist() == expected
    leaf = Tensor(x, requires_grad=True)
    values = tg.sort(leaf, descending=descending)
    g = np.random.default_rng(0).normal(size=x.shape)
    (gradient,) = tg.grad(values, [leaf], gradient=g)
    for places, row, out, of_row, of_out in zip(expected, x, values.data, gradient.data, g, strict=True):
        np.testing.assert_array_equal(out, row[places])
        assert of_row[places].tolist() == of_out.tolist()


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=few), st.booleans(), st.data())
def test_topk(x: Array, largest: bool, data: Any) -> None:
    axis = data.draw(st.sampled_from([0, 1, -1, -2]))
    k = data.draw(st.integers(0, x.shape[axis]))
    rows = np.moveaxis(x, axis, -1)
    expected = np.array([sorted_places(row, largest)[:k] for row in rows], int).reshape(len(rows), k)
    leaf = Tensor(x, requires_grad=True)
    values, places = tg.topk(leaf, k, axis, largest)
    assert places.dtype == np.int64 and not places.requires_grad and values.requires_grad
    assert np.moveaxis(places.data, axis, -1).tolist() == expected.tolist()
    np.testing.assert_array_equal(np.moveaxis(values.data, axis, -1), np.take_along_axis(rows, expected, -1))
    g = np.random.default_rng(0).normal(size=values.shape)
    gradient = np.zeros(rows.shape)
    np.put_along_axis(gradient, expected, np.moveaxis(g, axis, -1), -1)
    np.testing.assert_array_equal(tg.grad(values, [leaf], gradient=g)[0].data, np.moveaxis(gradient, -1, axis))


@some
@given(arrays((3, 4), distinct=True), st.booleans(), seeds)
def test_topk_and_sort_are_those_of_pytorch(x: Array, largest: bool, seed: int) -> None:
    torch = pytest.importorskip("torch")
    x = x.copy()  # PyTorch takes no negative strides
    if seed % 2:
        x = np.where(np.arange(4) == seed % 4, np.nan, x)
    theirs, places = torch.topk(torch.tensor(x), 3, 0, largest)
    ours = tg.topk(x, 3, 0, largest)
    np.testing.assert_array_equal(ours[0].data, theirs.numpy())
    if not seed % 2:
        np.testing.assert_array_equal(ours[1].data, places.numpy())
    sorted_, places = torch.sort(torch.tensor(x), dim=1, descending=largest, stable=True)
    np.testing.assert_array_equal(tg.sort(x, 1, descending=largest).data, sorted_.numpy())
    np.testing.assert_array_equal(tg.argsort(x, 1, descending=largest).data, places.numpy())


@some
@given(arrays(hnp.array_shapes(max_dims=3, max_side=4)), st.data(), st.booleans())
def test_argmin_and_argmax_give_positions(x: Array, data: Any, keepdims: bool) -> None:
    axis = axis_of(data, x.ndim)
    for name in ("argmin", "argmax"):
        found = getattr(Tensor(x, requires_grad=True), name)(axis, keepdims)
        assert found.data.tolist() == getattr(np, name)(x, axis, keepdims=keepdims).tolist()
        assert found.dtype == np.int64 and not found.requires_grad


def test_positions_have_no_gradient() -> None:
    values = [0.5, 0.25, 1.0]
    for positions in (tg.argsort, tg.argmin, lambda x: tg.topk(x, 3)[1]):
        assert gradients_of_sum(lambda x, positions=positions: positions(x) * x, values) == [
            np.broadcast_to(positions(values).data, 3).tolist()
        ]


def test_a_method_leaves_the_tensor_as_it_is() -> None:
    x = Tensor([2.0, 1.0])
    assert x.sort().data.tolist() == [1.0, 2.0] and x.data.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float32])
def test_dtypes_are_kept(dtype: Any) -> None:
    x = np.array([[2, 0, 3], [1, 1, 0]], dtype)
    for out in (tg.sort(x), tg.topk(x, 2)[0], tg.take(x, 1, 0), tg.take_along_axis(x, [[0], [1]])):
        assert out.dtype == dtype and not out.requires_grad
    assert tg.sort(x, 0).data.tolist() == np.sort(x, 0).tolist()


# Picking --------------------------------------------------------------------------------------------------------------
@some
@given(
    st.data(), hnp.array_shapes(max_dims=3, max_side=3), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0), orders
)
def test_take(data: Any, shape: Shape, places: Shape, order: int) -> None:
    """Positions that repeat add up; the same by fancy indexing."""
    axis, x = axis_of(data, len(shape)), data.draw(arrays(shape, np.float64 if order == 2 else dtypes))
    length = x.size if axis is None else shape[axis]
    indices = data.draw(hnp.arrays(np.int64, places, elements=st.integers(-length, length - 1)))
    agree(lambda lib, x: lib.take(x, indices, axis) ** 2, x, order=order)
    agree(lambda lib, x: np.take(x, indices, axis) if lib is np else x.take(Tensor(indices), axis), x)


@some
@given(st.data(), hnp.array_shapes(max_dims=3, max_side=3), orders)
def test_take_along_axis(data: Any, shape: Shape, order: int) -> None:
    """Beside the axis, lengths broadcast in both directions."""
    axis, x = axis_of(data, len(shape)), data.draw(arrays(shape, np.float64 if order == 2 else dtypes))
    count = data.draw(st.integers(0, 4))
    if axis is None:
        length, places = x.size, (count,)
    else:
        place, length = axis % len(shape), shape[axis]
        beside = [data.draw(st.sampled_from([1, side] if side > 1 else [1, 3])) for side in shape]
        places = tuple(count if i == place else side for i, side in enumerate(beside))
    indices = data.draw(hnp.arrays(np.int8, places, elements=st.integers(-length, length - 1)))
    agree(lambda lib, x: lib.take_along_axis(x, indices, axis) ** 2, x, order=order)


def test_halves_at_one_position_are_added_up_in_single_precision() -> None:
    x = Tensor(np.ones((1, 2), np.float16), requires_grad=True)
    for out in (tg.take(x, np.zeros(4096, int), 0), tg.take_along_axis(x, np.zeros((4096, 1), int), 0)):
        (gradient,) = tg.grad(out, [x], gradient=np.ones(out.shape, np.float16))
        assert gradient.dtype == np.float16 and gradient.data.max() == 4096


def test_indices_are_remembered_as_they_were() -> None:
    for take in (tg.take, lambda x, i: tg.take_along_axis(x, i, 0)):
        x, indices = Tensor(np.arange(3.0), requires_grad=True), np.array([0, 0])
        y = take(x, indices)
        indices[:] = 2
        assert tg.grad(y.sum(), [x])[0].data.tolist() == [2.0, 0.0, 0.0]


def test_what_is_not_taken_gets_no_gradient_of_infinity() -> None:
    x = Tensor(np.arange(4.0), requires_grad=True)
    for out in (tg.take(x, [1]), tg.topk(x[:2], 1)[0], tg.sort(x)[1:2], tg.take_along_axis(x, [1])):
        assert tg.grad(out, [x], gradient=[np.inf])[0].data.tolist() == [0.0, np.inf, 0.0, 0.0]


# Classes --------------------------------------------------------------------------------------------------------------
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=st.integers(0, 4)))
def test_one_hot(indices: Array) -> None:
    out = tg.one_hot(indices, 5)
    assert out.shape == (*indices.shape, 5) and out.dtype == np.float32 and not out.requires_grad
    assert np.array_equal(out.data, np.eye(5)[indices]) and np.array_equal(
        tg.one_hot(Tensor(indices), 5).data, out.data
    )
    for dtype in (np.float64, np.int64, bool, np.float16):
        other = tg.one_hot(indices, 6, dtype)
        assert other.dtype == dtype and np.array_equal(other.data, np.eye(6)[indices])
    if indices.size:
        assert tg.one_hot(indices).shape == (*indices.shape, indices.max() + 1)


# Errors ---------------------------------------------------------------------------------------------------------------
X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (IndexError, r"sort\(float64 \(2, 3\)\).*axis 2", lambda: tg.sort(X, 2)),
        (IndexError, r"sort\(float64 \(\)\).*axis -1", lambda: tg.sort(1.0)),
        (TypeError, r"sort\(float64 \(2, 3\)\).*integer", lambda: tg.sort(X, "rows")),  # type: ignore[arg-type]
        (IndexError, r"argsort\(float64 \(2, 3\)\).*axis 2", lambda: tg.argsort(X, 2)),
        (IndexError, r"argmin\(float64 \(2, 3\)\).*axis 2", lambda: tg.argmin(X, 2)),
        (ValueError, r"argmin\(float64 \(0, 3\)\).*empty", lambda: tg.argmin(X[:0], 0)),
        (ValueError, r"topk\(float64 \(2, 3\)\): k is 4; it must be at most 3", lambda: tg.topk(X, 4)),
        (TypeError, r"topk: k is 1\.5; it must be an integer", lambda: tg.topk(X, 1.5)),  # type: ignore[arg-type]
        (ValueError, "topk: k is -1; it must be", lambda: Tensor(X).topk(-1)),
        (IndexError, r"topk\(float64 \(2, 3\)\).*axis 2", lambda: tg.topk(X, 1, 2)),
        (IndexError, r"take\(float64 \(2, 3\), int64 \(1,\)\).*index 2 .*size 2", lambda: tg.take(X, [2], 0)),
        (IndexError, r"take\(float64 \(2, 3\).*index -4 .*size 3", lambda: tg.take(X, -4, 1)),
        (IndexError, r"take\(float64 \(2, 3\).*axis 2", lambda: tg.take(X, [0], 2)),
        (TypeError, r"take: indices are float64.*\.astype\(int\)", lambda: tg.take(X, [0.5])),
        (TypeError, r"take: indices are bool.*x\[mask\]", lambda: tg.take(X, X[0] > 0)),
        (TypeError, "numpy.take: Tensors do not take mode", lambda: np.take(Tensor(X), [7], mode="clip")),
        (IndexError, r"take_along_axis\(float64 \(2, 3\).*index 3 .*size 3", lambda: tg.take_along_axis(X, [[3]])),
        (ValueError, r"take_along_axis\(float64 \(2, 3\), int64 \(1,\)\).*dim", lambda: tg.take_along_axis(X, [0])),
        (IndexError, "take_along_axis.*broadcast", lambda: tg.take_along_axis(X, [[0]] * 3)),
        (TypeError, "take_along_axis: indices are float64", lambda: tg.take_along_axis(X, X)),
        (ValueError, "one_hot: index 3 is no class.*less than num_classes, 3", lambda: tg.one_hot([0, 3], 3)),
        (ValueError, "one_hot: index -1 is no class", lambda: tg.one_hot([0, -1])),
        (ValueError, r"one_hot: indices of shape \(0,\) hold no class; pass num_classes", lambda: tg.one_hot([])),
        (TypeError, "one_hot: indices are float64", lambda: tg.one_hot([0.0])),
        (TypeError, "one_hot: dtype is", lambda: tg.one_hot([0], dtype=complex)),
    ],
)
def test_errors_name_the_op_and_the_remedy(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------
@plants("sort: the order not undone", tg.sort, distinct((5,)), kind="indices")
def _(right, g, out, x):
    return tg.take(g, np.argsort(x.data))


plants("sort: not moved back", lambda x: tg.sort(x, 0), distinct((3, 2)), kind="indices")(lambda right, g, out, x: g)


@plants("sort: along the other axis", lambda x: tg.sort(x, 0), distinct((3, 3)), kind="axes")
def _(right, g, out, x):
    return vjp(lambda x: tg.sort(x, 1), 0, g, x)


@plants("sort: descending taken for ascending", lambda x: tg.sort(x, descending=True), distinct((4,)), kind="indices")
def _(right, g, out, x):
    return vjp(tg.sort, 0, g, x)


@plants(
    "sort: cotangent constant", tg.sort, distinct((4,)), kind="second order", order=2, within=lambda op, x: op(x) ** 2
)
def _(right, *rest):
    return right.detach()


@plants("topk: to the first k", lambda x: tg.topk(x, 2)[0], distinct((4,)), kind="indices")
def _(right, g, out, x):
    return tg.pad(g, ((0, 2),))


@plants("topk: positions of the first row for all", lambda x: tg.topk(x, 2)[0], distinct((3, 4)), kind="indices")
def _(right, g, out, x):
    first = np.argsort(-x.data[0])[:2]
    return vjp(lambda x: x[:, first], 0, g, x)


@plants("take: repeated, the last wins", lambda x: tg.take(x, [0, 2, 0]), normal((3,)), kind="indices")
def _(right, g, *rest):
    return tg.stack([g[2], g[0] * 0, g[1]])


@plants("take: along the other axis", lambda x: tg.take(x, [2, 0, 1], 1), normal((3, 3)), kind="axes")
def _(right, g, out, x):
    return vjp(lambda x: tg.take(x, [2, 0, 1], 0), 0, g, x)


@plants("take: negative, off by one", lambda x: tg.take(x, [-1, 0]), normal((3,)), kind="indices")
def _(right, *rest):
    return tg.concatenate([right[:1], right[1:][::-1]])


PLACES = np.array([[0, 0, 2], [1, 2, 1]])


@plants("take_along_axis: repeated, one of them counts", lambda x: tg.take_along_axis(x, PLACES), normal((2, 3)))
def _(right, g, out, x):
    return right / np.maximum(1, np.array([[2, 0, 1], [0, 2, 1]]))


@plants(
    "take_along_axis: broadcasting not undone",
    lambda x: tg.take_along_axis(x, PLACES),
    normal((1, 3)),
    kind="broadcasting",
)
def _(right, g, out, x):
    return vjp(lambda x: tg.take_along_axis(x, PLACES[:1]), 0, g[:1], x)


@plants(
    "argsort: straight through",
    lambda x: tg.astype(tg.argsort(x), np.float64),
    distinct((4,)),
    kind="steps",
    within=lambda op, x: op(x) * x,
)
def _(right, g, out, x):
    return g


@plants(
    "argmin: straight through",
    lambda x: tg.astype(tg.argmin(x), np.float64),
    distinct((4,)),
    kind="steps",
    within=lambda op, x: op(x) * x,
)
def _(right, g, out, x):
    return g * tg.softmax(-x)
