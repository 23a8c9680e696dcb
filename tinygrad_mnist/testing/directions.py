"""Directions in which inputs are varied, and the derivatives that the derived gradients give along them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..tensor import Array
from .derived import DerivedGradients
from .differences import rounding_noise
from .magnitudes import draw_signed, magnitudes, norm, own_magnitudes, power_of_2
from .point import Point, place

__all__ = [
    "Direction",
    "Steps",
    "Variation",
    "derivatives_along",
    "is_single_entry",
    "large_inputs",
    "output_noise",
    "outputs_along",
    "summation_error",
    "tied_variation",
    "tolerances_along",
    "variations",
]

ENTRIES = 64  # up to so many entries of an input each is varied on its own; beyond, random directions are
TOTAL = 512  # up to so many entries of all inputs together
FEW = 8  # with more than that in all, only inputs of so many
COST = 40_000.0  # entries times operations, with which a check of each entry takes seconds
DIRECTIONS = 16  # for all larger inputs together, and half as many single entries of them
PROBE = 2.0**-40  # how far rounding errors are looked for

Direction: TypeAlias = "list[tuple[int, Any]]"  # (position of an input, an array or the index of a single entry)
Steps: TypeAlias = "tuple[float, float, float]"  # as `derivatives_at_zero` takes them


class Variation(NamedTuple):
    """A direction with names for messages, and the steps to take along it."""

    direction: Direction
    name: str  # of the input
    where: str  # in it
    steps: Steps


def variations(point: Point, derived: DerivedGradients) -> Iterator[Variation]:
    """Yield what to vary: entry by entry, and large inputs in random directions and at some single entries."""
    large, first = large_inputs(point), point.first_step
    for i in large if len(large) <= FEW else ():
        equal = np.full(point.values[i].shape, magnitudes(point.values[i]).min())  # entries that tie go on tying
        yield Variation([(i, equal)], point.input_names[i], " as a whole", (first, first, 0.25))
    for number in range(-(-DIRECTIONS // len(large)) if large else 0):
        for i in large:
            x = point.values[i]
            direction = magnitudes(x) * draw_signed(point.rng, x.shape, 16)
            where = f" in random direction {number}"
            yield Variation([(i, direction)], point.input_names[i], where, (first, first, 0.25))
    singles = DIRECTIONS // (2 * len(large)) if large else 0
    for k, i in enumerate(point.active):
        x, sizes = point.values[i], magnitudes(point.values[i])
        if i in large:
            steepness = np.abs(derived.rows[0][k]).ravel()
            flattest, steepest = np.where(steepness > 0, steepness, np.inf).argmin(), steepness.argmax()
            entries = [int(flattest), int(steepest), *point.rng.permutation(x.size)[:singles]]
            chosen = [np.unravel_index(n, x.shape) for n in entries[:singles]]
        else:
            chosen = list(np.ndindex(x.shape))
        for index in chosen:
            size = float(sizes[index])
            own = float(power_of_2(abs(x[index]))) if x[index] else size
            least = 4 * float(np.spacing(abs(x[index])))  # a quarter of it still changes the entry, exactly
            steps = (max(first * own, least), max(first * size, least), max(size, 1.0) / 4)
            yield Variation([(i, index)], point.input_names[i], place(index), steps)


def tied_variation(point: Point, directions: list[Direction]) -> Variation:
    """Return the variation of all these single entries by the same amount."""
    smallest = min(float(magnitudes(point.values[i])[index]) for ((i, index),) in directions)
    together = {i: np.zeros_like(point.values[i]) for ((i, _),) in directions}
    for ((i, index),) in directions:
        together[i][index] = 1.0
    first = point.first_step * smallest
    return Variation(list(together.items()), f"{len(directions)} entries that tie, together", "", (first, first, 0.25))


def is_single_entry(direction: Direction) -> bool:
    """Whether a single entry is varied."""
    return isinstance(direction[0][1], tuple)


def large_inputs(point: Point) -> list[int]:
    """Return the inputs that have too many entries to vary each of them; all do where that would take too long."""
    total = sum(point.values[i].size for i in point.active)
    most = 0 if total * point.weight > COST else ENTRIES if total <= TOTAL else FEW
    return [i for i in point.active if point.values[i].size > most]


# Along a direction ----------------------------------------------------------------------------------------------------
def outputs_along(point: Point, direction: Direction, combinations: Any = slice(None)) -> Callable[[float], Array]:
    """Return combinations of outputs as a function of how far the inputs are moved along a direction."""

    def f(t: float) -> Array:
        return np.asarray(point.combine(_row_along(point, direction, t))[combinations])

    return f


def _row_along(point: Point, direction: Direction, t: float) -> Array:
    """Return all outputs where the inputs are moved by `t` along a direction."""
    values = list(point.values)
    for i, along in direction:
        if isinstance(along, tuple):
            values[i] = values[i].copy()
            values[i][along] += t
        else:
            values[i] = np.asarray(values[i] + t * along)
    return point.outputs_at(values)


def summation_error(point: Point, variation: Variation, combination: Array) -> float:
    """Return how far rounding may change the derivative of a combination of outputs, which is a sum of derivatives.

    These may cancel each other, and outputs may be 0, so that neither the sum nor the outputs show how large they are.
    """
    _, step, _ = variation.steps
    changes = combination * (_row_along(point, variation.direction, step) - point.row)
    return 32 * point.eps * norm(changes / step)


def derivatives_along(point: Point, direction: Direction, rows: list[list[Array]]) -> Array:
    """Return the derivative along a direction that each of the derived gradients gives."""

    def along(gradients: list[Array]) -> float:
        parts = [gradients[point.active.index(i)] for i, _ in direction]
        return sum(
            float(part[d] if isinstance(d, tuple) else np.sum(part * d))
            for part, (_, d) in zip(parts, direction, strict=True)
        )

    return np.array([along(gradients) for gradients in rows])


def tolerances_along(point: Point, direction: Direction, derived: DerivedGradients) -> Array:
    """Return how far rounding errors may change the derived derivatives along a direction.

    As much as the outputs, relative to the inputs.
    """
    speeds = [
        1 / own_magnitudes(point.values[i][d]) if isinstance(d, tuple) else np.abs(d) / own_magnitudes(point.values[i])
        for i, d in direction
    ]
    fastest = min(max(float(np.max(speed, initial=0.0)) for speed in speeds), np.finfo(np.float64).max)
    return 32 * np.array(derived.rounding_errors) * fastest


def output_noise(point: Point, derived: DerivedGradients) -> Array:
    """Return the size of the rounding errors in each combination of the outputs."""
    scales = {i: own_magnitudes(point.values[i]) * draw_signed(point.rng, point.values[i].shape) for i in point.active}
    measured = rounding_noise(outputs_along(point, list(scales.items())), PROBE)
    expected = np.array(derived.rounding_errors)
    return np.asarray(np.clip(measured, expected, 1e4 * expected))  # more than that is a jump
