"""The ops.

Values as in NumPy, right derivatives of first and second order, over drawn shapes, axes, indices and precisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import (
    adjoint_check,
    arrays,
    broadcastable_shapes,
    check_gradients,
    indices,
    matmul_operands,
    permutations,
)

Array = npt.NDArray[Any]
Function = Callable[..., Any]
Shape = tuple[int, ...]

some = settings(max_examples=max(settings().max_examples // 4, 8))  # for tests that are repeated for every op
many = settings(max_examples=2 * settings().max_examples)  # for strategies that give many kinds of things
seeds = st.integers(0, 2**32 - 1)
orders = st.sampled_from([1, 1, 2])
dtypes = st.sampled_from([np.float32, np.float64])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3) | hnp.array_shapes(max_dims=3, min_side=0, max_side=3)


def sum_to(x: Array, shape: Shape) -> Array:
    places = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), x.shape)
    return np.bincount(places.ravel(), x.ravel(), math.prod(shape)).reshape(shape).astype(x.dtype)


NUMPY = SimpleNamespace(
    **{**vars(np), "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "sum_to": sum_to}
)


def agree(function: Function, *values: Array, order: int = 1, seed: int = 0) -> None:
    """A function of a library and of arrays gives the same with ours as with NumPy, and the gradients are right."""
    out, expected = function(tg, *map(Tensor, values)), np.asarray(function(NUMPY, *values))
    assert type(out.data) is np.ndarray and (out.shape, out.dtype) == (expected.shape, expected.dtype)
    tolerance = 1e-12 if out.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(out.data, expected, rtol=tolerance, atol=tolerance)
    check_gradients(lambda *xs: function(tg, *xs), *values, order=order, rng=seed)


# Elementwise ----------------------------------------------------------------------------------------------------------
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
    agree(lambda lib, x, y=None: eval(expression, {**vars(lib), "x": x, "y": y}), *values, order=order, seed=seed)


@given(st.data(), broadcastable_shapes(3, max_dims=2), seeds)
def test_where_broadcasts_all_three(data: Any, drawn: tuple[Shape, ...], seed: int) -> None:
    condition = np.random.default_rng(seed).random(drawn[0]) < 0.5
    x, y = (data.draw(arrays(shape, dtypes)) for shape in drawn[1:])
    agree(lambda lib, condition, x, y: lib.where(condition, x, y), condition, x, y, seed=seed)
    agree(lambda lib, x: lib.where(condition, x, 1.0), x, seed=seed)


def slope(function: Function, *values: Any) -> list[list[float]]:
    leaves = [Tensor(np.array(v, np.float64), requires_grad=True) for v in values]
    return [g.data.tolist() for g in tg.grad(function(*leaves).sum(), leaves)]


@pytest.mark.parametrize("function", [lambda x: x > 0.5, lambda x: x == x, tg.argmax, lambda x: tg.logical_and(x, x)])
def test_steps_have_no_gradient(function: Function) -> None:
    x = Tensor([0.25, 1.0], requires_grad=True)
    assert not function(x).requires_grad
    assert slope(lambda x: function(x) * x, [0.25, 1.0]) == [(function(x).data * np.ones(2)).tolist()]


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
        (lambda x: x.max(), [[[1, 3], [3, 2]]], [[[0, 1], [0, 0]]]),
        (lambda x: x.min(), [[[1, 3], [1, 2]]], [[[1, 0], [0, 0]]]),
        (lambda x: x.max(axis=0), [[[1, 3], [1, 3]]], [[[1, 1], [0, 0]]]),
        (lambda x: x.max(axis=-1), [[[1, 1], [3, 3]]], [[[1, 0], [1, 0]]]),
        (
            lambda x: x.max(axis=(2, 0)),
            [[[[1, 5]], [[5, 1]]]],
            [[[[0, 1]], [[0, 0]]]],
        ),  # row-major, in whatever order the axes are named
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


@some
@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=3), elements=st.integers(0, 2).map(float)), st.data()
)
def test_ties_send_the_gradient_to_the_first(x: Array, data: Any) -> None:
    axis, ramp = data.draw(tg.testing.axes(x.ndim)), np.arange(x.size).reshape(x.shape) / 100
    for op, first_wins in ((tg.max, x - ramp), (tg.min, x + ramp)):
        assert slope(lambda x, op=op: op(x, axis=axis), x) == slope(lambda x, op=op: op(x, axis=axis), first_wins)


# Matrix products ------------------------------------------------------------------------------------------------------
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


# Reductions -----------------------------------------------------------------------------------------------------------
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


@some
@given(arrays(hnp.array_shapes(max_dims=3, max_side=4)), st.data())
def test_argmax_gives_positions(x: Array, data: Any) -> None:
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
    assert tg.argmax(x, axis).data.tolist() == np.argmax(x, axis).tolist()


def test_integers_can_be_computed_with() -> None:
    x = Tensor(np.arange(6).reshape(2, 3))
    assert (x.sum().item(), x.max(axis=0).data.tolist(), x.mean().item()) == (15, [3, 4, 5], 2.5)
    assert (x + 1).dtype == np.int64 and (x / 2).dtype == np.float64 and (x * 0.5).dtype == np.float64
    assert slope(lambda w: x * w, np.ones(3)) == [[3.0, 5.0, 7.0]]


# Shapes ---------------------------------------------------------------------------------------------------------------
@given(st.data(), broadcastable_shapes(), orders, seeds)
def test_broadcast_to_and_sum_to_are_adjoint(data: Any, drawn: tuple[Shape, ...], order: int, seed: int) -> None:
    small, large = drawn[0], np.broadcast_shapes(*drawn)
    x, y = data.draw(arrays(small, dtypes)), data.draw(arrays(large, dtypes))
    agree(lambda lib, x: lib.broadcast_to(x, large), x, order=order, seed=seed)
    agree(lambda lib, y: lib.sum_to(y, small) * 2, y, order=order, seed=seed)
    adjoint_check(lambda x: tg.broadcast_to(x, large), lambda y: tg.sum_to(y, small), small, rng=seed)


@given(st.data(), shapes, orders, seeds)
def test_rearrangements(data: Any, shape: Shape, order: int, seed: int) -> None:
    ndim, size = len(shape), math.prod(shape)
    new = data.draw(st.sampled_from([(size,), (1, size), (size, 1, 1), shape[::-1], shape]))
    any_length = (-1, *new[1:]) if math.prod(new[1:]) else new
    permuted, place = data.draw(permutations(ndim)), data.draw(st.integers(-ndim - 1, ndim))
    functions: list[Function] = [
        lambda lib, x: lib.reshape(x, new),
        lambda lib, x: x.reshape(*any_length),
        lambda lib, x: x.reshape(list(any_length)),
        lambda lib, x: lib.transpose(x, permuted) if ndim else lib.transpose(x),
        lambda lib, x: x.transpose(*permuted) * 2,
        lambda lib, x: x.T,
        lambda lib, x: lib.expand_dims(x, place),
        lambda lib, x: lib.squeeze(lib.expand_dims(x, (0, -1)), (0, -1)),
        lambda lib, x: lib.squeeze(x),
    ]
    if ndim:
        a, b = data.draw(st.tuples(*[st.integers(-ndim, ndim - 1)] * 2))
        functions += [lambda lib, x: lib.swapaxes(x, a, b), lambda lib, x: x.swapaxes(a, b)]
    if 1 in shape:
        functions.append(lambda lib, x: lib.squeeze(x, shape.index(1) - ndim * (seed % 2)))
    x = data.draw(arrays(shape, dtypes))
    for function in functions:
        agree(function, x, order=order, seed=seed)


@given(st.data(), hnp.array_shapes(max_dims=3, min_side=0, max_side=3), orders, seeds)
def test_pad_and_slicing_are_adjoint(data: Any, shape: Shape, order: int, seed: int) -> None:
    widths = data.draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * len(shape)))
    x, value = data.draw(arrays(shape, dtypes)), data.draw(st.sampled_from([0.0, -1.5, 3]))
    agree(
        lambda lib, x: lib.pad(x, widths, **{"value" if lib is tg else "constant_values": value}),
        x,
        order=order,
        seed=seed,
    )
    for all_round in (1, (0, 2)):
        agree(lambda lib, x, width=all_round: lib.pad(x, width), x, seed=seed)
    inner = tuple(slice(before, before + n) for n, (before, _) in zip(shape, widths, strict=True))
    adjoint_check(lambda x: tg.pad(x, widths), lambda y: tg.getitem(y, inner), shape, rng=seed)


@pytest.mark.parametrize("op", ["concatenate", "stack"])
@given(st.data(), st.integers(1, 3), hnp.array_shapes(max_dims=3, min_side=0, max_side=2), orders, seeds)
def test_joining(op: str, data: Any, count: int, shape: Shape, order: int, seed: int) -> None:
    axis = data.draw(st.integers(-len(shape) - (op == "stack"), len(shape) - (op == "concatenate")))
    parts = []
    for _ in range(count):
        own = list(shape)
        if op == "concatenate":
            own[axis] = data.draw(st.integers(0, 2))
        parts.append(data.draw(arrays(tuple(own), dtypes)))
    agree(lambda lib, *xs: getattr(lib, op)([*xs, xs[0]], axis), *parts, order=order, seed=seed)
    agree(lambda lib, x: getattr(lib, op)([parts[0], x], axis=axis), parts[-1], seed=seed)


# Indexing -------------------------------------------------------------------------------------------------------------
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


# Errors ---------------------------------------------------------------------------------------------------------------
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


def test_a_rule_of_the_wrong_shape_names_its_op() -> None:
    op = tg.primitive(np.add)
    op.defvjp(lambda g, out, x, y: g, lambda g, out, x, y: g)  # the sum over what was broadcast is missing
    with pytest.raises(
        ValueError, match=r"add: the VJP rule of argument 1 returned shape \(3, 2\) for an argument of shape \(2,\)"
    ):
        check_gradients(op, np.ones((3, 2)), np.ones(2))
