"""How large the entries of an array are, and random numbers to perturb them with."""

from __future__ import annotations

import numpy as np

from ..tensor import Array

__all__ = ["draw_signed", "magnitudes", "norm", "own_magnitudes"]


def magnitudes(x: Array) -> Array:
    """Return the size of each entry as a power of 2: its own or, if that is larger, the median of the others."""
    sizes = np.abs(x)
    median = np.median(sizes[sizes > 0]) if sizes.any() else 1.0
    return np.asarray(2.0 ** np.floor(np.log2(np.maximum(sizes, median))))


def own_magnitudes(x: Array) -> Array:
    """Return the size of each entry, also of those that are much smaller than others."""
    return np.where(x, np.abs(x), magnitudes(x))


def draw_signed(rng: np.random.Generator, shape: tuple[int, ...], parts: int = 2**40) -> Array:
    """Draw numbers of either sign, from 0.5 to 1 in size.

    They are multiples of ``1 / parts``: with few parts, adding them to inputs is mostly exact.
    """
    return np.asarray(rng.integers(parts // 2, parts, shape) / parts * rng.choice([-1.0, 1.0], shape))


def norm(a: Array) -> float:
    """Return the root of the sum of squares of what is finite, without overflow."""
    sizes = np.abs(a[np.isfinite(a)], dtype=np.float64)
    largest = float(sizes.max(initial=0.0))
    return largest * float(np.linalg.norm(sizes / largest)) if largest else 0.0
