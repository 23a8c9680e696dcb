"""Cut digits that touch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .found import Found
from .paper import Array, Mask

__all__ = ["cut"]

WIDEST = 1.4  # one digit's width by its height
SQUARE = 1.0  # two digits that touch are seldom narrower, by their height
# The least height of both pieces of a cut, by the whole height: where a part is too wide for one digit; where it may be
# one, such as an open 0, and is but marked; where it may be one, but has others beside it, and is cut.
LEAST, LIKELY, SURE = 0.65, 0.75, 0.85


def cut(part: Found, amount: Array, height: float, width: float, alone: bool) -> list[Found]:
    """Cut digits that touch; mark what may hold several and is not cut as touching."""
    tall = part.height
    widest = WIDEST * max(tall, 0.7 * height)
    wide = part.width >= widest * (1 if alone else 0.85)
    if part.width < SQUARE * max(tall, 0.7 * height):
        return [part]
    ink = np.where(part.mask, amount[part.top : part.bottom, part.left : part.right], 0)
    count = max(2, round(part.width / (0.75 * tall)))
    best = None
    for k in range(1, count):
        middle = part.width * k / count
        low, high = int(middle - 0.3 * tall), int(middle + 0.3 * tall) + 1
        low, high = max(low, int(0.2 * tall)), min(high, part.width - int(0.2 * tall))
        if high - low < 2:
            continue
        cost, seam = _seam(ink[:, low:high], middle - low, tall)
        if best is None or cost < best[0]:
            best = cost, seam + low
    if best is not None and best[0] <= 1.8 * width and _crossings(part.mask, best[1]) <= 1:
        left_of = np.arange(part.width)[None, :] < best[1][:, None]
        sides = part.mask & left_of, part.mask & ~left_of
        pieces = [_trimmed(part, side) for side in sides if side.any()]
        if len(pieces) == 2 and all(piece.width >= 0.1 * tall for piece in pieces):
            lowest = min(piece.height for piece in pieces) / tall
            if wide and lowest >= LEAST or not alone and lowest >= SURE:
                return [each for piece in pieces for each in cut(piece, amount, height, width, False)]
            part.touching = part.touching or lowest >= LIKELY
    part.touching = part.touching or part.width >= widest
    return [part]


def _crossings(mask: Mask, seam: npt.NDArray[np.intp]) -> int:
    """How many strokes a seam crosses; also a thin one that it passes between two pixels that meet in a corner."""
    rows = np.arange(len(seam))
    crossed = mask[rows, seam]
    between = mask[rows[1:], seam[:-1]] & mask[rows[:-1], seam[1:]] & ~crossed[1:] & ~crossed[:-1]
    return int(crossed[0]) + int((crossed[1:] & ~crossed[:-1]).sum()) + int(between.sum())


def _seam(ink: Array, middle: float, tall: int) -> tuple[float, npt.NDArray[np.intp]]:
    """The path from top to bottom that crosses the least ink: how much, and its column in each row."""
    rows, columns = ink.shape
    price = ink + 0.02 * np.abs(np.arange(columns) - middle) / tall
    total = price[0].copy()
    steps = np.zeros((rows, columns), np.int8)
    aside = np.float32(0.05)
    for row in range(1, rows):
        choices = np.stack([np.append(np.inf, total[:-1]) + aside, total, np.append(total[1:], np.inf) + aside])
        step = choices[[1, 0, 2]].argmin(axis=0)  # straight on where all are equal
        steps[row] = np.array([0, -1, 1], np.int8)[step]
        total = choices.min(axis=0) + price[row]
    seam = np.empty(rows, np.intp)
    seam[-1] = int(total.argmin())
    for row in range(rows - 1, 0, -1):
        seam[row - 1] = seam[row] + steps[row, seam[row]]
    return float(ink[np.arange(rows), seam].sum()), seam


def _trimmed(part: Found, mask: Mask) -> Found:
    """What a cut leaves on one side, but for slivers, in its own box."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels[mask])
    mask = mask & (sizes[labels] > 0.1 * sizes.max())
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return Found(
        part.top + int(top),
        part.left + int(left),
        part.top + int(bottom),
        part.left + int(right),
        mask[top:bottom, left:right],
        touching=True,
    )
