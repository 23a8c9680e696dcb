"""Compare the derived gradients at one point with finite differences, and say what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..tensor import Array
from .derived import DerivedGradients, gradients_near
from .differences import NumericalDerivatives, derivatives_at_zero
from .directions import (
    Direction,
    Variation,
    derivatives_along,
    is_single_entry,
    large_inputs,
    output_noise,
    outputs_along,
    summation_error,
    tied_variation,
    tolerances_along,
    variations,
)
from .magnitudes import magnitudes, norm
from .mismatch import GradientMismatch
from .point import Point

__all__ = ["Comparison"]

EXTRAPOLATIONS = 9  # to try for one derivative; half as many for functions of many entries
NEGLIGIBLE = 1e-6  # smaller errors, relative to the largest derivative by an input, are not reported as kinks
TINY = 1e-9  # nor are these, relative to the outputs
ENOUGH = 3  # directions with kinks in such a function, before it is compared a little way off instead
JUMP = 1e5  # changes are more than rounding if they are so many times as large
DISTANCES = tuple(2.0**-n for n in range(20, 37, 4))  # at which gradients are compared with those at the point itself
MEANINGS = {
    -1.0: "the sign is wrong",
    0.0: "no gradient arrives: a rule is None, or something is cut off by .data, .detach() or no_grad()",
}


class Mistake(NamedTuple):
    """A derivative that is wrong."""

    score: float  # how many error bars off
    output: str
    by: str  # what was varied
    derived: float
    numerical: float
    error: float
    sides: str  # one-sided derivatives, where there is a kink
    right_nearby: bool  # the derivative is right next to this point
    single_output: bool  # one output, not a mixture: easier to understand


class Comparison:
    """All derivatives at a point, compared with finite differences.

    Where there are kinks in most directions, few of them will do unless `thorough`: it is better to compare a little
    way off.

    Attributes
    ----------
    derived : DerivedGradients
        What backward derives at the point.
    notes : list of str
        Where kinks leave something open.
    compared : int
        Number of derivatives that were compared.

    Raises
    ------
    GradientMismatch
        If a derivative is wrong.
    """

    def __init__(self, point: Point, thorough: bool = False) -> None:
        self.point, self.thorough, self.large = point, thorough, large_inputs(point)
        self.notes: list[str] = []
        self.mistakes: list[Mistake] = []
        self.kinks: dict[int, list[Direction]] = {}  # combination -> single entries of inputs at which it has a kink
        self.near: dict[tuple[int, float], list[list[Array]]] = {}  # (combination, distance) -> gradients nearby
        self.count: Counter[str] = Counter()
        self.derived = DerivedGradients(point)
        if len(point.combinations):  # there are outputs
            self.noise, self.middle = output_noise(point, self.derived), point.combine(point.row)
            self._compare_all_directions()
            self._compare_tied_entries()
        if self.mistakes or self.notes:
            point.check_repeatable()
        if len(point.singles) == point.row.size and not any(m.single_output for m in self.mistakes):
            self.mistakes = []  # backward is linear, and all that is mixed is right: rounding in a mixture misleads
        if self.mistakes:
            raise GradientMismatch(self._diagnosis())

    @property
    def compared(self) -> int:
        """Number of derivatives that were compared."""
        return sum(self.count.values())

    def _compare_all_directions(self) -> None:
        step: float | None = None  # what was best in one direction will do for the next
        above_noise = False  # whether any derivative stands out from rounding errors
        singles = len(self.point.singles)
        for variation in variations(self.point, self.derived):
            entry = is_single_entry(variation.direction)
            if step is not None and not entry:
                variation = variation._replace(steps=(step, step, variation.steps[2]))
            derived, tolerance, numerical = self._differentiate(variation, np.arange(len(self.middle)))
            step = step if entry else numerical.step
            self.count[variation.name] += len(derived)
            outside = numerical.contradict(derived)
            precise = (np.abs(derived) <= tolerance) | (numerical.error < np.abs(derived) / 2)
            above_noise |= bool(precise.any())
            doubtful = outside | ~numerical.resolved
            if doubtful.any():
                difference = np.abs(derived - numerical.value) + numerical.error - tolerance
                doubtful &= outside | ~(difference <= self._negligible(variation.direction))
            for r in np.flatnonzero(doubtful).tolist():
                self._judge(r, variation, derived[r], tolerance[r], numerical, r)
            if self.large and len(self.notes) >= ENOUGH * singles and not self.thorough:
                break
        if not above_noise and self.count:
            self.notes.append("rounding errors hide all derivatives")

    def _negligible(self, direction: Direction) -> Array:
        """Return how small an error of each combination's derivative is negligible.

        That is, relative to the parts that make up the derivative, or to the outputs where the input is of size 1.
        """
        ((i, d),) = direction
        k, entry = self.point.active.index(i), isinstance(d, tuple)
        parts = [float(np.abs(row[k]).max()) if entry else norm(row[k] * d) for row in self.derived.rows]
        size = float(magnitudes(self.point.values[i])[d]) if entry else 1.0
        outputs = [norm(combination * self.point.row) for combination in self.point.combinations]
        return np.maximum(NEGLIGIBLE * np.array(parts), TINY * np.array(outputs) / size)

    def _compare_tied_entries(self) -> None:
        """Vary entries that tie together: there is no kink then, and a gradient given to all of them is too large."""
        for r, directions in self.kinks.items():
            if len(directions) > 1 and not self.mistakes:
                variation = tied_variation(self.point, directions)
                derived, tolerance, numerical = self._differentiate(variation, np.array([r]))
                parts = [abs(derivatives_along(self.point, one, [self.derived.rows[r]])[0]) for one in directions]
                numerical.error += 1e3 * self.point.eps * max(parts)  # which may cancel each other
                if numerical.resolved[0] and numerical.contradict(derived)[0]:
                    self._judge(r, variation, derived[0], tolerance[0], numerical, 0)

    def _differentiate(self, variation: Variation, rows: Array) -> tuple[Array, Array, NumericalDerivatives]:
        """Return the derived derivatives of combinations of outputs, their rounding errors, and the numerical ones."""
        point, direction = self.point, variation.direction
        derived = derivatives_along(point, direction, [self.derived.rows[r] for r in rows])
        tolerance = tolerances_along(point, direction, self.derived)[rows]
        f, extrapolations = outputs_along(point, direction, rows), EXTRAPOLATIONS // 2 if self.large else EXTRAPOLATIONS
        numerical = derivatives_at_zero(
            f, self.middle[rows], self.noise[rows], derived, tolerance, variation.steps, extrapolations
        )
        return derived, tolerance, numerical

    def _judge(
        self, r: int, variation: Variation, derived: float, tolerance: float, numerical: NumericalDerivatives, k: int
    ) -> None:
        """Distinguish a mistake from a kink, next to which there are several gradients: the derived one is one of them.

        At a kink the derived derivative should lie between the one-sided ones. But where kinks of opposite signs meet,
        as in a mixture of outputs, those may agree with each other and not with it; then it is enough that it is not
        far from those next to the kink.
        """
        direction, by = variation.direction, variation.name + variation.where
        factor, output = self.point.output_of(r)
        single_output, entry = r < len(self.point.singles), is_single_entry(direction)
        resolved = bool(numerical.resolved[k])
        outside = bool(numerical.component_contradicts(k, np.array([derived]))[0])
        low, high = sorted((numerical.left[k] / factor, numerical.right[k] / factor))
        sides = (
            f"one-sided derivatives {low + 0.0:.6g} and {high + 0.0:.6g}"
            if np.isfinite(numerical.side_error[k])
            else "not defined on both sides"
        )
        change = abs(derived - numerical.value[k])
        if outside and resolved and not single_output:
            sum_error = summation_error(self.point, variation, self.point.combinations[r])
            if change <= sum_error:
                return
        if outside and (resolved or (single_output and entry)):
            if resolved:  # so near that only a kink could change the gradient by so much
                limit = change / (1024 * max(abs(derived), change))
                distances = [next((distance for distance in DISTANCES if distance < limit), DISTANCES[-1])]
            else:
                distances = list(DISTANCES)
            near = derivatives_along(self.point, direction, self._gradients_near(r, distances))
            spread = float(np.ptp(near))
            off = max(near.min() - derived, derived - near.max(), 0.0)
            if resolved:
                mistaken = spread < change / 16 or off > 2 * spread + tolerance
            else:
                one_kink = not numerical.component_contradicts(
                    k, near
                ).any()  # then the one-sided ones are all there are
                mistaken = off > tolerance and (one_kink or off > spread / 2 + tolerance)
            right_nearby = resolved and float(np.abs(near - numerical.value[k]).max()) < change / 16
            excused = self.derived.jumps[r] or (right_nearby and self.derived.uncertain[r])
            if mistaken and not excused and not self._jumps(r, direction):
                value, error = numerical.value[k] / factor, numerical.error[k] / abs(factor)
                score, shown = change / numerical.error[k], "" if resolved else sides
                self.mistakes.append(
                    Mistake(score, output, by, derived / factor, value, error, shown, right_nearby, single_output)
                )
                return
        if single_output or len(self.point.singles) < self.point.row.size:  # else its parts have been compared
            self.notes.append(f"{output} by {by}: {sides}, derived {derived / factor + 0.0:.6g}")
        if single_output and entry:
            self.kinks.setdefault(r, []).append(direction)

    def _jumps(self, r: int, direction: Direction) -> bool:
        """Whether a combination of outputs jumps at the point, as far as numbers next to it can tell."""
        f, sizes = outputs_along(self.point, direction, np.array([r])), []
        for i, d in direction:
            least = 4 * np.spacing(np.abs(self.point.values[i][d] if isinstance(d, tuple) else self.point.values[i]))
            sizes.append(float(np.max(least if isinstance(d, tuple) else least / np.where(d, np.abs(d), np.inf))))
        far, near = (
            max(abs(float(f(sign * max(sizes) * factor)[0] - self.middle[r])) for sign in (1.0, -1.0))
            for factor in (4.0, 1.0)
        )
        size, expected = norm(self.point.combinations[r] * self.point.row), self.derived.rounding_errors[r]
        return near > 0.9 * far and near > JUMP * (self.point.eps * size if self.derived.uncertain[r] else expected)

    def _gradients_near(self, r: int, distances: Sequence[float]) -> list[list[Array]]:
        """Return gradients of a combination of outputs at points at these distances."""
        for distance in distances:
            if (r, distance) not in self.near:
                self.near[r, distance] = gradients_near(self.point, self.point.combinations[r], distance, 16)
        return [gradients for distance in distances for gradients in self.near[r, distance]]

    def _diagnosis(self) -> str:
        """Say which derivative is worst, how far off it is, and what the wrong ones have in common."""
        worst, number = max(self.mistakes, key=lambda m: (m.single_output, m.score)), len(self.mistakes)
        lines = [
            f"{worst.output} by {worst.by} is wrong",
            f"  derived:            {worst.derived + 0.0:.10g}",
            f"  finite differences: {worst.sides or f'{worst.numerical + 0.0:.10g} ± {worst.error:.2g}'}",
        ]
        ratios = np.array([m.derived / m.numerical if m.numerical else np.inf for m in self.mistakes])
        if np.isfinite(ratios).all() and not worst.sides:
            ratio = worst.derived / worst.numerical
            if np.ptp(ratios) <= 1e-3 * abs(ratio):
                meaning = next((f": {text}" for factor, text in MEANINGS.items() if abs(ratio - factor) < 1e-3), "")
                common = f" in all {number} wrong ones" if number > 1 else ""
                lines.append(f"  ratio:              {ratio:.9g}{common}{meaning}")
            else:
                lines.append(
                    f"  ratio:              {ratio:.9g}; from {ratios.min():.4g} to {ratios.max():.4g} in {number} "
                    "wrong ones"
                )
        if worst.right_nearby:
            lines.append(
                "  hint:               next to this point it is right: a rule is wrong just here, or kinks cancel each "
                "other"
            )
        wrong = Counter(
            next(name for name in self.count if m.by.startswith(name))
            for m in self.mistakes
            if not m.by[0].isdigit()  # entries that tie
        )
        if wrong:
            shares = [f"{wrong[name]} of {total} by {name}" for name, total in self.count.items() if wrong[name]]
            lines.append(f"  wrong:              {', '.join(shares)}")
        return "\n".join(lines)
