"""Other values and other numbers of rows than those of an example, on which a function is recorded again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tensor import Array

__all__ = ["other_values", "sizes", "unusual_sizes", "with_rows"]

MANY = 67  # rows: more than a function may compute at once, or may treat in another way
VALUES = 500_000  # at most so many in the inputs of these rows
WILD = 1000.0  # how large some of the other values are: a comparison that NumPy has made comes out another way


def with_rows(array: Array, rows: int, start: int) -> Array:
    """Return so many rows of an array from one on; after the last one the first one follows."""
    return np.array(array[np.arange(start, start + rows) % len(array)])


def other_values(array: Array, rng: np.random.Generator, kind: str) -> Array:
    """Return other values of the same shape and dtype.

    Parameters
    ----------
    array : ndarray
    rng : numpy.random.Generator
    kind : {"wild", "random", "mixed"}
        How floats are drawn: of both signs and some of them large; of both signs; or rows of the array, mixed in random
        shares, so that what holds for each row, such as a range, usually holds for them, too. Pixels (uint8) are drawn
        anew, or mixed. Other integers, which may be indices, and booleans are those of the array without the largest,
        so that it is noticed where that decides on a shape, or (mixed) in another order; where all are equal, 0 and 1.
    """
    rows = len(array) if array.ndim else 0
    if array.dtype.kind == "f" or array.dtype == np.uint8:
        if kind == "mixed" and rows > 1 and not (array == array[:1]).all():
            shares = rng.dirichlet(np.full(rows, 0.2), rows)
            return np.asarray(np.tensordot(shares, array, 1), array.dtype)
        if array.dtype == np.uint8:
            return rng.integers(0, 256, array.shape, np.uint8)
        if kind == "mixed":
            return np.asarray(array * rng.uniform(0.5, 1.0), array.dtype)
        drawn = rng.normal(0.0, 1.0, array.shape)
        if kind == "wild":
            drawn[rng.random(array.shape) < 0.2] *= WILD
        return np.asarray(drawn, array.dtype)
    if array.size and (array == array.flat[0]).all():
        return rng.integers(0, 2, array.shape).astype(array.dtype)
    if kind != "mixed" and array.size:
        return rng.choice(np.unique(array)[:-1], array.shape)
    return np.asarray(rng.permuted(array.ravel()).reshape(array.shape), array.dtype)


def sizes(examples: Sequence[Array]) -> tuple[int, int, int]:
    """Return three numbers of rows, none of them 1, to record a function with."""
    rows = min(len(examples[0]), 8)
    rows = 3 if rows < 2 else rows
    return rows, rows + 1, rows + 3


def unusual_sizes(examples: Sequence[Array], usual: Sequence[int]) -> list[int]:
    """Return the smallest numbers of rows and a large one: what is true of others may not be true of them."""
    each = sum(array.size // len(array) for array in examples)
    many = min(MANY, VALUES // max(each, 1))
    found = [1]
    if usual[0] != 2:
        found.append(2)
    if many > max(usual):
        found.append(many)
    return found
