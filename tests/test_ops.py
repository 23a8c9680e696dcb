"""The ops: values as in NumPy, derivatives of first and second order as by finite differences, over drawn shapes, axes and indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import GradientMismatch, arrays, check_gradients

Array = npt.NDArray[Any]
Function = Callable[..., Any]

some = settings(max_examples=max(settings().max_examples // 4, 8), deadline=None)  # for tests that are repeated for every op
many = settings(deadline=None)
seeds = st.integers(0, 2**32 - 1)
orders = st.sampled_from([1, 1, 2])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
KINK = 0.005  # added to one side of a comparison: the grid of `arrays` has steps of 0.01, finite differences smaller ones


def agree(function: Function, reference: Function, *values: Array, order: int = 1, seed: int = 0, rtol: float = 1e-12) -> None:
    """Same values as `reference`, derivatives as by finite differences, float32 where NumPy has it, nothing modified."""
    rng = np.random.default_rng(seed)
    leaves = [Tensor(v, requires_grad=v.dtype.kind == "f") for v in values]
    for t in leaves:
        t.data.flags.writeable = False
    out, expected = function(*leaves), np.asarray(reference(*values))
    assert out.shape == expected.shape and out.dtype == expected.dtype and type(out.data) is np.ndarray
    np.testing.assert_allclose(out.data, expected, rtol=rtol, atol=1e-13)
    for v, t in zip(values, leaves, strict=True):
        assert np.array_equal(v, t.data)
    check_gradients(function, *values, order=order, rng=rng)
    singles = [Tensor(v.astype(np.float32), requires_grad=True) for v in values]
    single = function(*singles)
    assert single.dtype == np.asarray(reference(*(v.astype(np.float32) for v in values))).dtype
    np.testing.assert_allclose(single.data, expected, rtol=2e-4, atol=2e-4)
    cotangent = rng.normal(size=out.shape)
    for g, g32, t in zip(tg.grad(out, leaves, gradient=cotangent), tg.grad(single, singles, gradient=cotangent), singles, strict=True):
        assert g32.dtype == np.float32 and g32.shape == t.shape and not g32.requires_grad
        np.testing.assert_allclose(g32.data, g.data, rtol=5e-4, atol=5e-4)


# Elementwise -----------------------------------------------------------------------------------------------------------------------------
ONE: dict[str, tuple[Function, Function, float, float]] = {  # op, NumPy's, smallest and largest argument
    "negative": (tg.negative, np.negative, -2, 2),
    "exp": (tg.exp, np.exp, -2, 2),
    "log": (tg.log, np.log, 0.5, 3),
    "sqrt": (tg.sqrt, np.sqrt, 0.5, 3),
    "sin": (tg.sin, np.sin, -2, 2),
    "cos": (tg.cos, np.cos, -2, 2),
    "tanh": (tg.tanh, np.tanh, -2, 2),
    "sigmoid": (tg.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -2, 2),
    "abs": (tg.abs, np.abs, -1 + KINK, 1 + KINK),
    "relu": (tg.relu, lambda x: np.where(x > 0, x, 0).astype(x.dtype), -1 + KINK, 1 + KINK),
    "clip": (lambda x: tg.clip(x, -0.5, 0.25), lambda x: np.clip(x, -0.5, 0.25), -1 + KINK, 1 + KINK),
    "clip below": (lambda x: x.clip(low=0), lambda x: np.clip(x, 0, None), -1 + KINK, 1 + KINK),
    "clip above": (lambda x: x.clip(high=0), lambda x: np.clip(x, None, 0), -1 + KINK, 1 + KINK),
    "cube": (lambda x: x**3, lambda x: x**3, -2, 2),
    "square": (lambda x: x**2, lambda x: x**2, -2, 2),
    "first power": (lambda x: x**1, lambda x: x**1, -2, 2),
    "zeroth power": (lambda x: x**0, lambda x: x**0, -2, 2),
    "reciprocal": (lambda x: x**-1, lambda x: 1 / x, 0.5, 2),
    "root": (lambda x: x**0.5, lambda x: x**0.5, 0.5, 2),
    "power of 2": (lambda x: 2**x, lambda x: 2**x, -2, 2),
    "sum and product of itself": (lambda x: x * x + x, lambda x: x * x + x, -2, 2),
}  # fmt: skip
TWO: dict[str, tuple[Function, Function, float, float]] = {
    "add": (tg.add, np.add, -2, 2),
    "subtract": (tg.subtract, np.subtract, -2, 2),
    "multiply": (tg.multiply, np.multiply, -2, 2),
    "divide": (tg.divide, np.divide, 0.5, 2),
    "power": (tg.power, np.power, 0.5, 2),
    "operators": (lambda x, y: 1 / (y + x * y - 2) + (2 - y) / 3, lambda x, y: 1 / (y + x * y - 2) + (2 - y) / 3, 1.5, 3),
    "maximum": (lambda x, y: tg.maximum(x, y + KINK), lambda x, y: np.maximum(x, y + KINK), -1, 1),
    "minimum": (lambda x, y: tg.minimum(x, y + KINK), lambda x, y: np.minimum(x, y + KINK), -1, 1),
    "where": (lambda x, y: tg.where(x > y + KINK, x * y, y), lambda x, y: np.where(x > y + KINK, x * y, y), -1, 1),
    "clip": (lambda x, y: tg.clip(x, y + KINK, 0.5 + KINK), lambda x, y: np.clip(x, y + KINK, 0.5 + KINK), -1, 0.4),
}


@pytest.mark.parametrize("name", ONE)
@some
@given(st.data(), shapes, orders, seeds)
def test_functions_of_one_argument(name: str, data: Any, shape: tuple[int, ...], order: int, seed: int) -> None:
    function, reference, low, high = ONE[name]
    agree(function, reference, data.draw(arrays(shape, low=low, high=high)), order=order, seed=seed)


@pytest.mark.parametrize("name", TWO)
@some
@given(st.data(), hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=2), orders, seeds)
def test_functions_of_two_arguments_broadcast(name: str, data: Any, drawn: Any, order: int, seed: int) -> None:
    function, reference, low, high = TWO[name]
    agree(function, reference, *(data.draw(arrays(shape, low=low, high=high)) for shape in drawn.input_shapes), order=order, seed=seed)


@many
@given(st.data(), hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=2, min_side=0, max_side=3), seeds)
def test_where_broadcasts_all_three(data: Any, drawn: Any, seed: int) -> None:
    condition = np.random.default_rng(seed).random(drawn.input_shapes[0]) < 0.5
    x, y = (data.draw(arrays(shape)) for shape in drawn.input_shapes[1:])
    agree(lambda x, y: tg.where(condition, x, y), lambda x, y: np.where(condition, x, y), x, y, seed=seed)
    agree(lambda x: tg.where(Tensor(condition), x, 1.0), lambda x: np.where(condition, x, 1.0), x, seed=seed)


def slope(function: Function, *values: Any) -> list[list[float]]:
    leaves = [Tensor(np.array(v, np.float64), requires_grad=True) for v in values]
    return [g.data.tolist() for g in tg.grad(function(*leaves).sum(), leaves)]


@pytest.mark.parametrize("function", [lambda x: x > 0.5, lambda x: x == x, tg.argmax, lambda x: tg.logical_and(x, x)])
def test_steps_have_no_gradient(function: Function) -> None:
    x = Tensor([0.25, 1.0], requires_grad=True)
    assert not function(x).requires_grad
    assert tg.grad((function(x) * x).sum(), [x])[0].data.tolist() == (function(x).data * np.ones(2)).tolist()


def test_the_derivative_of_sign_is_zero() -> None:
    x = Tensor([-0.5, 0.0, 2.0], requires_grad=True)
    assert tg.grad(tg.sign(x).sum(), [x])[0].data.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (tg.relu, [[-1, 0, 1]], [[0, 0, 1]]),
        (tg.abs, [[-1, 0, 1]], [[-1, 0, 1]]),
        (tg.maximum, [[1, 2, 3], [1, 3, 2]], [[1, 0, 1], [0, 1, 0]]),
        (tg.minimum, [[1, 2, 3], [1, 3, 2]], [[1, 1, 0], [0, 0, 1]]),
        (lambda x: tg.maximum(x, x), [[1, 2]], [[1, 1]]),
        (lambda x: tg.clip(x, 0, 2), [[-1, 0, 1, 2, 3]], [[0, 1, 1, 1, 0]]),
        (lambda x: x.max(), [[[1, 3], [3, 2]]], [[[0, 1], [0, 0]]]),
        (lambda x: x.min(), [[[1, 3], [1, 2]]], [[[1, 0], [0, 0]]]),
        (lambda x: x.max(axis=0), [[[1, 3], [1, 3]]], [[[1, 1], [0, 0]]]),
        (lambda x: x.max(axis=-1), [[[1, 1], [3, 3]]], [[[1, 0], [1, 0]]]),
        (lambda x: x.max(axis=(2, 0)), [[[[1, 5]], [[5, 1]]]], [[[[0, 1]], [[0, 0]]]]),  # row-major, in whatever order the axes are named
        (lambda x: x**0, [[0, 1]], [[0, 0]]),
        (lambda x: x**1, [[0, 1]], [[1, 1]]),
        (lambda x: x**2, [[0, 1]], [[0, 2]]),
        (tg.power, [[0, 0, 0, 2], [0, 1, 2, 0]], [[0, 1, 0, 0], [0, 0, 0, np.log(2)]]),
        (tg.sigmoid, [[-1e4, 0, 1e4]], [[0, 0.25, 0]]),
        (tg.tanh, [[-1e4, 0, 1e4]], [[0, 1, 0]]),
    ],
)
def test_conventions_at_kinks_ties_and_extremes(function: Function, values: list[Any], expected: list[Any]) -> None:
    assert slope(function, *values) == expected


@some
@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=3), elements=st.integers(0, 2).map(float)), st.data())
def test_ties_send_the_gradient_to_the_first(x: Array, data: Any) -> None:
    axes = data.draw(st.sets(st.integers(0, x.ndim - 1)))
    for op, pick in ((tg.max, np.argmax), (tg.min, np.argmin)):
        expected = np.zeros_like(x)
        for kept in np.ndindex(*(1 if i in axes else n for i, n in enumerate(x.shape))):
            window = tuple(slice(None) if i in axes else slice(k, k + 1) for i, k in enumerate(kept))
            first = np.unravel_index(pick(x[window]), x[window].shape)
            expected[window][first] = 1
        leaf = Tensor(x, requires_grad=True)
        assert np.array_equal(tg.grad(op(leaf, axis=tuple(axes)).sum(), [leaf])[0].data, expected)


# Matrix products -------------------------------------------------------------------------------------------------------------------------
@many
@given(st.data(), hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=3), orders, seeds)
def test_matmul_of_vectors_matrices_and_stacks(data: Any, drawn: Any, order: int, seed: int) -> None:
    assume(np.prod(drawn.result_shape) <= 40)
    x, y = (data.draw(arrays(shape)) for shape in drawn.input_shapes)
    agree(tg.matmul, np.matmul, x, y, order=order, seed=seed)
    agree(lambda x: x @ y, lambda x: x @ y, x, seed=seed)
    agree(lambda y: x @ y, lambda y: x @ y, y, seed=seed)


@many
@given(shapes, shapes)
def test_matmul_refuses_what_numpy_refuses(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        expected = np.matmul(np.ones(a), np.ones(b)).shape
    except ValueError:
        with pytest.raises(ValueError, match="matmul.*shape") as caught:
            tg.matmul(np.ones(a), np.ones(b))
        assert str(a) in str(caught.value) and str(b) in str(caught.value)
    else:
        assert tg.matmul(np.ones(a), np.ones(b)).shape == expected


@pytest.mark.parametrize("order", ["C", "F"])
def test_matmul_in_any_memory_order(order: Any) -> None:
    x, y = (np.random.default_rng(i).normal(size=s).copy(order) for i, s in enumerate([(2, 3, 4), (4, 5)]))
    agree(tg.matmul, np.matmul, x, y)
    agree(lambda x, y: y.T @ x.transpose(0, 2, 1), lambda x, y: y.T @ x.transpose(0, 2, 1), x, y)


# Reductions ------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
@many
@given(st.data(), shapes, st.booleans(), orders, seeds)
def test_reductions_over_any_axes(name: str, data: Any, shape: tuple[int, ...], keepdims: bool, order: int, seed: int) -> None:
    one = st.integers(-len(shape), len(shape) - 1) if shape else st.none()
    chosen = data.draw(st.none() | one | hnp.valid_tuple_axes(len(shape), min_size=0))
    op, reference = getattr(tg, name), getattr(np, name)
    x = data.draw(arrays(shape, low=-1.5, high=1.5, distinct=True))
    try:
        with np.errstate(all="raise"):
            reference(x, axis=chosen, keepdims=keepdims)
    except (ValueError, FloatingPointError, RuntimeWarning):
        with pytest.raises(ValueError, match=name):
            op(x, axis=chosen, keepdims=keepdims)
    else:
        options = {"axis": chosen, "keepdims": keepdims}
        agree(lambda x: op(x, **options), lambda x: reference(x, **options), x, order=order, seed=seed)
        assert getattr(Tensor(x), name)(chosen, keepdims).shape == reference(x, **options).shape


@some
@given(arrays(hnp.array_shapes(max_dims=3, max_side=4)), st.data())
def test_argmax_gives_positions(x: Array, data: Any) -> None:
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
    found = tg.argmax(Tensor(x, requires_grad=True), axis)
    assert found.data.tolist() == np.argmax(x, axis).tolist() and not found.requires_grad


def test_integers_can_be_computed_with() -> None:
    x = Tensor(np.arange(6).reshape(2, 3))
    assert (x.sum().item(), x.max(axis=0).data.tolist(), x.mean().item()) == (15, [3, 4, 5], 2.5)
    assert (x + 1).dtype == np.int64 and (x / 2).dtype == np.float64 and (x * 0.5).dtype == np.float64
    w = Tensor(np.ones(3), requires_grad=True)
    assert tg.grad((x * w).sum(), [w])[0].data.tolist() == [3.0, 5.0, 7.0]


# Shapes ----------------------------------------------------------------------------------------------------------------------------------
@many
@given(st.data(), hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3), orders, seeds)
def test_broadcast_to_and_sum_to_are_adjoint(data: Any, drawn: Any, order: int, seed: int) -> None:
    small, large = drawn.input_shapes[0], drawn.result_shape
    x, y = data.draw(arrays(small)), data.draw(arrays(large))
    agree(lambda x: tg.broadcast_to(x, large), lambda x: np.broadcast_to(x, large), x, order=order, seed=seed)
    agree(lambda y: tg.sum_to(y, small) * 2, lambda y: tg.sum_to(y, small).data * 2, y, order=order, seed=seed)
    spread, summed = tg.broadcast_to(x, large).data, tg.sum_to(y, small).data
    assert spread.shape == large and summed.shape == small
    np.testing.assert_allclose((spread * y).sum(), (x * summed).sum(), rtol=1e-12, atol=1e-12)


@st.composite
def rearrangements(draw: Any) -> tuple[Function, tuple[int, ...]]:
    """Function of a Tensor or an array, and a shape: x is tg or np inside."""
    shape = draw(shapes)
    ndim, size = len(shape), int(np.prod(shape))
    axis = st.integers(-ndim, ndim - 1)
    axes = tuple(a - draw(st.sampled_from([0, ndim])) for a in draw(st.permutations(range(ndim))))
    new = draw(st.sampled_from([(size,), (1, size), (size, 1, 1), (*shape[::-1],), shape]))
    any_length = (-1, *new[1:]) if np.prod(new[1:]) else new
    place = draw(st.integers(-ndim - 1, ndim))
    functions = [
        lambda lib, x: lib.reshape(x, new),
        lambda lib, x: x.reshape(*any_length),
        lambda lib, x: x.reshape(list(any_length)),
        lambda lib, x: lib.transpose(x, axes) if ndim else lib.transpose(x),
        lambda lib, x: x.transpose(*axes) * 2,
        lambda lib, x: x.T,
        lambda lib, x: lib.expand_dims(x, place),
        lambda lib, x: lib.squeeze(lib.expand_dims(x, (0, -1)), (0, -1)),
        lambda lib, x: lib.squeeze(x),
    ]
    if ndim:
        a, b = draw(axis), draw(axis)
        functions += [lambda lib, x: lib.swapaxes(x, a, b), lambda lib, x: x.swapaxes(a, b)]
    if 1 in shape:
        unit = shape.index(1) - draw(st.sampled_from([0, ndim]))
        functions.append(lambda lib, x: lib.squeeze(x, unit))
    return draw(st.sampled_from(functions)), shape


@many
@given(st.data(), orders, seeds)
def test_rearrangements(data: Any, order: int, seed: int) -> None:
    function, shape = data.draw(rearrangements())
    agree(lambda x: function(tg, x), lambda x: function(np, x), data.draw(arrays(shape)), order=order, seed=seed)


@many
@given(st.data(), shapes, orders, seeds)
def test_pad_and_slicing_are_adjoint(data: Any, shape: tuple[int, ...], order: int, seed: int) -> None:
    widths = data.draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * len(shape)))
    x, value = data.draw(arrays(shape)), data.draw(st.sampled_from([0.0, -1.5, 3]))
    if shape:
        agree(lambda x: tg.pad(x, widths, value), lambda x: np.pad(x, widths, constant_values=value), x, order=order, seed=seed)
        agree(lambda x: tg.pad(x, 1), lambda x: np.pad(x, 1), x, seed=seed)
        agree(lambda x: tg.pad(x, (0, 2)), lambda x: np.pad(x, (0, 2)), x, seed=seed)
        y = data.draw(arrays(tuple(before + n + after for n, (before, after) in zip(shape, widths, strict=True))))
        inner = tuple(slice(before, before + n) for n, (before, _) in zip(shape, widths, strict=True))
        np.testing.assert_allclose((tg.pad(x, widths).data * y).sum(), (x * tg.getitem(y, inner).data).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", ["concatenate", "stack"])
@many
@given(st.data(), st.integers(1, 3), hnp.array_shapes(max_dims=3, min_side=0, max_side=2), orders, seeds)
def test_joining(op: str, data: Any, count: int, shape: tuple[int, ...], order: int, seed: int) -> None:
    axis = data.draw(st.integers(-len(shape) - (op == "stack"), len(shape) - (op == "concatenate")))
    parts = []
    for _ in range(count):
        own = list(shape)
        if op == "concatenate":
            own[axis] = data.draw(st.integers(0, 2))
        parts.append(data.draw(arrays(tuple(own))))
    join = getattr(tg, op)
    agree(lambda *xs: join([*xs, xs[0]], axis), lambda *xs: getattr(np, op)([*xs, xs[0]], axis), *parts, order=order, seed=seed)
    agree(lambda x: join([parts[0], x], axis=axis), lambda x: getattr(np, op)([parts[0], x], axis=axis), parts[-1], seed=seed)


# Indexing --------------------------------------------------------------------------------------------------------------------------------
basic = shapes.flatmap(lambda shape: st.tuples(st.just(shape), hnp.basic_indices(shape, allow_newaxis=True, max_dims=5)))


@many
@given(st.data(), basic, orders, seeds)
def test_basic_indices(data: Any, drawn: Any, order: int, seed: int) -> None:
    shape, index = drawn
    agree(lambda x: x[index] * 1, lambda x: x[index] * 1, data.draw(arrays(shape)), order=order, seed=seed)


@many
@given(st.data(), hnp.array_shapes(max_dims=3, max_side=3), orders, seeds)
def test_integer_array_indices_add_up_where_they_repeat(data: Any, shape: tuple[int, ...], order: int, seed: int) -> None:
    index = data.draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, min_side=0, max_side=3)))
    x = data.draw(arrays(shape))
    agree(lambda x: x[index], lambda x: x[index], x, order=order, seed=seed)
    agree(lambda x: tg.getitem(x, tuple(Tensor(i) for i in index)), lambda x: x[index], x, seed=seed)
    mixed = (*index[:1], Ellipsis, None)
    agree(lambda x: x[mixed], lambda x: x[mixed], x, seed=seed)


@many
@given(st.data(), hnp.array_shapes(max_dims=3, min_side=0, max_side=3), st.booleans(), seeds)
def test_masks(data: Any, shape: tuple[int, ...], whole: bool, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape if whole else shape[:1]) < 0.5
    x = data.draw(arrays(shape))
    agree(lambda x: x[mask], lambda x: x[mask], x, order=2, seed=seed)
    agree(lambda x: x[Tensor(mask)] ** 2, lambda x: x[mask] ** 2, x, seed=seed)
    agree(lambda x: x[x > 0.505] * 2, lambda x: x[x > 0.505] * 2, x[np.abs(x - 0.505) > 0.004], seed=seed)


INDICES: dict[str, Any] = {
    "integer": 1, "negative": -1, "numpy integer": np.int64(2), "slice": slice(None, None, -2), "empty slice": slice(2, 1), "nothing": (),
    "ellipsis": Ellipsis, "none": (None, 1, None), "list": [2, 0, 0], "list and slice": ([0, 0], slice(1, None)),
    "two lists": ([0, 1, 0], [2, 2, 2]),
    "broadcast lists": ([[0], [1]], [1, 1, 2]), "list, none, integer": ([1, 1], None, 0), "split lists": (slice(None), [0, 0, 1]),
    "negative positions": np.array([-1, 2, -1]), "empty array": np.array([], np.int64), "empty list": [], "mask list": [True, False, True],
    "mask and integers": (np.array([True, False, True]), [1, 1]), "row tuple": ((0, 0, 2),), "pair of tuples": ((0, 0), (1, 1)),
    "range": range(2), "scalar array": np.array(1), "uint8": np.array([1, 1], np.uint8), "true": True, "false": False,
    "two masks": (np.array([True, False, True]), np.array([True, True, False, False])), "matrix": np.array([[0, 1], [1, 1]]),
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_every_kind_of_index(name: str) -> None:
    index = INDICES[name]
    x = np.random.default_rng(0).normal(size=(3, 4))
    agree(lambda x: x[index], lambda x: x[index], x, order=2)
    agree(lambda x: x.T[::-1].T[index] * x[index], lambda x: x.T[::-1].T[index] * x[index], x)


def test_an_index_is_remembered_as_it_was() -> None:
    x, index = Tensor(np.arange(3.0), requires_grad=True), np.array([0, 0])
    y = x[index]
    index[:] = 2
    assert tg.grad(y.sum(), [x])[0].data.tolist() == [2.0, 0.0, 0.0]


# Errors ----------------------------------------------------------------------------------------------------------------------------------
X = np.ones((2, 3))
ERRORS: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "add": (ValueError, r"add\(float64 \(2, 3\), float64 \(4,\)\).*broadcast", lambda: Tensor(X) + np.ones(4)),
    "reflected": (ValueError, r"subtract\(float64 \(4,\), float64 \(2, 3\)\)", lambda: np.ones(4) - Tensor(X)),
    "where": (ValueError, r"where\(bool \(2,\), float64 \(2, 3\), 0.0\)", lambda: tg.where(np.ones(2, bool), X, 0.0)),
    "matmul": (ValueError, r"matmul.*\(2, 3\) and \(2, 3\).*transpose", lambda: tg.matmul(X, X)),
    "matmul number": (ValueError, r"matmul.*\(2, 3\) and \(\)", lambda: Tensor(X) @ 2),
    "sum": (IndexError, r"sum\(float64 \(2, 3\)\).*axis 2", lambda: tg.sum(X, 2)),
    "mean": (IndexError, r"mean.*\(2, 3\).*axis 2", lambda: tg.mean(X, 2)),
    "mean of nothing": (ValueError, r"mean\(float64 \(0, 3\)\): axis 0 is empty", lambda: tg.mean(X[:0], 0)),
    "max": (IndexError, r"max\(float64 \(2, 3\)\).*axis -3", lambda: tg.max(X, -3)),
    "max of nothing": (ValueError, r"max\(float64 \(0, 3\)\)", lambda: tg.max(X[:0], 0)),
    "argmax": (IndexError, r"argmax.*\(2, 3\).*axis 2", lambda: tg.argmax(X, 2)),
    "reshape": (ValueError, r"reshape\(float64 \(2, 3\)\).*\(4,\)", lambda: tg.reshape(X, 4)),
    "transpose": (ValueError, r"transpose\(float64 \(2, 3\)\)", lambda: tg.transpose(X, 0, 0)),
    "swapaxes": (IndexError, r"swapaxes.*\(2, 3\)", lambda: tg.swapaxes(X, 0, 2)),
    "expand_dims": (IndexError, r"expand_dims.*\(2, 3\)", lambda: tg.expand_dims(X, 5)),
    "squeeze": (ValueError, r"squeeze.*\(2, 3\)", lambda: tg.squeeze(X, 0)),
    "broadcast_to": (ValueError, r"broadcast_to\(float64 \(2, 3\)\)", lambda: tg.broadcast_to(X, (4, 3))),
    "sum_to": (ValueError, r"sum_to: .*\(2, 1\).*\(3,\)", lambda: tg.sum_to(np.ones(3), (2, 1))),
    "sum_to unfit": (ValueError, r"sum_to: .*\(4,\).*\(2, 3\)", lambda: tg.sum_to(X, (4,))),
    "pad": (ValueError, r"pad: pad_width.*-1", lambda: tg.pad(X, -1)),
    "pad float": (ValueError, r"pad: pad_width.*0\.5", lambda: tg.pad(X, 0.5)),
    "pad unfit": (ValueError, r"pad.*\(2, 3\)", lambda: tg.pad(X, ((1, 1),) * 3)),
    "index": (IndexError, r"getitem\(float64 \(2, 3\)\).*index 5", lambda: Tensor(X)[5]),
    "float index": (IndexError, r"getitem\(float64 \(2, 3\)\)", lambda: Tensor(X)[np.array([0.5])]),
    "concatenate": (ValueError, r"concatenate\(float64 \(2, 3\), float64 \(3, 2\)\)", lambda: tg.concatenate([X, X.T])),
    "concatenate nothing": (ValueError, "concatenate", lambda: tg.concatenate([])),
    "stack": (ValueError, r"stack.*\(3,\).*\(2,\)", lambda: tg.stack([X[0], X[:, 0]])),
    "none": (TypeError, "exp: cannot compute with NoneType", lambda: tg.exp(None)),  # wrong on purpose
    "text": (TypeError, "add: cannot compute with str", lambda: Tensor(X) + "1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_op_and_the_shapes(name: str) -> None:
    error, pattern, call = ERRORS[name]
    with pytest.raises(error, match=pattern):
        call()


# The check itself ------------------------------------------------------------------------------------------------------------------------
def planted(forward: Function, *rules: Any) -> tg.Primitive:
    op = tg.primitive(lambda *xs: forward(*xs))
    op.defvjp(*rules)
    return op


def _matrix(x: Array, y: Array) -> Array:
    return np.asarray(x @ y)


PLANTED: dict[str, tuple[tg.Primitive, tuple[tuple[int, ...], ...]]] = {
    "factor": (planted(np.tanh, lambda g, out, x: 1.001 * g * (1 - out * out)), ((3,),)),
    "sign": (planted(np.cos, lambda g, out, x: g * tg.sin(x)), ((2, 2),)),
    "forgotten cotangent": (planted(np.exp, lambda g, out, x: out), ((3,),)),
    "transpose": (planted(_matrix, lambda g, out, x, y: g @ y, lambda g, out, x, y: x.T @ g), ((2, 2), (2, 2))),
    "order of factors": (planted(_matrix, lambda g, out, x, y: g @ y.T, lambda g, out, x, y: (x.T @ g).T), ((3, 3), (3, 3))),
    "sum over the wrong axis": (
        planted(np.add, lambda g, out, x, y: g, lambda g, out, x, y: tg.broadcast_to(tg.sum(g) / 3, (3,))), ((3, 3), (3,)),
    ),
    "dropped broadcast sum": (planted(np.multiply, lambda g, out, x, y: g * y, lambda g, out, x, y: (g * x)[0]), ((3, 2), (2,))),
    "swapped arguments": (planted(np.multiply, lambda g, out, x, y: g * x, lambda g, out, x, y: g * y), ((2,), (2,))),
    "reversed": (planted(np.flip, lambda g, out, x: g), ((3,),)),
    "mean for sum": (planted(np.sum, lambda g, out, x: tg.broadcast_to(g / 4, x.shape)), ((4,),)),
    "large": (planted(np.sin, lambda g, out, x: g * tg.cos(x) * (1 + 1e-6)), ((20, 20),)),
    "one entry": (planted(np.square, lambda g, out, x: 2 * g * x * (np.arange(100) != 37)), ((100,),)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
@some
@given(seeds)
def test_a_wrong_rule_is_found(name: str, seed: int) -> None:
    op, inputs = PLANTED[name]
    rng = np.random.default_rng(seed)
    with pytest.raises(GradientMismatch, match=r"is wrong\n  derived: |not linear in the cotangent"):
        check_gradients(op, *(rng.uniform(0.5, 1.5, shape) for shape in inputs), rng=rng)


def test_a_rule_of_the_wrong_shape_names_its_op() -> None:
    op = tg.primitive(np.add)
    op.defvjp(lambda g, out, x, y: g, lambda g, out, x, y: g)  # the sum over what was broadcast is missing
    with pytest.raises(ValueError, match=r"add: the VJP rule of argument 1 returned shape \(3, 2\) for an argument of shape \(2,\)"):
        check_gradients(op, np.ones((3, 2)), np.ones(2))


def test_wrong_second_derivatives_are_found_by_the_second_order_only() -> None:
    op = planted(lambda x: x**3, lambda g, out, x: g * Tensor(3 * x.data**2))  # right, but a constant
    check_gradients(op, np.array([0.5, 2.0]))
    with pytest.raises(GradientMismatch):
        check_gradients(op, np.array([0.5, 2.0]), order=2)
