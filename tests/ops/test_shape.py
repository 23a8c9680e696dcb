"""Ops that rearrange, pad, join and broadcast: values as in NumPy, right derivatives, adjoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from op_checks import Array, Function, Shape, agree, dtypes, orders, seeds, shapes
from planted import normal, only_at, plants

import tinygrad_mnist as tg
from tinygrad_mnist.testing import (
    adjoint_check,
    arrays,
    broadcastable_shapes,
    permutations,
)


def sum_to(x: Array, shape: Shape) -> Array:
    places = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), x.shape)
    return np.bincount(places.ravel(), x.ravel(), math.prod(shape)).reshape(shape).astype(x.dtype)


@given(st.data(), broadcastable_shapes(), orders, seeds)
def test_broadcast_to_and_sum_to_are_adjoint(data: Any, drawn: tuple[Shape, ...], order: int, seed: int) -> None:
    small, large = drawn[0], np.broadcast_shapes(*drawn)
    x, y = data.draw(arrays(small, dtypes)), data.draw(arrays(large, dtypes))
    agree(lambda lib, x: lib.broadcast_to(x, large), x, order=order, seed=seed)
    agree(lambda lib, y: lib.sum_to(y, small) * 2, y, order=order, seed=seed, numpy=SimpleNamespace(sum_to=sum_to))
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
        lambda lib, x: x.squeeze(),
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


X = np.ones((2, 3))


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "pattern", "call"),
    [
        (ValueError, r"reshape\(float64 \(2, 3\)\).*\(4,\)", lambda: tg.reshape(X, 4)),
        (ValueError, r"transpose\(float64 \(2, 3\)\)", lambda: tg.transpose(X, 0, 0)),
        (IndexError, r"swapaxes.*\(2, 3\)", lambda: tg.swapaxes(X, 0, 2)),
        (IndexError, r"expand_dims.*\(2, 3\)", lambda: tg.expand_dims(X, 5)),
        (ValueError, r"squeeze.*\(2, 3\)", lambda: tg.squeeze(X, 0)),
        (ValueError, r"broadcast_to\(float64 \(2, 3\)\)", lambda: tg.broadcast_to(X, (4, 3))),
        (ValueError, r"sum_to: .*\(2, 1\).*\(3,\)", lambda: tg.sum_to(np.ones(3), (2, 1))),
        (ValueError, r"sum_to: .*\(4,\).*\(2, 3\)", lambda: tg.sum_to(X, (4,))),
        (ValueError, r"pad: pad_width.*-1", lambda: tg.pad(X, -1)),
        (ValueError, r"pad: pad_width.*0\.5", lambda: tg.pad(X, 0.5)),
        (ValueError, r"pad.*\(2, 3\)", lambda: tg.pad(X, ((1, 1),) * 3)),
        (ValueError, r"concatenate\(float64 \(2, 3\), float64 \(3, 2\)\)", lambda: tg.concatenate([X, X.T])),
        (ValueError, "concatenate", lambda: tg.concatenate([])),
        (ValueError, r"stack.*\(3,\).*\(2,\)", lambda: tg.stack([X[0], X[:, 0]])),
    ],
)
def test_errors_name_the_op_and_the_shapes(error: type[Exception], pattern: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------


@plants("broadcast_to: only the first copy", lambda x: tg.broadcast_to(x, (3, 2)), normal((2,)), kind="broadcasting")
def _(right, g, *rest):
    return g[0]


@plants("broadcast_to: of length 1, mean", lambda x: tg.broadcast_to(x, (2, 4)), normal((2, 1)), kind="broadcasting")
def _(right, *rest):
    return right / 4


@plants("sum_to: only to the first", lambda x: tg.sum_to(x, (1, 2)), normal((3, 2)), kind="broadcasting")
def _(right, *rest):
    return only_at(right, 0)


@plants("sum_to: spread evenly", lambda x: tg.sum_to(x, (2,)), normal((3, 2)), kind="broadcasting")
def _(right, *rest):
    return right / 3


@plants("transpose: the same permutation again", lambda x: tg.transpose(x, 1, 2, 0), normal((2, 2, 2)), kind="axes")
def _(right, g, *rest):
    return tg.transpose(g, 1, 2, 0)


@plants("swapaxes: not swapped back", lambda x: tg.swapaxes(x, 0, 1), normal((3, 3)), kind="axes")
def _(right, g, *rest):
    return g


@plants("reshape: in column order", lambda x: tg.reshape(x, 6), normal((3, 2)), kind="axes")
def _(right, g, out, x):
    return tg.reshape(g, 2, 3).T


@plants("squeeze: transposed", lambda x: tg.squeeze(x), normal((3, 1, 3)), kind="axes")
def _(right, g, out, x):
    return tg.expand_dims(g.T, 1)


@plants("expand_dims: reversed", lambda x: tg.expand_dims(x, (0, 2)), normal((3,)), kind="axes")
def _(right, *rest):
    return right[::-1]


plants("stack: in reverse order", lambda *xs: tg.stack(xs, -1), normal((2,), (2,), (2,)), kind="axes")(
    [lambda right, g, *rest: g[:, 2], None, lambda right, g, *rest: g[:, 0]]
)
plants("concatenate: pieces exchanged", lambda x, y: tg.concatenate([x, y], 1), normal((2, 2), (2, 2)), kind="axes")(
    [lambda right, g, *rest: g[:, 2:], lambda right, g, *rest: g[:, :2]]
)
plants("pad: cut out at 0", lambda x: tg.pad(x, 1), normal((3, 2)), kind="indices")(lambda right, g, *rest: g[:3, :2])


@plants("pad: before and after exchanged", lambda x: tg.pad(x, ((1, 2),)), normal((3,)), kind="indices")
def _(right, g, *rest):
    return g[2:-1]


@plants("concatenate: off by one", lambda x, y: tg.concatenate([x, y]), normal((2,), (3,)), kind="indices", argument=1)
def _(right, g, out, x, y):
    return g[1:4]


@plants("transpose: not at all, right for ones", tg.transpose, normal((3, 3)), kind="cotangent")
def _(right, g, *rest):
    return g
