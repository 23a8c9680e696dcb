"""Linear algebra: values as in NumPy, right derivatives of every order, at singular matrices and at 0, too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_checks import Array, Shape, dtypes, orders, seeds, some
from planted import between, normal, plants

import tinygrad_mnist as tg
from tinygrad_mnist import Tensor
from tinygrad_mnist.testing import check_gradients

linalg = tg.linalg
batches = st.sampled_from([(), (), (2,), (1, 2), (0,)])
TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-3, np.dtype(np.float16): 1e-2}


def spread(rng: np.random.Generator, batch: Shape, n: int) -> Array:
    """Matrices with singular values between 0.5 and 2."""
    rotations = [np.linalg.qr(rng.normal(size=(*batch, n, n)))[0] for _ in range(2)]
    return np.asarray(rotations[0] * rng.uniform(0.5, 2, (*batch, 1, n)) @ rotations[1])


def positive(rng: np.random.Generator, batch: Shape, n: int) -> Array:
    x = spread(rng, batch, n)
    return x @ np.swapaxes(x, -1, -2)


def symmetric(x: Any) -> Any:
    return (x + x.swapaxes(-1, -2)) / 2


def close(found: Any, expected: Any, dtype: Any = np.float64) -> None:
    found, expected = getattr(found, "data", found), np.asarray(expected)
    tolerance = TOLERANCE[np.dtype(dtype)]
    assert found.shape == expected.shape and found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# Matrices -------------------------------------------------------------------------------------------------------------
@given(batches, st.integers(0, 3), st.sampled_from([*TOLERANCE]), seeds)
def test_values(batch: Shape, n: int, dtype: Any, seed: int) -> None:
    """By identities; in Fortran's memory order; half precision is computed in single precision."""
    rng = np.random.default_rng(seed)
    x = np.swapaxes(np.swapaxes(spread(rng, batch, n), -1, -2).astype(dtype).copy(), -1, -2)
    eye, b = np.broadcast_to(np.eye(n), x.shape), rng.normal(size=(*batch[1:], n, 2)).astype(dtype)
    close(linalg.inv(x) @ x, eye, dtype)
    close(x @ linalg.solve(x, b), np.broadcast_to(b, (*batch, n, 2)), dtype)
    close(linalg.solve(x, np.ones(n, dtype)), linalg.inv(x).data.sum(-1), dtype)
    close(linalg.det(x), leibniz(x.astype(np.float64)), dtype)
    sign, logabsdet = linalg.slogdet(x)
    close(sign * tg.exp(logabsdet), linalg.det(x).data, dtype)
    p = positive(rng, batch, n).astype(dtype)
    for lower in (
        linalg.cholesky(p),
        linalg.cholesky(np.tril(p)),
        linalg.cholesky(np.triu(p), upper=True).swapaxes(-1, -2),
    ):
        close(lower @ lower.swapaxes(-1, -2), p, dtype)
        assert np.array_equal(lower.data, np.tril(lower.data)) and (np.diagonal(lower.data, 0, -2, -1) > 0).all()


def leibniz(x: Any) -> Any:
    """The determinant as a sum over permutations, of arrays or Tensors."""
    n, total = x.shape[-1], 0.0 * x.sum((-2, -1)) + (0.0 if x.shape[-1] else 1.0)
    for columns in permutations(range(n)):
        sign = np.linalg.det(np.eye(n)[list(columns)])
        term = round(float(sign)) + 0.0 * total
        for row, column in enumerate(columns):
            term = term * x[..., row, column]
        total = total + (term if n else 0.0)
    return total


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "inv": linalg.inv,
    "det": linalg.det,
    "slogdet": lambda x: linalg.slogdet(x).logabsdet,
    "cholesky": lambda x: linalg.cholesky(tg.matmul(x, tg.swapaxes(x, -1, -2))),
    "cholesky: symmetric changes": lambda x: linalg.cholesky(symmetric(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@some
@given(st.sampled_from([(), (2,)]), st.sampled_from([0, 1, 2, 2, 3]), orders, dtypes, seeds)
def test_derivatives(name: str, batch: Shape, n: int, order: int, dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (positive if name.startswith("cholesky:") else spread)(rng, batch, n)
    check_gradients(FUNCTIONS[name], x.astype(dtype), order=order, rng=seed)


@some
@given(
    st.sampled_from([((), ()), ((2,), (2,)), ((2, 1), (2,)), ((), (2,)), ((2,), None)]),
    st.integers(0, 3),
    orders,
    seeds,
)
def test_solve_has_right_derivatives(stacks: Any, n: int, order: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = rng.normal(size=n if stacks[1] is None else (*stacks[1], n, 2))
    check_gradients(linalg.solve, spread(rng, stacks[0], n), b, order=order, rng=seed)


@given(batches, st.integers(1, 4), st.integers(0, 4), st.integers(0, 10), seeds)
def test_derivatives_of_det_are_those_of_a_polynomial_at_every_rank(
    batch: Shape, n: int, rank: int, spoiled: int, seed: int
) -> None:
    """First, second and third; the oracle is the sum over permutations, differentiated."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*batch, n, min(rank, n))) @ rng.normal(size=(*batch, min(rank, n), n))
    found, expected = [], []
    for function, results in ((linalg.det, found), (leibniz, expected)):
        leaf, draws = Tensor(x, requires_grad=True), np.random.default_rng(seed)
        out = function(leaf)
        for _ in range(3):
            (out,) = tg.grad(out, [leaf], create_graph=True, gradient=draws.normal(size=out.shape))
            results.append(out.data)
    for mine, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs).max(initial=1.0)
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-11 * scale)


def test_the_gradient_of_det_is_exact_where_it_is_0_and_nan_where_it_is_unknown() -> None:
    x = np.stack([np.diag([1.0, 2.0, 0.0]), np.diag([1.0, 0.0, 0.0]), np.full((3, 3), np.nan)])
    leaf = Tensor(x, requires_grad=True)
    with np.errstate(invalid="ignore"):
        (found,) = tg.grad(linalg.det(leaf), [leaf], gradient=np.ones(3))
    np.testing.assert_allclose(found.data[:2], [np.diag([0.0, 0.0, 2.0]), np.zeros((3, 3))], atol=1e-15)
    assert np.isnan(found.data[2]).all()
    many = Tensor(np.eye(300) * np.resize([1e5, 1e-5], 300), requires_grad=True)  # products of some would overflow
    np.testing.assert_allclose(
        tg.grad(linalg.det(many), [many])[0].data.diagonal(), np.resize([1e-5, 1e5], 300), rtol=1e-9
    )


def test_slogdet_of_singular_matrices() -> None:
    x = Tensor(np.stack([np.eye(2), np.ones((2, 2))]), requires_grad=True)
    sign, logabsdet = linalg.slogdet(x)
    assert sign.data.tolist() == [1, 0] and logabsdet.data.tolist() == [0, -np.inf]
    with pytest.raises(np.linalg.LinAlgError, match=r"slogdet: matrix \(1,\) of the stack is singular.*use det"):
        tg.grad(logabsdet, [x], gradient=np.ones(2))
    (found,) = tg.grad(sign, [x], gradient=np.array([1.0, np.inf]))
    assert not found.data.any()  # it is constant
    (found,) = tg.grad(tg.where(sign == 0, 0.0, logabsdet), [x], gradient=np.ones(2))
    assert found.data.tolist() == [np.eye(2).tolist(), np.zeros((2, 2)).tolist()]


# Norms ----------------------------------------------------------------------------------------------------------------
VECTOR_ORDERS = [None, 2, 1, np.inf, -np.inf, 0, 3, 4, 2.5, 1.5, 0.5, -1, -2]
MATRIX_ORDERS = [None, "fro", 1, -1, np.inf, -np.inf]


def distinct(rng: np.random.Generator, shape: Shape) -> Array:
    """No two absolute values, nor sums of some, are near to each other or to 0."""
    size = int(np.prod(shape))
    return np.asarray(rng.permutation(1.1 ** np.arange(4, 4 + size)) * rng.choice([-1, 1], size)).reshape(shape)


@some
@given(st.data(), st.sampled_from(VECTOR_ORDERS), st.booleans(), dtypes, orders, seeds)
def test_norms_of_vectors(data: Any, order: Any, keepdims: bool, dtype: Any, degree: int, seed: int) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=2)))
    axis = data.draw(st.sampled_from([*range(-len(shape), len(shape))]))
    x = distinct(np.random.default_rng(seed), shape).astype(dtype)
    for axes in (axis, (axis,)):
        found = linalg.norm(x, order, axes, keepdims)
        close(found, np.linalg.norm(x, order, axis, keepdims), dtype)
    check_gradients(lambda x: linalg.norm(x, order, axis, keepdims), x, order=degree, rng=seed)


@some
@given(st.data(), st.sampled_from(MATRIX_ORDERS), st.booleans(), dtypes, seeds)
def test_norms_of_matrices(data: Any, order: Any, keepdims: bool, dtype: Any, seed: int) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=3)))
    axis = tuple(data.draw(st.permutations(range(len(shape))))[:2])
    x = distinct(np.random.default_rng(seed), shape).astype(dtype)
    close(linalg.norm(x, order, axis, keepdims), np.linalg.norm(x, order, axis, keepdims), dtype)
    check_gradients(lambda x: linalg.norm(x, order, axis, keepdims), x, rng=seed)


def test_norms_of_everything_of_integers_of_halves_and_of_nothing() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    close(linalg.norm(x), np.linalg.norm(x))
    close(linalg.norm(x, keepdims=True), np.linalg.norm(x, keepdims=True))
    close(linalg.norm(x[0], 1), np.linalg.norm(x[0], 1))
    close(linalg.norm(x[0, 0], 3), np.linalg.norm(x[0, 0], 3))
    close(linalg.norm(-2.0), 2.0)
    close(linalg.norm(np.array([3, 4], np.int8)), 5.0)
    close(linalg.norm(np.full(4096, 8, np.float16)), 512.0, np.float16)  # squares add up to more than 65,504
    for order in (None, 1, np.inf, 3, 0):
        close(linalg.norm(np.zeros((2, 0)), order, 1), [0.0, 0.0])


@pytest.mark.parametrize("order", VECTOR_ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_of_huge_and_tiny_numbers(order: Any, dtype: Any) -> None:
    """A power of 2 as a factor changes no digit of the norm, and nothing of the gradient."""
    info = np.finfo(dtype)
    x = np.array([[3.0, -1.5, 2.0], [1.0, 0.5, -4.0]], dtype)
    largest, smallest = dtype(2.0) ** (info.maxexp - 8), dtype(2.0) ** (info.minexp + 8)
    for factor in [1 / largest if order == 0 else smallest, largest]:
        results = []
        for values in (x, x * factor):
            leaf = Tensor(values, requires_grad=True)
            out = linalg.norm(leaf, order, 1)
            results.append((out.data, tg.grad(out, [leaf], gradient=dtype([0.75, -3.0]))[0].data))
        scale = dtype(1) if order == 0 else factor
        np.testing.assert_allclose(results[1][0], results[0][0] * scale, rtol=4 * info.eps)
        np.testing.assert_allclose(results[1][1], results[0][1], rtol=16 * info.eps)


@pytest.mark.parametrize("order", VECTOR_ORDERS)
def test_derivatives_of_a_norm_that_is_0_are_0(order: Any) -> None:
    """Also where the incoming gradient is infinite, and at every order; PyTorch's second derivative is NaN."""
    x = Tensor(np.zeros((2, 3)), requires_grad=True)
    (first,) = tg.grad(linalg.norm(x, order, 1), [x], create_graph=True, gradient=np.array([np.inf, 1.0]))
    assert first.data.tolist() == np.zeros((2, 3)).tolist()
    leaf = Tensor(np.zeros(3), requires_grad=True)
    (first,) = tg.grad(linalg.norm(leaf, order), [leaf], create_graph=True)
    assert tg.grad(first, [leaf], gradient=np.array([1.0, -2.0, 0.5]))[0].data.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("order", VECTOR_ORDERS)
def test_an_element_that_is_0_has_a_finite_gradient(order: Any) -> None:
    leaf = Tensor([[0.0, 3.0, -4.0]], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (first,) = tg.grad(linalg.norm(leaf, order, 1), [leaf], create_graph=True)
        (second,) = tg.grad(first, [leaf], gradient=np.ones((1, 3)))
    assert first.data[0, 0] == 0 and np.isfinite(first.data).all() and np.isfinite(second.data).all()
    if order in (None, 2):  # the only one that is curved there
        np.testing.assert_allclose(second.data[0, 0], 1 / 5, rtol=1e-14)


@pytest.mark.parametrize("order", [None, 3, 1.5, 1, np.inf, -1])
def test_norms_of_what_is_not_finite_are_those_of_numpy(order: Any) -> None:
    x = np.array([[np.inf, 1.0], [np.nan, 1.0], [np.inf, np.nan]])
    np.testing.assert_array_equal(linalg.norm(x, order, 1).data, np.linalg.norm(x, order, 1))


# Errors ---------------------------------------------------------------------------------------------------------------
SINGULAR, X = np.stack([[np.eye(2), np.ones((2, 2))]]), np.ones((2, 3))
ERRORS: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (np.linalg.LinAlgError, r"inv: the matrix is singular; add", lambda: linalg.inv(np.zeros((2, 2)))),
    (np.linalg.LinAlgError, r"inv: matrix \(0, 1\) of the stack is singular", lambda: linalg.inv(SINGULAR)),
    (
        np.linalg.LinAlgError,
        r"solve: matrix \(0, 1\) of the stack is singular",
        lambda: linalg.solve(SINGULAR, [1.0, 2.0]),
    ),
    (
        np.linalg.LinAlgError,
        r"cholesky: matrix \(0, 1\).*not positive definite; add",
        lambda: linalg.cholesky(SINGULAR),
    ),
    (np.linalg.LinAlgError, r"cholesky: the matrix is not positive", lambda: linalg.cholesky(-np.eye(2))),
    (ValueError, r"inv: shape \(2, 3\).*last two axes", lambda: linalg.inv(X)),
    (ValueError, r"det: shape \(3,\)", lambda: linalg.det(X[0])),
    (ValueError, r"slogdet: shape \(2, 3\)", lambda: linalg.slogdet(X)),
    (ValueError, r"cholesky: shape \(2, 3\)", lambda: linalg.cholesky(X)),
    (ValueError, r"solve: shape \(2, 3\)", lambda: linalg.solve(X, np.ones(3))),
    (ValueError, r"solve: shapes \(2, 2\) and \(3,\) do not fit.*expand_dims", lambda: linalg.solve(np.eye(2), X[0])),
    (ValueError, r"solve: shapes \(2, 2\) and \(\)", lambda: linalg.solve(np.eye(2), 1.0)),
    (
        TypeError,
        r"inv: \w+ has no linear algebra.*astype\(np\.float64\)",
        lambda: linalg.inv(np.eye(2, dtype=np.longdouble)),
    ),
    (ValueError, r"norm: ord 2 of matrices needs singular values.*'fro'", lambda: linalg.norm(X, 2)),
    (ValueError, r"norm: ord 'nuc' of matrices", lambda: linalg.norm(X, "nuc", (0, 1))),
    (ValueError, r"norm: ord 3 is no norm of matrices", lambda: linalg.norm(X, 3)),
    (TypeError, r"norm: ord is 'fro'; it must be", lambda: linalg.norm(X[0], "fro")),
    (ValueError, r"norm: ord is nan; it must be", lambda: linalg.norm(X[0], np.nan)),
    (ValueError, r"norm: axis None of shape \(1, 2, 3\) names 3 axes.*pass axis=", lambda: linalg.norm(X[None], 2)),
    (ValueError, r"norm: axis.*out of bounds", lambda: linalg.norm(X, axis=2)),
    (TypeError, r"norm: axis is 1\.5; it must be", lambda: linalg.norm(X, axis=1.5)),
]


@pytest.mark.parametrize(("error", "pattern", "call"), ERRORS, ids=[pattern for _, pattern, _ in ERRORS])
def test_errors_name_the_op_the_matrix_and_the_remedy(
    error: type[Exception], pattern: str, call: Callable[[], Any]
) -> None:
    if np.dtype(np.longdouble) == np.float64 and "astype" in pattern:
        pytest.skip("there is no extended precision")
    with pytest.raises(error, match=pattern) as caught:
        call()
    assert isinstance(caught.value, np.linalg.LinAlgError) == (error is np.linalg.LinAlgError)


# Planted errors -------------------------------------------------------------------------------------------------------
def regular(*batch: int) -> Any:
    return lambda rng: [spread(rng, batch, 3)]


def transposed(x: Tensor) -> Tensor:
    return x.swapaxes(-1, -2)


plants("inv: not transposed", linalg.inv, regular(), kind="axes")(lambda right, *rest: transposed(right))
plants("inv: the output is a constant", linalg.inv, regular(), kind="second order", order=2)(
    lambda right, g, out, x: -(out.detach().T @ g @ out.detach().T)
)
plants(
    "solve: not transposed", linalg.solve, lambda rng: [spread(rng, (), 3), rng.normal(size=3)], kind="axes", argument=1
)(lambda right, g, out, a, b: linalg.solve(a, g))
plants(
    "solve: a stack gets the last",
    linalg.solve,
    lambda rng: [spread(rng, (), 2), rng.normal(size=(2, 2, 1))],
    kind="broadcasting",
    argument=0,
)(lambda right, g, out, a, b: -linalg.solve(a.T, g[-1]) @ transposed(out)[-1])
plants("det: the adjugate is not transposed", linalg.det, regular(), kind="axes")(
    lambda right, *rest: transposed(right)
)
plants("det: det times the inverse, from the values", linalg.det, regular(), kind="second order", order=2)(
    lambda right, g, out, x: g * out * linalg.inv(x.detach()).T
)
plants(
    "det: 0 where the matrix is singular",
    linalg.det,
    lambda rng: [np.outer([1.0, 2.0], rng.uniform(1, 2, 2))],
    kind="some entries",
)(lambda right, *rest: 0 * right)
plants("slogdet: not transposed", FUNCTIONS["slogdet"], regular(), kind="axes")(lambda right, *rest: transposed(right))
WITHIN: dict[str, Any] = {"within": lambda op, x: op(symmetric(x))}
plants("cholesky: diagonal not halved", linalg.cholesky, lambda rng: [positive(rng, (), 3)], **WITHIN)(
    lambda right, g, out, x: right + tg.linalg.inv(out).T @ (tg.diag(tg.diagonal(out.T @ g))) @ tg.linalg.inv(out) / 2
)
plants("cholesky: lower triangle alone", linalg.cholesky, lambda rng: [positive(rng, (), 3)], kind="indices", **WITHIN)(
    lambda right, *rest: tg.tril(right)
)
plants("norm: the norm is a constant", linalg.norm, between(0.5, 2, (4,)), kind="second order", order=2)(
    lambda right, g, out, x: g * x / out.detach()
)
plants("norm: sign forgotten", lambda x: linalg.norm(x, 3), normal((4,)), kind="sign")(
    lambda right, *rest: tg.abs(right)
)
plants("norm: p instead of p - 1", lambda x: linalg.norm(x, 1.5), between(0.5, 2, (4,)))(
    lambda right, g, out, x: g * (x / out) ** 1.5
)
plants("norm: all of the largest column", lambda x: linalg.norm(x, 1), between(0.5, 2, (3, 3)), kind="kinks")(
    lambda right, g, out, x: g * tg.sign(x)
)
