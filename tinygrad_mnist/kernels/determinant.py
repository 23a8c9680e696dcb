"""Derivatives of the determinant, of every order, at singular matrices, too.

With the singular value decomposition A = U diag(s) V', the derivatives of det at A along matrices are det(U V') times
those at diag(s) along the matrices in the frame of U and V. There, they are sums over subsets of rows: products of the
other singular values, times small determinants. No inverse is needed, and nothing is divided by a singular value.
"""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np

from .machine import one_blas_thread_of_numpy
from .products import Array

__all__ = ["determinant_gradient"]


def determinant_gradient(x: Array, *directions: Array) -> Any:
    """Return the gradient of det's derivative along `directions`: without any, the matrix of cofactors.

    All are of shape (..., n, n), and so is the result.
    """
    dtype = np.result_type(x, *directions)
    a, *along = [np.asarray(m, np.float64) for m in np.broadcast_arrays(x, *directions)]
    finite = np.isfinite(a).all((-2, -1), keepdims=True)
    if not a.size:
        return np.zeros(a.shape, dtype)
    with one_blas_thread_of_numpy():
        u, s, vt = np.linalg.svd(np.where(finite, a, 0))
        sign = np.rint(np.linalg.det(u) * np.linalg.det(vt))[..., None, None]  # det(U V') is 1 or -1
        ut = np.swapaxes(u, -1, -2)
        v = np.swapaxes(vt, -1, -2)
        inner = _at_diagonal(s, [ut @ h @ v for h in along])
        return np.where(finite, sign * (u @ inner @ vt), np.nan).astype(dtype)


def _at_diagonal(s: Array, directions: list[Array]) -> Array:
    """Return the same for diagonal matrices: (..., n) and a list of (..., n, n) -> (..., n, n)."""
    n = s.shape[-1]
    order = len(directions) + 1
    subsets = np.array([*combinations(range(n), order)], int).reshape(-1, order).T  # (order, subsets)
    # The products of the other singular values, (..., subsets): mantissas and exponents, so that nothing underflows.
    mantissas, exponents = np.frexp(s)
    others = _products_without(mantissas, order)[(..., *subsets)]
    exponent = exponents.sum(-1, keepdims=True) - exponents[..., subsets].sum(-2)
    out = np.zeros((*s.shape, n))
    for columns in permutations(range(order)):  # the terms of a determinant of order x order numbers
        for rows in permutations(range(order)):  # of the directions, and last that of the gradient's element
            *rows_of_directions, last = rows
            product = others * _parity(columns)
            for h, row in zip(directions, rows_of_directions, strict=True):
                product = product * h[..., subsets[row], subsets[columns[row]]]
            place: Any = (..., subsets[last], subsets[columns[last]])
            np.add.at(out, place, np.ldexp(product, exponent))
    return out


def _products_without(s: Array, count: int) -> Array:
    """Return the products of all but `count` elements along the last axis: (..., n) -> (..., n, ..., n).

    They are right where the `count` indices differ.
    """
    if count > 1:
        rows = np.where(np.eye(s.shape[-1], dtype=bool), 1, s[..., None, :])  # in each, an element is replaced by 1
        return _products_without(rows, count - 1)
    ones = np.ones_like(s[..., :1])
    all_but_last = np.concatenate([ones, s[..., :-1]], -1)
    all_but_first = np.concatenate([ones, s[..., :0:-1]], -1)  # from the end
    before = np.cumprod(all_but_last, -1)
    after = np.cumprod(all_but_first, -1)[..., ::-1]
    return np.asarray(before * after)


def _parity(order: tuple[int, ...]) -> int:
    """Return 1 for an even permutation, -1 for an odd one."""
    inversions = sum(a > b for a, b in combinations(order, 2))
    return -1 if inversions % 2 else 1
