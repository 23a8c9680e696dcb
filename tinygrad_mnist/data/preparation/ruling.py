"""Find the lines of ruled and squared paper: thin, straight, from border to border, level or upright or nearly so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .paper import Mask

__all__ = ["find_ruling"]

STEEPEST = 0.24  # rise by run of a line
SLOPES = np.linspace(-STEEPEST, STEEPEST, 49)
ROUNDS = 8  # in which lines of one slope are found: in perspective, they differ
LEAST_SHARE = 0.5  # of its way through the picture on which a line is seen


def find_ruling(mask: Mask) -> Mask | None:
    """Find the pixels (h, w) of ruled lines in a mask of ink, but not where strokes cross them; None: no lines."""
    level, upright = _level_lines(mask), _level_lines(mask.T)
    if level is None:
        return None if upright is None else upright.T
    return level if upright is None else level | upright.T


def _level_lines(mask: Mask) -> Mask | None:
    height, width = mask.shape
    margin = 1 + width // 20
    if not (mask[:, :margin].any() and mask[:, -margin:].any()):
        return None
    # Runs of ink in each column that are as short as a line is thick.
    changes = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
    column, start = np.nonzero(changes > 0)
    stop = np.nonzero(changes < 0)[1]
    thin = stop - start <= max(3, height // 80)
    column, start, stop = column[thin], start[thin], stop[thin]
    found = np.zeros(mask.shape, bool)
    every = 1 + len(column) // 20_000  # some of the runs show where lines are
    for _ in range(ROUNDS):
        on_line = _on_lines(column, (start + stop) / 2, height, width, every)
        if not on_line.any():
            break
        x, top, bottom = column[on_line], start[on_line], stop[on_line]
        for step in range(int((bottom - top).max())):
            inside = top + step < bottom
            found[top[inside] + step, x[inside]] = True
        column, start, stop = column[~on_line], start[~on_line], stop[~on_line]
    return found if found.any() else None


def _on_lines(
    column: npt.NDArray[np.intp], middle: npt.NDArray[np.float64], height: int, width: int, every: int
) -> Mask:
    """Which of the runs lie on lines of that slope for which there are most."""
    grain = max(2.0, height / 300)
    offset = int(STEEPEST * width / grain) + 2
    best, best_slope, best_full = 0.0, 0.0, np.zeros(0, bool)
    for slope in SLOPES:
        place = ((middle[::every] - slope * column[::every]) / grain).astype(np.intp) + offset
        counts = np.bincount(place, minlength=int(height / grain) + 2 * offset + 2) * every
        counts = counts + np.append(counts[1:], 0)  # a line may lie across two places
        # The way of a line that starts at each height through the picture.
        begin = (np.arange(len(counts)) + 1 - offset) * grain
        low, high = sorted((0.0, slope * width))
        inside = np.minimum(begin + high, height) - np.maximum(begin + low, 0)
        way = width if slope == 0 else (inside / (high - low)).clip(0, 1) * width
        full = counts > np.maximum(LEAST_SHARE * way, 0.3 * width)
        score = float((counts[full].astype(float) ** 2).sum())
        if score > best:
            best, best_slope, best_full = score, float(slope), full
    if best == 0:
        return np.zeros(len(column), bool)
    place = ((middle - best_slope * column) / grain).astype(np.intp) + offset
    return np.asarray(best_full[place] | best_full[place - 1])
