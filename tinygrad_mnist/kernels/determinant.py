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
    matrices = [np.asarray(a, np.float64) for a in np.broadcast_arrays(x, *directions)]
    finite = np.isfinite(matrices[0]).all((-2, -1), keepdims=True)
    if not matrices[0].size:
        return np.zeros(matrices[0].shape, dtype)
    with one_blas_thread_of_numpy():
        u, s, vt = np.linalg.svd(np.where(finite, matrices[0], 0))
        sign = np.rint(np.linalg.det(u) * np.linalg.det(vt))[..., None, None]
        ut, v = np.swapaxes(u, -1, -2), np.swapaxes(vt, -1, -2)
        inner = _at_diagonal(s, [ut @ h @ v for h in matrices[1:]])
        return np.where(finite, sign * (u @ inner @ vt), np.nan).astype(dtype)


def _at_diagonal(s: Array, directions: list[Array]) -> Array:
    """Return the same for diagonal matrices: (..., n) and a list of (..., n, n) -> (..., n, n)."""
    n, order = s.shape[-1], len(directions) + 1
    subsets = np.array([*combinations(range(n), order)], int).reshape(-1, order).T  # (order, subsets)
    mantissas, exponents = np.frexp(s)
    others = _products_without(mantissas, order)[(..., *subsets)]
    exponent = exponents.sum(-1, keepdims=True) - exponents[..., subsets].sum(-2)
    out = np.zeros((*s.shape, n))
    for columns in permutations(range(order)):
        for rows in permutations(range(order)):  # of the directions, and last that of the gradient's element
            product = others * _parity(columns)
            for h, row in zip(directions, rows, strict=False):
                product = product * h[..., subsets[row], subsets[columns[row]]]
            place: Any = (..., subsets[rows[-1]], subsets[columns[rows[-1]]])
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
    before = np.cumprod(np.concatenate([ones, s[..., :-1]], -1), -1)
    after = np.cumprod(np.concatenate([ones, s[..., :0:-1]], -1), -1)[..., ::-1]
    return np.asarray(before * after)


def _parity(order: tuple[int, ...]) -> int:
    """Return 1 for an even permutation, -1 for an odd one."""
    return -1 if sum(a > b for a, b in combinations(order, 2)) % 2 else 1
