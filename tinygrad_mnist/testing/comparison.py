"""Hold the derived gradients at one point against finite differences, and say what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..tensor import Array
from .differences import Slopes, slopes_at_zero
from .point import GradientMismatch, Move, Point

__all__ = ["Comparison"]

LADDERS = 9  # steps to try for one derivative; half as many for functions of many entries
MINOR = 1e-6  # errors that are so small beside the largest derivative by an input are no kinks worth a remark
ENOUGH = 3  # directions with kinks in such a function, before others are looked at beside
NEAR = tuple(
    2.0**-n for n in range(20, 37, 4)
)  # distances at which gradients are compared with those at the point itself
FACTORS = {
    -1.0: "the sign is wrong",
    0.0: "no gradient arrives: a rule is None, or something is cut off by .data, .detach() or no_grad()",
}


class Wrong(NamedTuple):
    """A derivative that is not what it should be."""

    score: float  # how many error bars off
    output: str
    move: str
    derived: float
    numerical: float
    error: float
    sides: str  # one-sided derivatives, where there is a kink
    isolated: bool  # the derivative is right next to this point
    alone: bool  # one output, not a mixture: easier to understand


class Comparison:
    """All derivatives at a point beside finite differences.

    Where there are kinks in most directions, few of them will do unless `thorough`: it is better to compare beside
    them.

    Attributes
    ----------
    notes : list of str
        Where kinks leave something open.
    compared : int
        Number of derivatives that were compared.
    """

    def __init__(self, point: Point, thorough: bool = False) -> None:
        self.point, self.thorough = point, thorough
        self.notes: list[str] = []
        self.wrong: list[Wrong] = []
        self.kinks: dict[int, list[Move]] = {}  # output -> single entries of inputs at which it has a kink
        self.near: dict[
            tuple[int, float], list[list[Array]]
        ] = {}  # (output, distance) -> its gradients at points next to this one
        self.count: Counter[str] = Counter()
        self.seen = False  # whether any derivative stands out from rounding errors
        point.derive()
        if len(point.weights):  # there are outputs
            self.noise, self.middle = point.noise(), point.combined(point.row)
            self.go_everywhere()
            self.go_together()
        if self.wrong or self.notes:
            point.same_again()
        if self.wrong:
            raise GradientMismatch(self.diagnosis())

    @property
    def compared(self) -> int:
        """Number of derivatives that were compared."""
        return sum(self.count.values())

    def go_everywhere(self) -> None:
        """Compare along all moves."""
        step: float | None = None  # what was best in one direction will do for the next
        for move, name, place, steps in self.point.moves():
            single = isinstance(move[0][1], tuple)
            if step is not None and not single:
                steps = step, step, steps[2]
            claimed, slack, found = self.along(move, np.arange(len(self.middle)), steps)
            step = step if single else found.step
            self.count[name] += len(claimed)
            wrong = found.wrong(claimed)
            self.seen |= bool(((np.abs(claimed) <= slack) | (found.error < np.abs(claimed) / 2)).any())
            minor = found.error <= MINOR * self.largest(move) if single else np.zeros(len(claimed), bool)
            for r in np.flatnonzero(wrong | ~(found.resolved | minor)).tolist():
                self.suspect(r, move, name + place, claimed[r], slack[r], found, r)
            if self.point.large and len(self.notes) >= ENOUGH * len(self.point.singles) and not self.thorough:
                break
        if not self.seen and self.count:
            self.notes.append("rounding errors hide all derivatives")

    def largest(self, move: Move) -> Array:
        """Return the largest derivative of each combination of outputs by any entry of the input that is moved."""
        k = self.point.active.index(move[0][0])
        return np.array([np.abs(row[k]).max() for row in self.point.derived])

    def go_together(self) -> None:
        """Move what ties together: then there is no kink, and a gradient that is given to all that tie is too large."""
        for r, moves in self.kinks.items():
            if len(moves) > 1 and not self.wrong:
                move, steps = self.point.together(moves)
                claimed, slack, found = self.along(move, np.array([r]), steps)
                if found.resolved[0] and found.wrong(claimed)[0]:
                    self.suspect(r, move, f"{len(moves)} entries that tie, together", claimed[0], slack[0], found, 0)

    def along(self, move: Move, rows: Array, steps: tuple[float, float, float]) -> tuple[Array, Array, Slopes]:
        """Return the claimed derivatives of some combinations of outputs along a move, their rounding errors, and the
        numerical ones.
        """
        point = self.point
        claimed, slack = point.claims(move, [point.derived[r] for r in rows]), point.slack(move)[rows]
        f, ladders = point.along(move, rows), LADDERS // 2 if point.large else LADDERS
        return claimed, slack, slopes_at_zero(f, self.middle[rows], self.noise[rows], claimed, slack, steps, ladders)

    def suspect(self, r: int, move: Move, name: str, claimed: float, slack: float, found: Slopes, k: int) -> None:
        """Tell a mistake from a kink: next to a kink there are several gradients, and the derived one should be about
        one of them.

        At a kink the derived derivative should lie between the one-sided ones. But where kinks of opposite signs meet,
        as in a mixture of outputs, those may agree with each other and not with it; then it is enough that it is not
        far from those next to the kink.
        """
        factor, output = self.point.described(r)
        alone, entry = r < len(self.point.singles), isinstance(move[0][1], tuple)
        resolved, outside = bool(found.resolved[k]), bool(found.wrong_for(np.array([claimed]), k)[0])
        low, high = sorted((found.left[k] / factor, found.right[k] / factor))
        sides = (
            f"one-sided derivatives {low + 0.0:.6g} and {high + 0.0:.6g}"
            if np.isfinite(found.side_error[k])
            else "not defined on both sides"
        )
        if outside and (resolved or (alone and entry)):
            change = abs(claimed - found.value[k])
            if resolved:  # so near that only a kink could change the gradient by so much
                distances = [next((by for by in NEAR if by < change / (1024 * max(abs(claimed), change))), NEAR[-1])]
            else:
                distances = list(NEAR)
            near = self.point.claims(move, self.gradients_near(r, distances))
            spread = float(np.ptp(near))
            off = max(near.min() - claimed, claimed - near.max(), 0.0)
            if resolved:
                mistaken = spread < change / 16 or off > 2 * spread + slack
            else:
                one_kink = not found.wrong_for(near, k).any()  # then the one-sided derivatives tell all
                mistaken = off > slack and (one_kink or off > spread / 2 + slack)
            if mistaken:
                value, error = found.value[k] / factor, found.error[k] / abs(factor)
                isolated = resolved and float(np.abs(near - found.value[k]).max()) < change / 16
                shown = "" if resolved else sides
                self.wrong.append(
                    Wrong(change / found.error[k], output, name, claimed / factor, value, error, shown, isolated, alone)
                )
                return
        if alone or len(self.point.singles) < self.point.row.size:  # else its parts have been looked at
            self.notes.append(f"{output} by {name}: {sides}, derived {claimed / factor + 0.0:.6g}")
        if alone and entry:
            self.kinks.setdefault(r, []).append(move)

    def gradients_near(self, r: int, distances: Sequence[float]) -> list[list[Array]]:
        """Return gradients of an output at points at these distances."""
        for by in distances:
            if (r, by) not in self.near:
                self.near[r, by] = self.point.nearby(self.point.weights[r], by, 16)
        return [gradients for by in distances for gradients in self.near[r, by]]

    def diagnosis(self) -> str:
        """Say which derivative is worst, how far off it is, and what the wrong ones have in common."""
        worst, number = max(self.wrong, key=lambda w: (w.alone, w.score)), len(self.wrong)
        lines = [
            f"{worst.output} by {worst.move} is wrong",
            f"  derived:            {worst.derived + 0.0:.10g}",
            f"  finite differences: {worst.sides or f'{worst.numerical + 0.0:.10g} ± {worst.error:.2g}'}",
        ]
        ratios = np.array([w.derived / w.numerical if w.numerical else np.inf for w in self.wrong])
        if np.isfinite(ratios).all() and not worst.sides:
            ratio = worst.derived / worst.numerical
            if np.ptp(ratios) <= 1e-3 * abs(ratio):
                meaning = next((f": {text}" for factor, text in FACTORS.items() if abs(ratio - factor) < 1e-3), "")
                lines.append(
                    f"  ratio:              {ratio:.9g}{f' in all {number} wrong ones' if number > 1 else ''}{meaning}"
                )
            else:
                lines.append(
                    f"  ratio:              {ratio:.9g}; from {ratios.min():.4g} to {ratios.max():.4g} in {number} "
                    "wrong ones"
                )
        if worst.isolated:
            lines.append(
                "  hint:               next to this point it is right: a rule is wrong just here, or kinks cancel each "
                "other"
            )
        bad = Counter(
            next(name for name in self.count if w.move.startswith(name)) for w in self.wrong if not w.move[0].isdigit()
        )
        if bad:
            lines.append(
                "  wrong:              "
                + ", ".join(f"{bad[name]} of {total} by {name}" for name, total in self.count.items() if bad[name])
            )
        return "\n".join(lines)
