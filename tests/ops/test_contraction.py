"""Sums of products over named axes: values as in NumPy, right derivatives of every order, errors with the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from op_checks import Array, Shape, agree, dtypes, orders, seeds, some
from planted import normal, of_size, plants

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.ops.contraction import LABELS, _contract
from tinygrad_mnist.testing import adjoint_check, check_gradients

half = settings(max_examples=settings().max_examples // 2)


# Subscripts -----------------------------------------------------------------------------------------------------------
@st.composite
def subscripts(draw: Any) -> tuple[str, list[Shape]]:
    """Subscripts of one to four operands, and shapes that fit: repeated labels, ellipses, axes of length 0 and 1."""
    lengths = dict(zip("abcd", draw(st.lists(st.sampled_from([0, 1, 2, 2, 3]), min_size=4, max_size=4)), strict=True))
    rest = draw(st.lists(st.sampled_from([1, 2]), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 4))):
        labels: list[str] = draw(st.lists(st.sampled_from("abcd"), max_size=3))
        short = draw(st.sampled_from(["", "", "a", "b"]))
        shape = [1 if label in short and labels.count(label) == 1 else lengths[label] for label in labels]
        if draw(st.booleans()):
            at, own = draw(st.integers(0, len(labels))), rest[draw(st.integers(0, len(rest))) :]
            labels[at:at], shape[at:at] = ["..."], [n if draw(st.booleans()) else 1 for n in own]
        terms.append("".join(labels))
        shapes.append(tuple(shape))
    text = ",".join(terms)
    if draw(st.booleans()):
        found = sorted(set(text) & set("abcd"))
        out = draw(st.permutations(found))[: draw(st.integers(0, len(found)))]
        at = draw(st.integers(0, len(out)))
        text += "->" + "".join([*out[:at], *["..."][: "..." in text], *out[at:]])
    return text.replace(",", draw(st.sampled_from([",", " , "]))), shapes


def drawn(shapes: list[Shape], seed: int, dtype: Any = np.float64) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in shapes]


@given(subscripts(), seeds, dtypes)
def test_einsum_has_the_values_of_numpy(drawn_case: tuple[str, list[Shape]], seed: int, dtype: Any) -> None:
    text, shapes = drawn_case
    xs = [x.T.copy().T for x in drawn(shapes, seed, dtype)]  # in Fortran's memory order
    for values in (xs, [(5 * x).astype(np.int64) for x in xs]):
        out, expected = tg.einsum(text, *values), np.asarray(np.einsum(text, *values))
        assert (out.shape, out.dtype) == (expected.shape, expected.dtype)
        tolerance = 1e-12 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(out.data, expected, rtol=tolerance, atol=tolerance)


@half
@given(subscripts(), seeds, orders)
def test_einsum_has_right_derivatives(drawn_case: tuple[str, list[Shape]], seed: int, order: int) -> None:
    text, shapes = drawn_case
    assume(sum(map(int, map(np.prod, shapes))) <= 16)
    check_gradients(lambda *xs: tg.einsum(text, *xs), *drawn(shapes, seed), order=order, rng=seed)


LOOPS: dict[str, tuple[list[Shape], Callable[..., Any]]] = {  # element by element
    "ij,jk->ik": ([(2, 3), (3, 2)], lambda x, y: [[sum(x[i] * y[:, k]) for k in range(2)] for i in range(2)]),
    "iij->j": ([(2, 2, 3)], lambda x: [x[0, 0, j] + x[1, 1, j] for j in range(3)]),
    "i,ij,j": ([(2,), (2, 3), (3,)], lambda x, a, y: sum(x[i] * a[i, j] * y[j] for i in range(2) for j in range(3))),
    "b...,b->...": ([(2, 3), (2,)], lambda x, y: [x[0, j] * y[0] + x[1, j] * y[1] for j in range(3)]),
    "ba": ([(2, 3)], lambda x: [[x[i, j] for i in range(2)] for j in range(3)]),
}


@pytest.mark.parametrize("text", LOOPS)
def test_einsum_is_what_loops_compute(text: str) -> None:
    shapes, loop = LOOPS[text]
    xs = drawn(shapes, 0)
    np.testing.assert_allclose(tg.einsum(text, *xs).data, np.asarray(loop(*xs)), rtol=1e-13)


@given(subscripts(), seeds)
def test_lists_of_integers_are_subscripts_as_well(drawn_case: tuple[str, list[Shape]], seed: int) -> None:
    text, shapes = drawn_case
    xs = drawn(shapes, seed)
    lists = [
        [Ellipsis if part == "..." else LABELS.index(part) for part in re.findall(r"\.\.\.|\w", term)]
        for term in re.split(",|->", text)
    ]
    given = [a for pair in zip(xs, lists, strict=False) for a in pair] + ([lists[-1]] if "->" in text else [])
    np.testing.assert_array_equal(tg.einsum(*given).data, tg.einsum(text, *xs).data)


@pytest.mark.parametrize("text", ["ab,bc->ac", "ab,ab->a", "ab,c->bca", "ab,ab->", "abc,cd,bd,e->ea"])
def test_the_rule_of_a_contraction_is_its_adjoint(text: str) -> None:
    shapes = [tuple("abcde".index(label) + 1 for label in term) for term in text.split("->")[0].split(",")]
    xs = drawn(shapes, 0)
    for i, shape in enumerate(shapes):
        linear = lambda x, i=i: _contract(*xs[:i], x, *xs[i + 1 :], subscripts=text)  # noqa: E731

        def transposed(g: Any, linear: Any = linear, shape: Shape = shape) -> Tensor:
            leaf = Tensor(np.zeros(shape), requires_grad=True)
            return tg.grad(linear(leaf), [leaf], gradient=g)[0]

        adjoint_check(linear, transposed, shape)


def test_dtypes() -> None:
    """Single precision stays, numbers change nothing, and half precision is added up in single precision."""
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    for out in (tg.einsum(",ij", 2.0, x), tg.einsum(",ij->i", np.float64(2), x), tg.outer(2.0, x), tg.dot(x, 3)):
        assert out.dtype == np.float32 and tg.grad(out.sum(), [x])[0].dtype == np.float32
    halves = np.ones((2, 4096), np.float16)
    assert tg.einsum("ij,ij->i", halves, halves).data.tolist() == tg.einsum("ij->i", halves).data.tolist() == [4096] * 2
    assert tg.einsum("ij,kj->ik", halves, halves).dtype == np.float16
    mixed = tg.einsum("ij,ij->ij", x, np.arange(6).reshape(2, 3))
    assert mixed.dtype == np.result_type(np.float32, np.int64) and mixed.requires_grad
    assert tg.einsum("i,i", [True, False], [True, True]).data.tolist() is True
    counts = tg.einsum("b,aaa->b", np.ones(3, np.float16), np.ones((2, 2, 2), np.uint8))
    assert counts.dtype == np.float16 and counts.data.tolist() == [2] * 3  # sums of integers alone do not widen it
    large, little = np.full(4, 3e4, np.float16), np.full(2, 0.125, np.float16)
    assert tg.einsum("a,b->b", large, little).data.tolist() == [15000] * 2  # the sum of the large ones is no float16
    small = np.full(3, 100, np.int8)
    assert tg.einsum("i->", small).data == np.einsum("i->", small)  # both wrap around


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_no_gradient_leaves_the_diagonal(value: float) -> None:
    x = Tensor(np.ones((3, 3)), requires_grad=True)
    for out in (tg.einsum("ii->i", x), tg.trace(x)):
        (found,) = tg.grad(out, [x], gradient=np.full(out.shape, value))
        np.testing.assert_array_equal(found.data, np.where(np.eye(3) > 0, value, 0.0))


# Others ---------------------------------------------------------------------------------------------------------------
sides = st.lists(st.sampled_from([0, 1, 2, 2, 3]), max_size=2).map(tuple)


@some
@given(sides, sides, st.integers(0, 3), dtypes, seeds)
def test_dot_outer_and_tensordot(a: Shape, b: Shape, common: int, dtype: Any, seed: int) -> None:
    x, y = drawn([(*a, common), (*b[:-1], common, *b[-1:])], seed, dtype)
    axis = -2 if y.ndim > 1 else -1
    agree(lambda lib, x, y: lib.dot(x, y), x, y, seed=seed)
    agree(lambda lib, x, y: lib.tensordot(x, y, (0, [axis])), x.swapaxes(0, -1), y, seed=seed)
    u, v = drawn([a, b], seed, dtype)
    agree(lambda lib, x, y: lib.tensordot(x, y, 0), u, v, seed=seed)
    agree(lambda lib, x, y: lib.outer(x, y), u, v, seed=seed)


def test_tensordot_over_several_axes_is_a_sum_over_all_of_them() -> None:
    x, y = drawn([(2, 3, 4), (4, 5, 2)], 0)
    expected = np.einsum("abc,cda->bd", x, y)
    np.testing.assert_allclose(tg.tensordot(x, y, ([0, -1], [2, 0])).data, expected, rtol=1e-13)
    np.testing.assert_allclose(tg.tensordot(x, y, np.array([[0, 2], [-1, 0]])).data, expected, rtol=1e-13)


@some
@given(st.lists(st.integers(0, 3), min_size=2, max_size=4), st.integers(-4, 4), st.data(), dtypes, seeds)
def test_trace(shape: list[int], offset: int, data: Any, dtype: Any, seed: int) -> None:
    first, second = data.draw(st.permutations(range(len(shape))))[:2]
    second -= data.draw(st.sampled_from([0, len(shape)]))
    (x,) = drawn([tuple(shape)], seed, dtype)
    agree(lambda lib, x: lib.trace(x, offset, first, second), x, seed=seed)
    assert tg.trace((9 * x).astype(np.int8), offset, first, second).dtype == np.int64
    np.testing.assert_array_equal(Tensor(x).trace(offset, first, second).data, tg.trace(x, offset, first, second).data)


@some
@given(seeds)
def test_identities(seed: int) -> None:
    """Of products and traces, without NumPy's functions of these names."""
    a, b, c = drawn([(3, 4), (4, 2), (2, 3)], seed)
    np.testing.assert_allclose(tg.trace(a @ b @ c).data, tg.einsum("ij,jk,ki", a, b, c).data, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(tg.dot(a, b).data, a @ b, rtol=1e-12)
    np.testing.assert_allclose(tg.tensordot(a, a).data, np.square(a).sum(), rtol=1e-12)
    np.testing.assert_allclose(tg.outer(a, c).data, a.reshape(-1, 1) @ c.reshape(1, -1), rtol=1e-12)


# Errors ---------------------------------------------------------------------------------------------------------------
X = np.ones((2, 3))
ERRORS: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, r"einsum: 'ij,jk' of shapes \(2, 3\).*for 2 operands, and 1", lambda: tg.einsum("ij,jk", X)),
    (ValueError, r"einsum: 'i'.*\(2, 3\): 'i' has 1 labels.*write \.\.\.", lambda: tg.einsum("i", X)),
    (ValueError, r"einsum: 'ijk'.*'ijk' has 3 labels for shape \(2, 3\)", lambda: tg.einsum("ijk", X)),
    (ValueError, r"einsum.*'i' stands in the output twice", lambda: tg.einsum("ij->ii", X)),
    (ValueError, r"einsum.*'k' of the output is the label of no operand", lambda: tg.einsum("ij->ik", X)),
    (ValueError, r"einsum.*'-' of the output", lambda: tg.einsum("ij->ij->ij", X)),
    (ValueError, r"einsum.*output 'i' must hold \.\.\.", lambda: tg.einsum("...i->i", X)),
    (ValueError, r"einsum.*'1' is no label", lambda: tg.einsum("i1", X)),
    (ValueError, r"einsum.*'\.' is no label", lambda: tg.einsum("......j", X)),
    (ValueError, r"einsum: 'ij,ij'.*lengths (2 and 3|3 and 2) have one label", lambda: tg.einsum("ij,ij", X, X.T)),
    (ValueError, r"einsum: 'ii'.*lengths 1 and 3 have one label, 'i'", lambda: tg.einsum("ii", X[:1])),
    (ValueError, r"einsum: there are no operands for 'ij'", lambda: tg.einsum("ij")),
    (TypeError, r"einsum: 'ij' must be a list of integers", lambda: tg.einsum(X, "ij")),
    (TypeError, r"einsum: \[0, 52\] must be a list of integers from 0 to 51", lambda: tg.einsum(X, [0, 52])),
    (ValueError, r"dot.*\(2, 3\) and \(2, 3\).*transpose", lambda: tg.dot(X, X)),
    (ValueError, r"dot.*\(2, 3\) and \(1, 2, 3\)", lambda: tg.dot(X, X[None])),
    (
        ValueError,
        r"tensordot: shapes \(2, 3\) and \(2, 3\) do not fit along axes \(1,\) and \(0,\)",
        lambda: tg.tensordot(X, X, 1),
    ),
    (ValueError, r"tensordot: shapes.*as many axes", lambda: tg.tensordot(X, X, ((0, 1), (0,)))),
    (ValueError, r"tensordot: axes is 3.*must be a number of axes", lambda: tg.tensordot(X, X, 3)),
    (ValueError, r"tensordot: axes is \(0, 7\)", lambda: tg.tensordot(X, X, (0, 7))),
    (TypeError, r"tensordot: axes is 1\.5", lambda: tg.tensordot(X, X, 1.5)),
    (ValueError, r"trace: shape \(3,\) has no diagonal", lambda: tg.trace(X[0])),
    (ValueError, r"diagonal\(float64 \(2, 3\)\)", lambda: tg.trace(X, 0, 1, 1)),
]


@pytest.mark.parametrize(("error", "pattern", "call"), ERRORS, ids=[pattern for _, pattern, _ in ERRORS])
def test_errors_name_the_op_the_shapes_and_the_remedy(
    error: type[Exception], pattern: str, call: Callable[[], Any]
) -> None:
    with pytest.raises(error, match=pattern):
        call()


# Planted errors -------------------------------------------------------------------------------------------------------
def product(x: Any, y: Any) -> Tensor:
    return tg.einsum("ij,jk->ik", x, y)


plants("einsum: transposed", product, normal((3, 3), (3, 3)), kind="axes", argument=1)(
    lambda right, g, out, x, y: x @ g
)
plants("einsum: the diagonal is spread", lambda x: tg.einsum("ii->i", x), normal((3, 3)), kind="indices")(
    lambda right, g, out, x: tg.broadcast_to(g, x.shape)
)
plants(
    "einsum: the first of an ellipsis",
    lambda x, y: tg.einsum("...i,i->...", x, y),
    normal((2, 3), (3,)),
    kind="broadcasting",
    argument=1,
)(lambda right, g, out, x, y: x[0] * g[0])
plants(
    "einsum: an axis of length 1 gets the mean",
    lambda x, y: tg.einsum("ij,ij->i", x, y),
    normal((2, 1), (2, 3)),
    kind="broadcasting",
    argument=0,
)(lambda right, *rest: right / 3)
plants("einsum: cotangent constant", product, normal((2, 2), (2, 2)), kind="second order", order=2, argument=0)(
    lambda right, g, out, x, y: g.detach() @ y.T
)
plants("tensordot: axes reversed", lambda x, y: tg.tensordot(x, y, 2), normal((3, 3), (3, 3)), kind="axes")(
    lambda right, *rest: right.T
)
plants("dot: the last stack alone", tg.dot, normal((2, 2), (3, 2, 2)), kind="broadcasting", argument=0)(
    lambda right, g, out, x, y: g[:, -1] @ y[-1].T
)
plants("outer: sums exchanged", tg.outer, normal((3,), (3,)), kind="axes", argument=0)(
    lambda right, g, out, x, y: g.sum(0) * y
)
plants("trace: the other diagonal", lambda x: tg.trace(x, 1), normal((3, 4)), kind="indices")(
    lambda right, g, out, x: tg.where(of_size(x) % 5 == 4, g, 0.0)
)
