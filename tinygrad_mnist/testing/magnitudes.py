"""How large the entries of an array are, and random numbers to perturb them with."""

from __future__ import annotations

import numpy as np

from ..tensor import Array

__all__ = ["draw_signed", "magnitudes", "norm", "own_magnitudes", "power_of_2"]


PROPORTION = 2.0**-300
HUGE = 2.0**30
LARGEST = float(np.finfo(np.float64).max)


def power_of_2(x: Array) -> Array:
    """Return the largest power of 2 that is not larger than a positive number, exactly, be it subnormal or huge."""
    return np.asarray(np.ldexp(1.0, np.frexp(x)[1] - 1))


def magnitudes(x: Array) -> Array:
    """Return the size of each entry as a power of 2: its own or, if that is larger, the median of the others.

    A median that is out of all proportion, to 1 for zeros, does not count.
    """
    sizes = np.abs(x)
    median = min(float(np.median(sizes[sizes > 0])), LARGEST) if sizes.any() else 1.0
    own = np.where(sizes > 0, sizes, min(median, 1.0) if median > HUGE else median)
    return power_of_2(np.where(own < median * PROPORTION, own, np.where(sizes > 0, np.maximum(own, median), own)))


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
    return largest * float(np.sqrt(np.square(sizes / largest).sum())) if largest else 0.0
