"""Hold the derived gradients at one point against finite differences, and say what is wrong with them."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from ..tensor import Array
from .differences import Slopes, slopes_at_zero
from .point import NEAR, GradientMismatch, Move, Point

__all__ = ["Comparison"]

LADDERS = 9  # steps to try for one derivative; half as many for functions of many entries
ENOUGH = 3  # directions with kinks in such a function, before others are looked at beside
FACTORS = {-1.0: "the sign is wrong", 0.0: "no gradient arrives: a rule is None, or something is cut off by .data, .detach() or no_grad()"}


class Wrong(NamedTuple):
    """A derivative that is not what it should be."""

    score: float  # how many error bars off
    output: str
    move: str
    derived: float
    numerical: float
    error: float
    sides: str  # one-sided derivatives, where there is a kink


class Comparison:
    """All derivatives at a point beside finite differences.

    Where there are kinks in most directions, few of them will do unless `thorough`: it is better to compare beside them.

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
        self.count: Counter[str] = Counter()
        point.derive()
        if len(point.weights):  # there are outputs
            self.noise, self.middle = point.noise(), point.weights @ point.row
            self.go_everywhere()
            self.go_together()
        if self.wrong:
            point.same_again()
            raise GradientMismatch(self.diagnosis())

    @property
    def compared(self) -> int:
        """Number of derivatives that were compared."""
        return sum(self.count.values())

    def go_everywhere(self) -> None:
        """Compare along all moves."""
        step: float | None = None  # what was best in one direction will do for the next
        for move, name, first, largest in self.point.moves():
            single = isinstance(move[0][1], tuple)
            start = first if single or step is None else step
            rows = np.arange(len(self.middle))
            claimed, slack, found = self.along(move, rows, start, largest)
            step = step if single else found.step
            self.count[name.split("[")[0].split(" in ")[0]] += len(rows)
            for r in np.flatnonzero(found.resolved & found.wrong(claimed)).tolist():
                self.accuse(r, name, claimed[r], found, r)
            for r in np.flatnonzero(~found.resolved).tolist():
                self.look_at_kink(r, move, name, claimed[r], slack[r], found)
            if self.point.large and len(self.notes) >= ENOUGH * len(self.point.singles) and not self.thorough:
                break

    def go_together(self) -> None:
        """Move what ties together: then there is no kink, and a gradient that is given to all that tie is too large."""
        for r, moves in self.kinks.items():
            if len(moves) > 1 and not self.wrong:
                move, first = self.point.together(moves)
                claimed, _, found = self.along(move, np.array([r]), first, 0.25)
                if found.resolved[0] and found.wrong(claimed)[0]:
                    self.accuse(r, f"{len(moves)} entries that tie, together", claimed[0], found, 0)

    def along(self, move: Move, rows: Array, first: float, largest: float) -> tuple[Array, Array, Slopes]:
        """Return the claimed derivatives of some combinations of outputs along a move, their rounding errors, and the numerical ones."""
        point = self.point
        claimed, slack = point.claims(move, [point.derived[r] for r in rows])
        f, ladders = point.along(move, point.weights[rows]), LADDERS // 2 if point.large else LADDERS
        return claimed, slack, slopes_at_zero(f, self.middle[rows], self.noise[rows], claimed, slack, first, largest, ladders)

    def accuse(self, r: int, name: str, claimed: float, found: Slopes, k: int, sides: str = "") -> None:
        factor, output = self.point.described(r)
        value, error = found.value[k] / factor, found.error[k] / abs(factor)
        score = abs(claimed - found.value[k]) / found.error[k]
        self.wrong.append(Wrong(score, output, name, claimed / factor, value, error, sides))

    def look_at_kink(self, r: int, move: Move, name: str, claimed: float, slack: float, found: Slopes) -> None:
        """One-sided derivatives differ: note it, and check that the derived one lies between them, or is that of a point nearby."""
        if r >= len(self.point.singles):  # a mixture of outputs: they may have kinks of opposite signs, so that nothing follows
            if len(self.point.singles) < self.point.row.size:
                self.notes.append(f"a random combination of the outputs by {name}")
            return
        factor, output = self.point.described(r)
        low, high = sorted((found.left[r] / factor, found.right[r] / factor))
        sides = f"one-sided derivatives {low:.6g} and {high:.6g}"
        self.notes.append(f"{output} by {name}: {sides}, derived {claimed / factor:.6g}")
        if isinstance(move[0][1], tuple):
            self.kinks.setdefault(r, []).append(move)
            outside = np.zeros(len(self.middle))
            outside[r] = claimed
            if found.wrong(outside)[r]:
                near = [self.point.claims(move, [gradients])[0][0] for gradients in self.point.nearby(self.point.weights[r], NEAR, 16)]
                if not min(near) - slack <= claimed <= max(near) + slack:
                    self.accuse(r, name, claimed, found, r, sides)

    def diagnosis(self) -> str:
        """Say which derivative is worst, how far off it is, and what the wrong ones have in common."""
        worst, number = max(self.wrong), len(self.wrong)
        lines = [
            f"{worst.output} by {worst.move} is wrong",
            f"  derived:            {worst.derived:.12g}",
            f"  finite differences: {worst.sides or f'{worst.numerical:.12g} ± {worst.error:.2g}'}",
        ]
        ratios = np.array([w.derived / w.numerical if w.numerical else np.inf for w in self.wrong])
        if np.isfinite(ratios).all() and not worst.sides:
            ratio = worst.derived / worst.numerical
            if np.ptp(ratios) <= 1e-3 * max(abs(ratio), 1e-3):
                meaning = next((text for factor, text in FACTORS.items() if abs(ratio - factor) < 1e-3), "a constant factor")
                lines.append(f"  ratio:              {ratio:.9g}{f' in all {number} wrong ones' if number > 1 else ''}: {meaning}")
            else:
                lines.append(f"  ratio:              {ratio:.9g}; from {ratios.min():.4g} to {ratios.max():.4g} in {number} wrong ones")
        bad = Counter(w.move.split("[")[0].split(" in ")[0] for w in self.wrong)
        lines.append(
            "  wrong:              " + ", ".join(f"{bad[name]} of {total} by {name}" for name, total in self.count.items() if bad[name])
        )
        return "\n".join(lines)
