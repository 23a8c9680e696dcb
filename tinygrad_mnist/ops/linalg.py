"""Linear algebra, as ``tg.linalg``: norm, inv, solve, det, slogdet, cholesky."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .. import kernels
from ..kernels.machine import one_blas_thread_of_numpy
from ..record import as_tensor, astype, broadcast_to, primitive, unbroadcast
from ..tensor import Array, Operand, Tensor
from ..validation import real
from .arrangement import tril
from .elementwise import _quotient_sum, abs, omit, select, sign, where
from .logic import equal
from .powers import power
from .products import matmul
from .reduction import Axis, max, min, sum
from .shape import expand_dims, reshape, squeeze, swapaxes

__all__ = ["cholesky", "det", "inv", "norm", "slogdet", "solve"]

MANY_ROWS = 32  # of a matrix: from these on LAPACK may use several threads


def __dir__() -> list[str]:
    return __all__


# Matrices -------------------------------------------------------------------------------------------------------------
def _matrices(name: str, x: Array) -> Array:
    """Return square matrices as LAPACK takes them: it has no half precision."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"{name}: shape {x.shape} is not that of square matrices, (..., n, n): the last two axes must be equally "
            "long"
        )
    return _wide(name, x)


def _wide(name: str, x: Array) -> Array:
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        raise TypeError(f"{name}: {x.dtype} has no linear algebra in NumPy; convert it with astype(np.float64)")
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _computed(function: Callable[..., Any], *xs: Array) -> Any:
    """Call LAPACK; on one thread, so that no bit depends on how many there are."""
    if xs[0].shape[-1] < MANY_ROWS:
        return function(*xs)
    with one_blas_thread_of_numpy():
        return function(*xs)


def _narrow(out: Any, *xs: Array) -> Any:
    return out.astype(np.float16) if np.result_type(*xs) == np.float16 else out


def _error(name: str, problem: str, places: Any, remedy: str) -> np.linalg.LinAlgError:
    """Return an error that says which matrix of a stack it is about: the first of the `places`."""
    place = tuple(map(int, places[0])) if len(places) else ()
    which = f"matrix {place} of the stack" if place else "the matrix"
    return np.linalg.LinAlgError(f"{name}: {which} is {problem}; {remedy}")


def _singular(name: str, x: Array) -> np.linalg.LinAlgError:
    places = np.argwhere(np.linalg.slogdet(x)[0] == 0)
    return _error(name, "singular", places, "add a multiple of np.eye(n), or leave it out")


def _transposed(x: Tensor) -> Tensor:
    return swapaxes(x, -1, -2)


@primitive
def inv(x: Any, /) -> Any:
    """Inverse of square matrices: (..., n, n) -> (..., n, n).

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> inv([[2.0, 0.0], [0.0, 4.0]])
    Tensor([[0.5 , 0.  ],
            [0.  , 0.25]], dtype=float64)
    """
    wide = _matrices("inv", x)
    try:
        return _narrow(_computed(np.linalg.inv, wide), x)
    except np.linalg.LinAlgError:
        raise _singular("inv", wide) from None


@primitive
def _solve(a: Any, b: Any, /) -> Any:
    wide = _matrices("solve", a)
    right = _wide("solve", b)
    try:
        return _narrow(_computed(np.linalg.solve, wide, right), a, b)
    except np.linalg.LinAlgError:
        raise _singular("solve", wide) from None


def _solve_by_matrix(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    by_right_side = _solve(_transposed(a), g)
    return unbroadcast(-matmul(by_right_side, _transposed(out)), a)


inv.defvjp(lambda g, out, x: -matmul(matmul(_transposed(out), g), _transposed(out)))
_solve.defvjp(_solve_by_matrix, lambda g, out, a, b: unbroadcast(_solve(_transposed(a), g), b))


def solve(a: Operand, b: Operand) -> Tensor:
    """Solve ``a @ x = b`` for ``x``.

    Parameters
    ----------
    a : array_like, shape (..., n, n)
    b : array_like, shape (n,) or (..., n, k)
        One vector, or matrices, whose stacks are broadcast with those of ``a``.

    Returns
    -------
    Tensor, shape (..., n) for a vector, else (..., n, k)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    numpy.linalg.LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> solve([[2.0, 0.0], [0.0, 4.0]], [2.0, 2.0])
    Tensor([1. , 0.5], dtype=float64)
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim < 2 or not b.ndim or b.shape[-2:][0] != a.shape[-1]:
        raise ValueError(
            f"solve: shapes {a.shape} and {b.shape} do not fit: they must be (..., n, n) and (n,) or (..., n, k); of "
            "several vectors, make columns with expand_dims(b, -1)"
        )
    if b.ndim > 1:
        return _solve(a, b)
    column = expand_dims(b, 1)
    return squeeze(_solve(a, column), -1)


# Determinants ---------------------------------------------------------------------------------------------------------
@primitive
def det(x: Any, /) -> Any:
    """Determinant of square matrices: (..., n, n) -> (...).

    The gradient is that of a polynomial: right at singular matrices, too, at every order. It is found by a singular
    value decomposition; derivatives of order k take a time that grows as n**k.

    Examples
    --------
    >>> det([[1.0, 2.0], [3.0, 5.0]]).round(6)
    Tensor(-1., dtype=float64)
    """
    return _narrow(_computed(np.linalg.det, _matrices("det", x)), x)


@primitive
def _det_gradient(*xs: Any) -> Any:
    """The gradient of the derivative of det at the first along all others."""
    return kernels.determinant_gradient(*xs)


# It is linear in each of its other arguments, and symmetric in all that the derivative is taken along.
_det_gradient.defvjp(
    lambda i, g, out, *xs: _det_gradient(*xs, g) if i == 0 else _det_gradient(*xs[:i], *xs[i + 1 :], g)
)
det.defvjp(lambda g, out, x: reshape(g, *g.shape, 1, 1) * _det_gradient(x))


class SlogdetResult(NamedTuple):
    """Sign and logarithm of a determinant."""

    sign: Tensor
    logabsdet: Tensor


@primitive
def _sign_of_det(x: Any, /) -> Any:
    sign, _ = _computed(np.linalg.slogdet, _matrices("slogdet", x))
    return _narrow(sign, x)


@primitive
def _log_of_det(x: Any, /) -> Any:
    _, logarithm = _computed(np.linalg.slogdet, _matrices("slogdet", x))
    return _narrow(logarithm, x)


def _log_of_det_gradient(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
    singular = equal(out, -np.inf)
    if (wrong := singular.data & (g.data != 0)).any():
        remedy = (
            "its logarithm, -inf, has no gradient; leave it out, as with where(sign == 0, 0.0, logabsdet), or use det"
        )
        raise _error("slogdet", "singular", np.argwhere(wrong), remedy)
    singular = reshape(singular, *g.shape, 1, 1)
    other = np.eye(x.shape[-1], dtype=x.dtype)  # no gradient is passed to singular ones: any matrix may stand there
    regular = where(singular, other, x)
    passed = omit(reshape(g, *g.shape, 1, 1), singular)
    return passed * _transposed(inv(regular))


_sign_of_det.defvjp(lambda g, out, x: broadcast_to(reshape(select(g, False), *g.shape, 1, 1), x.shape))
_log_of_det.defvjp(_log_of_det_gradient)


def slogdet(x: Operand) -> SlogdetResult:
    """Sign of the determinant of square matrices, and the logarithm of its absolute value: (..., n, n) -> (...), (...).

    The determinant itself may overflow or underflow. Of a singular matrix the sign is 0 and the logarithm -inf; a
    gradient that is not 0 is refused there.

    Returns
    -------
    SlogdetResult
        A named tuple of ``sign``, whose derivative is 0, and ``logabsdet``.

    Raises
    ------
    numpy.linalg.LinAlgError
        In the backward pass, if a matrix is singular.

    Examples
    --------
    >>> sign, logabsdet = slogdet([[0.0, 1.0], [1.0, 0.0]])
    >>> sign, logabsdet
    (Tensor(-1., dtype=float64), Tensor(0., dtype=float64))
    """
    return SlogdetResult(_sign_of_det(x), _log_of_det(x))


# Cholesky -------------------------------------------------------------------------------------------------------------
@primitive
def _cholesky(x: Any, /) -> Any:
    wide = _matrices("cholesky", x)
    try:
        return _narrow(_computed(np.linalg.cholesky, wide), x)
    except np.linalg.LinAlgError:
        places = [i for i in np.ndindex(x.shape[:-2]) if not _is_positive_definite(wide[i])]
        raise _error("cholesky", "not positive definite", places, "add a multiple of np.eye(n)") from None


def _is_positive_definite(x: Array) -> bool:
    try:
        return np.linalg.cholesky(x).shape == x.shape
    except np.linalg.LinAlgError:
        return False


def _cholesky_gradient(g: Tensor, out: Tensor, x: Tensor) -> Tensor:
    """Murray, "Differentiation of the Cholesky decomposition" (2016), equation (10)."""
    upper = _transposed(out)
    half_diagonal = 1 - np.eye(x.shape[-1], dtype=x.dtype) / 2
    lower = tril(matmul(upper, tril(g))) * half_diagonal
    right = _transposed(_solve(upper, _transposed(lower)))  # lower @ inv(out)
    full = _solve(upper, right)
    return (full + _transposed(full)) / 2


_cholesky.defvjp(_cholesky_gradient)


def cholesky(x: Operand, upper: bool = False) -> Tensor:
    """Return the lower triangular L with ``L @ L.T = x``, for symmetric positive definite matrices.

    Parameters
    ----------
    x : array_like, shape (..., n, n)
        Only its lower triangle is read (the upper one if `upper`).
    upper : bool
        Return the transpose of L.

    Returns
    -------
    Tensor, shape (..., n, n)

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not positive definite.

    Notes
    -----
    The gradient is symmetric, as in PyTorch: that of a function of symmetric matrices, although one triangle is read.
    It is right for all changes of ``x`` that keep it symmetric.

    Examples
    --------
    >>> cholesky([[4.0, 2.0], [2.0, 5.0]])
    Tensor([[2., 0.],
            [1., 2.]], dtype=float64)
    """
    if not upper:
        return _cholesky(x)
    return _transposed(_cholesky(_transposed(as_tensor(x))))


# Norms: all keep the reduced axes -------------------------------------------------------------------------------------
def _away_from_0(g: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Pass no gradient to norms that are 0, and let nothing be divided by them."""
    zero = equal(out, 0)
    return omit(g, zero), where(zero, 1.0, out)


@primitive
def _euclidean(x: Any, /, *, axis: tuple[int, ...]) -> Any:
    """Root of the sum of squares; where these overflow or underflow, of scaled numbers."""
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore"):
        squares = kernels.add_up(x * x, axis, keepdims=True)
    normal = (squares > info.tiny / info.eps) & (squares <= info.max)
    if normal.all():
        return np.sqrt(squares)
    top = np.max(np.abs(x), axis, keepdims=True, initial=0)
    exponent = np.where(np.isfinite(top), np.frexp(top)[1], 0)
    with np.errstate(under="ignore"):
        scaled = np.ldexp(x, -exponent)
        scaled_roots = np.sqrt(kernels.add_up(scaled * scaled, axis, keepdims=True))
        roots = np.sqrt(np.where(normal, squares, 0))
        return np.where(normal, roots, np.ldexp(scaled_roots, exponent)).astype(x.dtype)


def _euclidean_gradient(g: Tensor, out: Tensor, x: Tensor, axis: tuple[int, ...]) -> Tensor:
    g, out = _away_from_0(g, out)
    return _quotient_sum(g, x, out, n=1, shape=x.shape)


@primitive
def _power_norm(x: Any, /, *, p: float, axis: tuple[int, ...]) -> Any:
    """``sum(abs(x)**p)**(1 / p)``, scaled by the largest element or, if p is negative, the smallest."""
    size = np.abs(x)
    if p > 0:
        ends = np.max(size, axis, keepdims=True, initial=0)
    else:
        ends = np.min(size, axis, keepdims=True, initial=np.inf)
    scale = np.where(np.isfinite(ends) & (ends > 0), ends, 1).astype(x.dtype)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        total = kernels.add_up((size / scale) ** p, axis, keepdims=True)
        return scale * total ** (1 / p)


def _power_norm_gradient(g: Tensor, out: Tensor, x: Tensor, p: float, axis: tuple[int, ...]) -> Tensor:
    g, out = _away_from_0(g, out)
    if p > 0 and p % 2 == 0:  # smooth
        return g * power(x / out, p - 1)
    size = abs(x)
    if p < 2:  # not differentiable at 0, twice
        size = where(equal(x, 0), out.detach(), size)
    if 0 < p < 1:
        slope = power(size, p - 1) * power(out, 1 - p)
    else:
        slope = power(size / out, p - 1)
    return g * (sign(x) * slope)


@primitive
def _count(x: Any, /, *, axis: tuple[int, ...]) -> Any:
    return np.sum(x != 0, axis, keepdims=True, dtype=x.dtype)


_euclidean.defvjp(_euclidean_gradient)
_power_norm.defvjp(_power_norm_gradient)
_count.defvjp(lambda g, out, x, axis: broadcast_to(select(g, False), x.shape))


def _largest(x: Tensor, axis: tuple[int, ...]) -> Tensor:
    """Return the maximum of numbers of at least 0; that of none is 0."""
    return max(x, axis, True) if x.size else sum(x, axis, True)


def _vector_norm(x: Tensor, order: Any, axis: tuple[int, ...]) -> Tensor:
    if order is None or order == 2:
        return _euclidean(x, axis=axis)
    if order == 1:
        return sum(abs(x), axis, True)
    if order == np.inf:
        return _largest(abs(x), axis)
    if order == -np.inf:
        return min(abs(x), axis, True)
    p = real("norm", "ord", order)
    return _power_norm(x, p=p, axis=axis) if p else _count(x, axis=axis)


def _matrix_norm(x: Tensor, order: Any, axis: tuple[int, int]) -> Tensor:
    rows, columns = ((i,) for i in axis)
    if order is None or order == "fro":
        return _euclidean(x, axis=axis)
    if order in (1, -1):
        sums = sum(abs(x), rows, True)
        return _largest(sums, columns) if order == 1 else min(sums, columns, True)
    if order in (np.inf, -np.inf):
        sums = sum(abs(x), columns, True)
        return _largest(sums, rows) if order == np.inf else min(sums, rows, True)
    if order in (2, -2, "nuc"):
        raise ValueError(
            f"norm: ord {order!r} of matrices needs singular values, for which there is no op; use 'fro', 1 or inf, or "
            "give one axis for norms of vectors"
        )
    raise ValueError(f"norm: ord {order!r} is no norm of matrices; use 'fro', 1, -1, inf or -inf, or give one axis")


def norm(x: Operand, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Norm of vectors or matrices, as ``numpy.linalg.norm``.

    Parameters
    ----------
    x : array_like
    ord : None, number, inf, -inf or 'fro'
        None is the root of the sum of squares. Vectors: any number p, ``sum(abs(x)**p)**(1 / p)``; 0 counts what is not
        0; inf and -inf are the largest and the smallest absolute value. Matrices: 'fro', or 1, -1, inf, -inf, the
        largest or smallest sum of absolute values of columns (1, -1) or rows.
    axis : int or pair of int, optional
        The axis of vectors, or those of rows and columns of matrices. None: of all elements, or, with `ord`, of ``x``
        as a vector or matrix.
    keepdims : bool
        Keep these axes, with length 1.

    Raises
    ------
    ValueError
        If `ord` does not fit the number of axes, and for norms that need singular values (2, -2 and 'nuc' of matrices).

    Notes
    -----
    Nothing overflows or underflows on the way. Where a norm is 0, its derivatives are 0, at every order; so they are at
    elements that are 0, if ``ord < 2``. The largest of equal absolute values is the first.

    Examples
    --------
    >>> norm([3.0, 4.0])
    Tensor(5., dtype=float64)
    >>> norm([[1.0, -2.0], [3.0, 4.0]], 1, axis=1)
    Tensor([3., 7.], dtype=float64)
    """
    x = as_tensor(x)
    if x.dtype.kind != "f":
        x = astype(x, np.float64)
    if x.dtype == np.float16:
        return astype(norm(astype(x, np.float32), ord, axis, keepdims), np.float16)
    try:
        axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim, "norm: axis")
    except TypeError:
        raise TypeError(f"norm: axis is {axis!r}; it must be None, an integer or a pair of integers") from None
    if axis is None and ord is None:
        out = _euclidean(x, axis=axes)
    elif len(axes) == 1:
        out = _vector_norm(x, ord, axes)
    elif len(axes) == 2:
        out = _matrix_norm(x, ord, (axes[0], axes[1]))
    else:
        raise ValueError(
            f"norm: axis {axis} of shape {x.shape} names {len(axes)} axes: vectors have 1 and matrices 2; pass axis=, "
            "or flatten it with reshape(-1)"
        )
    return out if keepdims else squeeze(out, axes)
