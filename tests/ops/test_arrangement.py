"""Ops that rearrange elements: values as in NumPy, exact gradients; what stands outside a triangle gets none."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Function, Shape, agree, dtypes, orders, seeds, shapes, some
from planted import normal, plants, shifted

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import adjoint_check, arrays

matrices = hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=3)


def axes_of(data: Any, shape: Shape) -> tuple[int, ...]:
    """Some of the axes, each once, negative ones among them."""
    some = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True)) if shape else []
    return tuple(axis - len(shape) * data.draw(st.integers(0, 1)) for axis in some)


@given(st.data(), shapes, orders, seeds)
def test_order_and_shape(data: Any, shape: Shape, order: int, seed: int) -> None:
    axes, size = axes_of(data, shape), len(shape)
    places = data.draw(st.permutations(range(size)))[: len(axes)]
    shifts = data.draw(st.lists(st.integers(-7, 7), min_size=len(axes), max_size=len(axes)))
    functions: list[Function] = [
        lambda lib, x: x.flatten() * 2,
        lambda lib, x: lib.ravel(x),
        lambda lib, x: lib.flip(x),
        lambda lib, x: lib.flip(x, axes),
        lambda lib, x: lib.roll(x, 2),
        lambda lib, x: lib.moveaxis(x, axes, places) + 1,
    ]
    if axes:
        functions += [
            lambda lib, x: lib.roll(x, np.array(shifts, int), axes) * x,
            lambda lib, x: lib.flip(x, axes[0]),
            lambda lib, x: lib.roll(x, shifts[0], axes[0]),
            lambda lib, x: lib.moveaxis(x, axes[0], places[0]),
        ]
    x = data.draw(arrays(shape, dtypes))
    agree(
        data.draw(st.sampled_from(functions)),
        np.array(x, order=data.draw(st.sampled_from("CF"))),
        order=order,
        seed=seed,
    )


@some
@given(st.data(), hnp.array_shapes(max_dims=4, min_side=0, max_side=2), seeds)
def test_flatten_joins_a_range_of_axes(data: Any, shape: Shape, seed: int) -> None:
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(shape) - 1)] * 2)))

    def joined(x: Array, first: int, last: int) -> Array:
        return x.reshape(*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])

    x, numpy = data.draw(arrays(shape, dtypes)), SimpleNamespace(flatten=joined)
    agree(lambda lib, x: lib.flatten(x, start, end), x, seed=seed, numpy=numpy)
    agree(lambda lib, x: lib.flatten(x, start - len(shape), end - len(shape)), x, seed=seed, numpy=numpy)


@some
@given(st.data(), hnp.array_shapes(max_dims=3, min_side=0, max_side=4), seeds)
def test_pieces(data: Any, shape: Shape, seed: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = data.draw(arrays(shape, dtypes))
    where = data.draw(st.integers(1, 5) | st.lists(st.integers(-5, 5), max_size=3))
    function = "array_split" if isinstance(where, int) and shape[axis] % where else "split"
    pieces = getattr(tg, function)(x, where, axis)
    expected = getattr(np, function)(x, where, axis)
    assert [p.shape for p in pieces] == [p.shape for p in expected] and {p.dtype for p in pieces} == {x.dtype}
    for piece, right in zip(pieces, expected, strict=True):
        np.testing.assert_array_equal(piece.data, right)
    i = data.draw(st.integers(0, len(pieces) - 1))
    agree(lambda lib, x: getattr(lib, function)(x, where, axis)[i] * 2, x, seed=seed)


@given(st.data(), shapes, orders, seeds)
def test_copies(data: Any, shape: Shape, order: int, seed: int) -> None:
    times = data.draw(st.lists(st.integers(0, 2), max_size=4))
    once = data.draw(st.integers(0, 3))
    functions: list[Function] = [
        lambda lib, x: lib.tile(x, times),
        lambda lib, x: lib.tile(x, once) * 2,
        lambda lib, x: lib.repeat(x, once),
        lambda lib, x: lib.repeat(x, np.arange(x.size) % 3),
    ]
    if shape:
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        each = data.draw(st.lists(st.integers(0, 3), min_size=shape[axis], max_size=shape[axis]))
        functions += [
            lambda lib, x: x.repeat(once, axis),
            lambda lib, x: lib.repeat(x, each, axis=axis) * 2,
            lambda lib, x: lib.repeat(x, [2], axis),
        ]
    x = data.draw(arrays(shape, dtypes))
    agree(data.draw(st.sampled_from(functions)), x, order=order, seed=seed)


@some
@given(st.data(), matrices, st.integers(-3, 3), orders, seeds)
def test_diagonals_and_triangles(data: Any, shape: Shape, k: int, order: int, seed: int) -> None:
    axes = data.draw(st.permutations(range(len(shape))))[:2]
    axes = [axis - len(shape) * data.draw(st.integers(0, 1)) for axis in axes]
    functions: list[Function] = [
        lambda lib, x: lib.diagonal(x, k, *axes) * 2,
        lambda lib, x: x.diagonal(offset=k),
        lambda lib, x: lib.tril(x, k),
        lambda lib, x: lib.triu(x, k) * x,
    ]
    if len(shape) == 2:
        functions.append(lambda lib, x: lib.diag(x, k))
    x = data.draw(arrays(shape, dtypes))
    agree(data.draw(st.sampled_from(functions)), x.T if data.draw(st.booleans()) else x, order=order, seed=seed)
    of_vectors: list[Function] = [
        lambda lib, x: lib.tril(x, k),
        lambda lib, x: lib.triu(x, k) * x,
        lambda lib, x: lib.diag(x, k),
    ]
    agree(data.draw(st.sampled_from(of_vectors)), x.ravel(), order=order, seed=seed)
    adjoint_check(lambda x: tg.diag(x, k), lambda y: tg.diag(y, k), x.size, rng=seed)
    np.testing.assert_array_equal(np.linalg.diagonal(Tensor(x), offset=k).data, np.linalg.diagonal(x, offset=k))


@given(st.sampled_from([tg.tril, tg.triu]), st.sampled_from([np.inf, np.nan]), st.integers(-2, 2), dtypes)
def test_what_is_outside_a_triangle_gets_exactly_no_gradient(op: Any, bad: float, k: int, dtype: Any) -> None:
    x = Tensor(np.full((2, 3, 3), bad, dtype), requires_grad=True)
    (g,) = tg.grad(op(x, k), [x], gradient=np.full((2, 3, 3), bad, dtype))
    inside = getattr(np, op.__name__)(np.ones((2, 3, 3), bool), k)
    np.testing.assert_array_equal(g.data, np.where(inside, bad, 0))
    np.testing.assert_array_equal(op(x, k).data, np.where(inside, bad, 0))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_, np.float16])
def test_every_dtype_is_kept(dtype: Any) -> None:
    x = np.array([[1, 0], [1, 1]], dtype)
    calls: list[Function] = [
        lambda lib: lib.tril(x),
        lambda lib: lib.triu(x, 1),
        lambda lib: lib.diag(x[0]),
        lambda lib: lib.repeat(x, 2),
        lambda lib: lib.tile(x, 2),
        lambda lib: lib.roll(x, 1, 0),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(tg).data, call(np))
        assert call(tg).dtype == dtype


def test_what_is_changed_later_does_not_change_the_gradient() -> None:
    counts, x = np.array([1, 3]), Tensor([1.0, 2.0], requires_grad=True)
    out = tg.repeat(x, counts)
    counts[:] = 2
    assert tg.grad(out.sum(), [x])[0].data.tolist() == [1.0, 3.0]


def test_copies_of_halves_add_up_in_single_precision() -> None:
    x = Tensor(np.ones(2, np.float16), requires_grad=True)
    for repeats in (4096, [4096, 4096]):
        assert tg.grad(tg.repeat(x, repeats).sum(), [x])[0].data.tolist() == [4096, 4096]
    assert tg.grad(tg.tile(x, 4096).sum(), [x])[0].data.tolist() == [4096, 4096]


def test_a_number_is_repeated_along_its_axis_as_in_numpy() -> None:
    x = Tensor(3.0, requires_grad=True)
    for axis in (0, -1):
        out = tg.repeat(x, 2, axis)
        assert out.data.tolist() == np.repeat(3.0, 2, axis).tolist()
        assert tg.grad(out, [x], gradient=np.array([2.0, 5.0]))[0].data == 7


# Errors ---------------------------------------------------------------------------------------------------------------
X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, r"flatten: .*\(2, 3\).*start_axis", lambda: tg.flatten(X, 1, 0)),
        (ValueError, r"flatten: .*\(2, 3\)", lambda: tg.flatten(X, 2)),
        (TypeError, "flatten: start_axis is 'C'", lambda: Tensor(X).flatten("C")),
        (TypeError, "flatten: end_axis is 1.5", lambda: tg.flatten(X, 0, 1.5)),
        (TypeError, "split: axis is None", lambda: tg.split(X, 1, None)),
        (TypeError, "diag: k is 1.5", lambda: tg.diag(X, 1.5)),
        (TypeError, "tril: k is 1.5", lambda: tg.tril(X, 1.5)),
        (TypeError, "triu: k is 1.5", lambda: tg.triu(X, 1.5)),
        (IndexError, r"moveaxis\(float64 \(2, 3\)\)", lambda: tg.moveaxis(X, 2, 0)),
        (IndexError, r"flip\(float64 \(2, 3\)\)", lambda: tg.flip(X, 2)),
        (IndexError, r"roll\(float64 \(2, 3\)\)", lambda: tg.roll(X, 1, 2)),
        (TypeError, "roll: shift is 0.5", lambda: tg.roll(X, 0.5)),
        (ValueError, r"split: axis 1 of shape \(2, 3\).*array_split", lambda: tg.split(X, 2, 1)),
        (IndexError, r"split: axis 2 .*\(2, 3\)", lambda: tg.split(X, 2, 2)),
        (ValueError, r"array_split: .* 0 equal", lambda: tg.array_split(X, 0)),
        (TypeError, "split: indices_or_sections is 'a'", lambda: tg.split(X, "a")),
        (ValueError, r"repeat\(float64 \(2, 3\)\)", lambda: tg.repeat(X, [1, 2], 1)),
        (ValueError, r"repeat\(float64 \(2, 3\)\)", lambda: tg.repeat(X, -1)),
        (TypeError, "repeat: repeats is", lambda: tg.repeat(X, [1.5, 2])),
        (ValueError, "tile: reps is -1", lambda: tg.tile(X, -1)),
        (ValueError, r"diagonal\(float64 \(3,\)\)", lambda: tg.diagonal(X[0])),
        (ValueError, r"diag: shape \(1, 2, 3\).*diagonal", lambda: tg.diag(X[None])),
        (ValueError, r"tril: shape \(\)", lambda: tg.tril(1.0)),
        (ValueError, r"triu: shape \(\)", lambda: tg.triu(1.0)),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------
plants("flatten: columns first", lambda x: tg.flatten(x, 1), normal((2, 2, 3)), kind="axes")(
    lambda right, g, out, x: tg.swapaxes(tg.reshape(g, 2, 3, 2), 1, 2)
)
plants("ravel: columns first", tg.ravel, normal((2, 3)), kind="axes")(lambda right, g, *rest: tg.reshape(g, 3, 2).T)
plants("moveaxis: the same move again", lambda x: tg.moveaxis(x, 0, -1), normal((2, 2, 2)), kind="axes")(
    lambda right, g, *rest: tg.moveaxis(g, 0, -1)
)
plants("flip: not turned back", lambda x: tg.flip(x, 0), normal((3, 2)), kind="axes")(lambda right, g, *rest: g)
plants("flip: all axes", lambda x: tg.flip(x, 1), normal((3, 2)), kind="axes")(lambda right, g, *rest: tg.flip(g))
plants("roll: in the same direction", lambda x: tg.roll(x, 1), normal((4,)), kind="indices")(
    lambda right, g, *rest: tg.roll(g, 1)
)
plants("roll: zeros come in", lambda x: tg.roll(x, -1, 0), normal((4,)), kind="indices")(
    lambda right, g, *rest: shifted(g, 0)
)
plants("split: the piece before", lambda x: tg.split(x, 2)[1], normal((4,)), kind="indices")(
    lambda right, g, *rest: tg.pad(g, ((0, 2),))
)
plants("array_split: off by one", lambda x: tg.array_split(x, 2)[1], normal((5,)), kind="indices")(
    lambda right, g, *rest: tg.pad(g, ((2, 1),))
)
plants("repeat: the first copy alone", lambda x: tg.repeat(x, 2), normal((3,)), kind="broadcasting")(
    lambda right, g, *rest: g[::2]
)
plants("repeat: averaged", lambda x: tg.repeat(x, [1, 0, 2]), normal((3,)))(
    lambda right, *rest: right / np.array([1.0, 1.0, 2.0])
)
plants("repeat: as of tile", lambda x: tg.repeat(x, 2), normal((3,)), kind="indices")(
    lambda right, g, *rest: g[:3] + g[3:]
)
plants("tile: as of repeat", lambda x: tg.tile(x, 2), normal((3,)), kind="indices")(
    lambda right, g, *rest: g[::2] + g[1::2]
)
plants("diagonal: the main one", lambda x: tg.diagonal(x, 1), normal((3, 3)), kind="indices")(
    lambda right, g, *rest: shifted(right, 1, -1)
)
plants("diag: of the transpose", lambda x: tg.diag(x, 1), normal((3, 3)), kind="axes")(lambda right, *rest: right.T)
plants("diag: of a vector, below", lambda x: tg.diag(x, 1), normal((3,)), kind="indices")(
    lambda right, g, *rest: tg.diag(g, -1)
)
plants("tril: all pass", tg.tril, normal((3, 3)), kind="some entries")(lambda right, g, *rest: g)
plants("triu: without the diagonal", tg.triu, normal((3, 3)), kind="some entries")(
    lambda right, g, *rest: tg.triu(g, 1)
)
