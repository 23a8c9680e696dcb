"""Numerical derivatives with error bars: central and one-sided differences of a function of one number.

Every estimate is a Richardson extrapolation: differences at the steps h, h/2 and h/4, extrapolated to step 0. Its error
bar adds up

- truncation: how much the extrapolations from the first two and from the last two differences differ;
- kinks: in a smooth function the second difference, divided by h, shrinks in proportion to h; what does not is a jump
  in the derivative;
- rounding: the noise measured in the function's values, divided by the step.

Larger and smaller steps are tried until one resolves the derivative; see `derivatives_at_zero`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..tensor import Array

__all__ = ["NumericalDerivatives", "derivatives_at_zero", "rounding_noise"]

STEP_RATIO = 32.0  # between the steps of two extrapolations; a power of 2, as all steps are, so that x + h is exact
ROUNDING = 30.0  # safety factor over the rounding noise that was measured
NOISY = 6.0  # errors of up to so many times the rounding noise are taken for rounding errors
UNDERFLOW = 2.0**-1070  # below, errors are no longer relative
LEAST = 2.0**-1072  # the smallest step: a quarter of it is the smallest number
RESOLVED = 1e-5  # an error below this part of the derivative is good enough
COARSE = 1e-3  # and one above that part is worth a remark
PROBES = np.array([-2.83, -1.94, -0.71, 0.38, 1.27, 2.09, 3.17])  # uneven: rounding errors of even ones can cancel out


@dataclass
class NumericalDerivatives:
    """Numerical derivatives at 0 of each component of a function."""

    value: Array  # central differences, and their error bars
    error: Array
    left: Array  # one-sided ones
    right: Array
    side_error: Array
    resolved: Array  # bool: precise enough to judge by; else there is a kink
    step: float  # that was best for most components

    def contradict(self, derived: Array) -> Array:
        """Whether derived derivatives are neither the resolved ones nor, at a kink, between the one-sided ones."""
        low = np.minimum(self.left, self.right) - self.side_error
        high = np.maximum(self.left, self.right) + self.side_error
        return np.where(self.resolved, np.abs(derived - self.value) > self.error, (derived < low) | (derived > high))

    def component_contradicts(self, k: int, derived: Array) -> Array:
        """Whether the k-th component contradicts each of several derived derivatives, as in `contradict`."""
        arrays = {name: part[[k]] for name, part in vars(self).items() if name != "step"}
        return replace(self, **arrays).contradict(derived)


@dataclass
class _Extrapolation:
    """Differences at one step and its fractions, extrapolated to 0."""

    step: float
    value: Array
    error: Array
    noise: Array  # the part of the error that is rounding
    left: Array
    right: Array
    side_error: Array
    constant: Array  # bool: the function did not change at all


def rounding_noise(f: Callable[[float], Array], scale: float) -> Array:
    """Return the size of the rounding errors of `f` near 0.

    That is how far values at neighbouring points are from a straight line.
    """
    values = np.array([f(t * scale) for t in PROBES])  # (probes, components)
    if not np.isfinite(values).all() or not values.size:
        return np.zeros(values.shape[1:])
    lines = np.stack([np.ones_like(PROBES), PROBES], axis=1)
    residuals = values - lines @ (np.linalg.pinv(lines) @ values)
    return np.asarray(np.abs(residuals).max(axis=0))


def derivatives_at_zero(
    f: Callable[[float], Array],
    middle: Array,
    noise: Array,
    derived: Array,
    tolerance: Array,
    steps: tuple[float, float, float],
    count: int,
) -> NumericalDerivatives:
    """Differentiate `f` at 0.

    Parameters
    ----------
    f : callable
        A number to an array (components,); may return NaN where it is not defined.
    middle : ndarray
        ``f(0)``.
    noise : ndarray
        Size of the rounding errors in `f`.
    derived : ndarray
        The derivatives that are to be judged. Where they seem wrong, more steps are tried before they are said to be.
    tolerance : ndarray
        Rounding errors that the derived derivatives may have themselves.
    steps : tuple of 3 floats
        The one to go on with if the one to begin with is too large; the one to begin with; the largest to try. Powers
        of 2.
    count : int
        At most so many extrapolations are tried; each takes six evaluations.
    """
    tried = [_extrapolation(f, middle, noise, steps[1])]
    while len(tried) < count:
        value, error, resolved, precise = _best(tried, derived, tolerance)
        doubtful = resolved & ~(np.abs(derived - value) <= error)
        change = np.where(doubtful, np.abs(derived - value), 0.0)
        step = _next_step(tried, ~precise, change, steps)
        if step is None:
            break
        tried.append(_extrapolation(f, middle, noise, step))
        tried.sort(key=lambda one: one.step)
    value, error, resolved, _ = _best(tried, derived, tolerance)
    side_errors = np.array([one.side_error for one in tried])
    choice = side_errors.argmin(axis=0), np.arange(len(middle))
    left, right = (np.array([getattr(one, side) for one in tried])[choice] for side in ("left", "right"))
    best = np.sort([tried[k].step for k in np.argmin([one.error for one in tried], axis=0)])
    return NumericalDerivatives(value, error, left, right, side_errors[choice], resolved, float(best[len(best) // 2]))


def _extrapolation(f: Callable[[float], Array], middle: Array, noise: Array, step: float) -> _Extrapolation:
    h = np.array([1.0, 0.5, 0.25])[:, None] * step
    up, down = (np.array([f(sign * float(one)) for one in h[:, 0]]) for sign in (1.0, -1.0))
    with np.errstate(all="ignore"):
        first, second = _richardson((up - down) / (2 * h), 4)
        bends = ((up - middle) + (down - middle)) / h
        kink = np.maximum(np.abs(2 * bends[1] - bends[0]), np.abs(2 * bends[2] - bends[1]))
        largest = np.maximum(np.abs(up).max(axis=0), np.abs(down).max(axis=0))
        rounding = (ROUNDING * np.maximum(noise, np.finfo(np.float64).eps * largest) + UNDERFLOW) / step
        value = (16 * second - first) / 15
        error = np.abs(second - first) + 4 * kink + rounding  # kinks of opposite signs may hide a part of each other
        sides, side_errors = [], []
        for slopes in ((middle - down) / h, (up - middle) / h):
            early, late = _richardson(slopes, 2)
            sides.append((4 * late - early) / 3)
            side_errors.append(np.abs(late - early) + rounding)
        known = np.isfinite(error) & np.isfinite(value)
        sides_known = np.isfinite(side_errors).all(axis=0) & np.isfinite(sides).all(axis=0)
    return _Extrapolation(
        step,
        value=np.where(known, value, 0.0),
        error=np.where(known, error, np.inf),
        noise=np.where(known, rounding, 0.0),
        left=np.where(sides_known, sides[0], 0.0),
        right=np.where(sides_known, sides[1], 0.0),
        side_error=np.where(sides_known, np.maximum(*side_errors), np.inf),
        constant=(up == middle).all(axis=0) & (down == middle).all(axis=0),
    )


def _richardson(slopes: Array, factor: float) -> tuple[Array, Array]:
    """Remove the leading error of slopes at h, h/2, h/4, which halving the step divides by `factor`."""
    return (factor * slopes[1] - slopes[0]) / (factor - 1), (factor * slopes[2] - slopes[1]) / (factor - 1)


def _next_step(
    tried: list[_Extrapolation], imprecise: Array, change: Array, steps: tuple[float, float, float]
) -> float | None:
    """Return a step that may be more precise, or None. `tried` is sorted by step.

    `change` is the error of the derived derivatives where they seem wrong, else 0.
    """
    noisy = np.array([one.error < NOISY * one.noise for one in tried]) & imprecise  # (extrapolations, components)
    rough = imprecise & ~noisy
    smallest, biggest = tried[0], tried[-1]
    small, first, largest = steps
    doubtful = rough[0] | (change > 4 * STEP_RATIO * smallest.noise)  # there, a kink that was stepped over would show
    if doubtful.any() and smallest.step > LEAST:
        return max(min(small if smallest.step == first else first, smallest.step / STEP_RATIO), LEAST)
    hidden = (noisy[-1] & ~biggest.constant).any() or (change.any() and biggest.step == first)
    if hidden and biggest.step < largest:
        return min(biggest.step * STEP_RATIO, largest)
    for lower, upper, noisy_below, rough_above in zip(tried, tried[1:], noisy, rough[1:], strict=False):
        if (noisy_below & rough_above).any() and upper.step > 4 * lower.step:
            return float(np.ldexp(1.0, round((np.log2(lower.step) + np.log2(upper.step)) / 2)))
    return None


def _best(tried: list[_Extrapolation], derived: Array, tolerance: Array) -> tuple[Array, Array, Array, Array]:
    """Pick the most precise extrapolation for each component, unless smaller steps contradict it.

    `tried` is sorted by step. Returns value, error, whether that is good enough to judge by (there is no kink), and
    whether it is as good as one could wish.
    """
    values, errors, noises, constants = (
        np.array([getattr(one, name) for one in tried]) for name in ("value", "error", "noise", "constant")
    )  # (extrapolations, components)
    for k in range(len(tried) - 1, 0, -1):  # smaller steps are right, if only within their larger errors
        contradicted = np.abs(values[:k] - values[k]) > np.minimum(errors[:k], np.finfo(np.float64).max) + errors[k]
        errors[k] = np.where(contradicted.any(axis=0), np.inf, errors[k])
    choice = errors.argmin(axis=0)
    picked = choice, np.arange(values.shape[1])
    smaller = np.arange(len(tried))[:, None] < choice
    value, error = values[picked], errors[picked] + tolerance
    kinked = (smaller & (errors > np.maximum(NOISY * noises, 4 * error))).any(axis=0)  # a kink was stepped over
    size = np.maximum(np.abs(value), np.abs(derived))
    precise = (constants[picked] & (np.abs(derived) <= error)) | (error <= RESOLVED * size)
    noisy, steps = errors < NOISY * noises, np.array([one.step for one in tried])
    below = np.maximum(choice - 1, 0)  # rounding allows no better step; at a kink, it would
    limited = noisy[picked] | (noisy[below, picked[1]] & (steps[choice] <= 8 * steps[below]))
    resolved = ~kinked & (precise | limited | (len(tried) > 1) & (error <= COARSE * size))
    return value, error, resolved, precise & ~kinked
