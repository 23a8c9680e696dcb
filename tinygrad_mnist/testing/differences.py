"""Numerical derivatives with an honest error: central and one-sided differences of a vector-valued function of one
number.

Every estimate comes from a *ladder*: differences at a step h, h/2 and h/4, extrapolated to step 0 (Richardson). Its
error bar adds up

- truncation: how much the extrapolations from the first two and from the last two rungs differ; - kinks: in a smooth
function the second difference, divided by h, shrinks in proportion to h; what does not is a jump in the slope; -
rounding: the noise seen in the function's values, divided by the step.

Ladders are set up at larger and smaller steps until one resolves the derivative; see `slopes_at_zero`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..tensor import Array

__all__ = ["Slopes", "rounding_noise", "slopes_at_zero"]

ZOOM = 32.0  # between one ladder's step and the next one's; a power of 2, as all steps are, so that x + h is exact
ROUNDING = 30.0  # safety factor over the rounding noise that was seen
NOISY = 6.0  # errors of up to so many times the rounding are but rounding
UNDERFLOW = 2.0**-1000  # where results fade away, their errors are no longer relative
RESOLVED = 1e-5  # an error below this part of the derivative is good enough
COARSE = 1e-3  # and one above that part is worth a remark
PROBES = np.array(
    [-2.83, -1.94, -0.71, 0.38, 1.27, 2.09, 3.17]
)  # unevenly spaced: rounding errors of even ones can cancel out


@dataclass
class Slopes:
    """Derivatives at 0 of each component of a function, beside the claimed ones."""

    value: Array  # central differences, and their error bars
    error: Array
    left: Array  # one-sided ones
    right: Array
    side_error: Array
    resolved: Array  # bool: precise enough to judge by; else there is a kink
    step: float  # that was best for most components

    def wrong_for(self, claimed: Array, k: int) -> Array:
        """Whether these are neither the derivative of the k-th component nor between its one-sided ones."""
        value, error, left, right, side_error, resolved = (
            part[[k]] for part in (self.value, self.error, self.left, self.right, self.side_error, self.resolved)
        )
        return Slopes(value, error, left, right, side_error, resolved, self.step).wrong(claimed)

    def wrong(self, claimed: Array) -> Array:
        """Whether the claimed derivatives are neither the resolved ones nor, at a kink, between the one-sided ones."""
        low = np.minimum(self.left, self.right) - self.side_error
        high = np.maximum(self.left, self.right) + self.side_error
        return np.where(self.resolved, np.abs(claimed - self.value) > self.error, (claimed < low) | (claimed > high))


@dataclass
class _Ladder:
    step: float
    value: Array
    error: Array
    noise: Array  # the part of the error that is rounding
    left: Array
    right: Array
    side_error: Array
    still: Array  # bool: the function did not change at all


def rounding_noise(f: Callable[[float], Array], scale: float) -> Array:
    """Return the size of the rounding errors of `f` near 0.

    What bends a line through points that are next to each other.
    """
    near = np.array([f(t * scale) for t in PROBES])  # (probes, components)
    if not np.isfinite(near).all() or not near.size:
        return np.zeros(near.shape[1:])
    lines = np.stack([np.ones_like(PROBES), PROBES], axis=1)
    bends = near - lines @ (np.linalg.pinv(lines) @ near)
    return np.asarray(np.abs(bends).max(axis=0))


def slopes_at_zero(
    f: Callable[[float], Array],
    middle: Array,
    noise: Array,
    claimed: Array,
    slack: Array,
    steps: tuple[float, float, float],
    ladders: int,
) -> Slopes:
    """Differentiate `f` at 0.

    Parameters
    ----------
    f : callable
        A number to an array (components,); may return nan where it is not defined.
    middle : ndarray
        ``f(0)``.
    noise : ndarray
        Size of the rounding errors in `f`.
    claimed : ndarray
        The derivatives that are to be judged. Where they seem wrong, more ladders are tried before they are said to be.
    slack : ndarray
        Rounding errors that the claimed derivatives may have themselves.
    steps : tuple of 3 floats
        The one to go on with if the one to begin with is too large; the one to begin with; the largest to try. Powers
        of 2.
    ladders : int
        At most so many are tried; each takes six evaluations.
    """
    tried = [_ladder(f, middle, noise, steps[1])]
    while len(tried) < ladders:
        value, error, resolved, precise = _best(tried, claimed, slack)
        doubtful = resolved & ~(np.abs(claimed - value) <= error)
        change = np.where(doubtful, np.abs(claimed - value), 0.0)
        step = _next(tried, ~precise, change, steps)
        if step is None:
            break
        tried.append(_ladder(f, middle, noise, step))
        tried.sort(key=lambda ladder: ladder.step)
    value, error, resolved, _ = _best(tried, claimed, slack)
    side_errors = np.array([ladder.side_error for ladder in tried])
    choice = side_errors.argmin(axis=0), np.arange(len(middle))
    left, right = (np.array([getattr(ladder, side) for ladder in tried])[choice] for side in ("left", "right"))
    best = np.sort([tried[k].step for k in np.argmin([ladder.error for ladder in tried], axis=0)])
    return Slopes(value, error, left, right, side_errors[choice], resolved, float(best[len(best) // 2]))


def _ladder(f: Callable[[float], Array], middle: Array, noise: Array, step: float) -> _Ladder:
    rungs = np.array([1.0, 0.5, 0.25])[:, None] * step
    up, down = (np.array([f(sign * float(h)) for h in rungs[:, 0]]) for sign in (1.0, -1.0))
    with np.errstate(all="ignore"):
        first, second = _extrapolated((up - down) / (2 * rungs), 4)
        bends = (up + down - 2 * middle) / rungs
        kink = np.maximum(np.abs(2 * bends[1] - bends[0]), np.abs(2 * bends[2] - bends[1]))
        rounding = (
            ROUNDING
            * np.maximum(noise, np.finfo(np.float64).eps * np.maximum(np.abs(up).max(axis=0), np.abs(down).max(axis=0)))
            + UNDERFLOW
        ) / step
        value = (16 * second - first) / 15
        error = np.abs(second - first) + 4 * kink + rounding  # kinks of opposite signs may hide a part of each other
        sides, side_errors = [], []
        for slopes in ((middle - down) / rungs, (up - middle) / rungs):
            early, late = _extrapolated(slopes, 2)
            sides.append((4 * late - early) / 3)
            side_errors.append(np.abs(late - early) + rounding)
        known = np.isfinite(error)
        sides_known = np.isfinite(side_errors).all(axis=0) & np.isfinite(sides).all(axis=0)
    return _Ladder(
        step,
        np.where(known, value, 0.0),
        np.where(known, error, np.inf),
        np.where(known, rounding, 0.0),
        np.where(sides_known, sides[0], 0.0),
        np.where(sides_known, sides[1], 0.0),
        np.where(sides_known, np.maximum(*side_errors), np.inf),
        (up == middle).all(axis=0) & (down == middle).all(axis=0),
    )


def _extrapolated(slopes: Array, factor: float) -> tuple[Array, Array]:
    """Remove the leading error of slopes at h, h/2, h/4, which halving the step divides by `factor`."""
    return (factor * slopes[1] - slopes[0]) / (factor - 1), (factor * slopes[2] - slopes[1]) / (factor - 1)


def _next(tried: list[_Ladder], imprecise: Array, change: Array, steps: tuple[float, float, float]) -> float | None:
    """Return the step of another ladder that may tell more, or None. `tried` is sorted by step.

    `change` is the error of the claimed derivatives where they seem wrong, else 0.
    """
    noisy = np.array([ladder.error < NOISY * ladder.noise for ladder in tried]) & imprecise  # (ladders, components)
    rough = imprecise & ~noisy
    smallest, biggest = tried[0], tried[-1]
    small, first, largest = steps
    if (rough[0] | (change > 4 * ZOOM * smallest.noise)).any():  # there, a kink that was stepped over would show
        return min(small, smallest.step / ZOOM) if smallest.step == first else smallest.step / ZOOM
    if ((noisy[-1] & ~biggest.still).any() or (change.any() and biggest.step == first)) and biggest.step < largest:
        return min(biggest.step * ZOOM, largest)
    for lower, upper, drowned, bent in zip(
        tried, tried[1:], noisy, rough[1:], strict=False
    ):  # rounding hides it below, curvature above
        if (drowned & bent).any() and upper.step > 4 * lower.step:
            return float(2.0 ** round(np.log2(lower.step * upper.step) / 2))
    return None


def _best(tried: list[_Ladder], claimed: Array, slack: Array) -> tuple[Array, Array, Array, Array]:
    """Pick the most precise ladder for each component, unless smaller steps contradict it. `tried` is sorted by step.

    Returns value, error, whether that is good enough to judge by (there is no kink), and whether it is as good as one
    could wish.
    """
    values, errors, roundings, stills = (
        np.array([getattr(ladder, name) for ladder in tried]) for name in ("value", "error", "noise", "still")
    )  # (ladders, components)
    for k in range(len(tried) - 1, 0, -1):  # smaller steps are right, if only within their larger errors
        contradicted = np.abs(values[:k] - values[k]) > np.minimum(errors[:k], np.finfo(np.float64).max) + errors[k]
        errors[k] = np.where(contradicted.any(axis=0), np.inf, errors[k])
    choice = errors.argmin(axis=0)
    picked = choice, np.arange(values.shape[1])
    smaller = np.arange(len(tried))[:, None] < choice
    value, error = values[picked], errors[picked] + slack
    jagged = (smaller & (errors > np.maximum(NOISY * roundings, 4 * error))).any(axis=0)  # a kink was stepped over
    size = np.maximum(np.abs(value), np.abs(claimed))
    precise = (stills[picked] & (np.abs(claimed) <= error)) | (error <= RESOLVED * size)
    noisy, steps = errors < NOISY * roundings, np.array([ladder.step for ladder in tried])
    below = np.maximum(choice - 1, 0)
    limited = noisy[picked] | (
        noisy[below, picked[1]] & (steps[choice] <= 8 * steps[below])
    )  # rounding allows no better step; at a kink, it would
    resolved = ~jagged & (precise | limited | (len(tried) > 1) & (error <= COARSE * size))
    return value, error, resolved, precise & ~jagged
