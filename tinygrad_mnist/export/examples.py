"""Other values and other numbers of rows than those of an example, on which a function is recorded again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tensor import Array

__all__ = ["other_values", "with_rows"]

WILD = 1000.0  # how large some of the other values are: a comparison that NumPy has made comes out another way


def with_rows(array: Array, rows: int) -> Array:
    """Return the first rows of an array, repeated if there are not so many."""
    return np.array(array[np.arange(rows) % len(array)])


def other_values(array: Array, rng: np.random.Generator, wild: bool = True) -> Array:
    """Return other values of the same shape and dtype.

    Floats are drawn anew, of both signs, and, if `wild`, some of them are large; else they are rows of the array, mixed
    in random shares, so that what holds for each row, such as a range, usually holds for them, too. Pixels (uint8) are
    drawn anew. Other integers, which may be indices, and booleans are those of the array in another order; where all
    are equal, 0 and 1.
    """
    kind = array.dtype.kind
    if kind == "f" and wild:
        drawn = rng.normal(array.mean() if array.size and np.isfinite(array).all() else 0.0, 1.0, array.shape)
        return np.asarray(np.where(rng.random(array.shape) < 0.2, drawn * WILD, drawn), array.dtype)
    if kind == "f":
        if array.ndim == 0 or not len(array) or (array == array[:1]).all():
            return np.asarray(array * rng.uniform(0.5, 1.0), array.dtype)
        shares = rng.dirichlet(np.ones(len(array)), len(array))
        return np.asarray(np.tensordot(shares, array, 1), array.dtype)
    if array.dtype == np.uint8:
        return rng.integers(0, 256, array.shape, np.uint8)
    if array.size and (array == array.flat[0]).all():
        return rng.integers(0, 2, array.shape).astype(array.dtype)
    return np.asarray(rng.permuted(array.ravel()).reshape(array.shape), array.dtype)


def sizes(examples: Sequence[Array]) -> tuple[int, int, int]:
    """Return three numbers of rows, none of them 1, to record a function with."""
    rows = min(len(examples[0]), 8) if examples else 3
    rows = 3 if rows < 2 else rows
    return rows, rows + 1, rows + 3
