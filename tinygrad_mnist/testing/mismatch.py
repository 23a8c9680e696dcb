"""The error that says that a derivative is wrong."""

from __future__ import annotations

import numpy as np

from ..tensor import Array

__all__ = ["GradientMismatch", "OutOfRange", "first_nonfinite"]


class GradientMismatch(AssertionError):  # noqa: N818  # the name is part of the public contract
    """A derivative is wrong. The message says which one, by how much, and how to see it again.

    Attributes
    ----------
    inputs : tuple of ndarray
        The arrays that were checked.
    order : int
        The order of the wrong derivative.
    seed : int
        What `check_gradients` needs as `rng` to draw the same cotangents and directions.
    """

    inputs: tuple[Array, ...] = ()
    order: int = 1
    seed: int = 0


class OutOfRange(Exception):  # noqa: N818  # no error: it ends a comparison, and is reported as a note
    """Numbers that are to be compared overflow, though there may be nothing wrong with them."""


def first_nonfinite(array: Array) -> str:
    """Name the first number that is not finite, and its place."""
    index = tuple(int(n) for n in np.argwhere(~np.isfinite(array))[0])
    return f"{array[index]} at {list(index)}" if index else f"{array}"
