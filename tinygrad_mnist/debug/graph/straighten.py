"""Where the boxes of rows are, from left to right, when their order is known: below what leads to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["straighten"]

SWEEPS = 24
Links = Mapping[int, Sequence[tuple[int, float]]]  # the neighbours of a place, and how strongly each draws


def straighten(
    rows: Sequence[Sequence[int]], x: Sequence[float], widths: Sequence[float], above: Links, below: Links
) -> list[float]:
    """Move places sideways until those that are linked are as near to being below each other as the others allow.

    The rows are gone through down and up again. In each the sum of the squared distances from where the places are
    drawn to becomes as small as it can with the given order and widths.

    Parameters
    ----------
    rows : sequence of sequences of int
        The places of each row, from left to right.
    x : sequence of float
        The centres at first.
    widths : sequence of float
        Of each place; none overlap in the end.
    above, below : dict of int to pairs
        The linked places in the rows above and below, and how strongly each draws.
    """
    centres = [*x]
    for sweep in range(SWEEPS):
        downward = sweep % 2 == 0
        for row in rows if downward else rows[::-1]:
            drawn = [_drawn_to(place, centres, above if downward else below) for place in row]
            starts = _starts(row, widths)
            free = [centre - start for (centre, _), start in zip(drawn, starts, strict=True)]
            found = _ascending(free, [weight for _, weight in drawn])
            for place, start, moved in zip(row, starts, found, strict=True):
                centres[place] = start + moved
    return centres


def _drawn_to(place: int, centres: Sequence[float], links: Links) -> tuple[float, float]:
    """Return where a place is drawn to, and how strongly; without links it wants to stay, weakly."""
    near = links.get(place, ())
    weight = sum(strength for _, strength in near)
    if not weight:
        return centres[place], 0.01
    return sum(centres[other] * strength for other, strength in near) / weight, weight


def _starts(row: Sequence[int], widths: Sequence[float]) -> list[float]:
    """Return the centres of a row in which each place touches the next, the first at 0."""
    starts = [0.0]
    for left, right in zip(row, row[1:], strict=False):
        starts.append(starts[-1] + (widths[left] + widths[right]) / 2)
    return starts


def _ascending(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the ascending numbers that are nearest to the values, by weighted squares: what descends is averaged."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight and length
    for value, weight in zip(values, weights, strict=True):
        mean, length = value, 1
        while blocks and blocks[-1][0] > mean:
            other, other_weight, other_length = blocks.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight += other_weight
            length += other_length
        blocks.append((mean, weight, length))
    return [mean for mean, _, length in blocks for _ in range(length)]
