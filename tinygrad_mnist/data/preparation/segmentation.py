"""Put strokes together to digits, and digits in the order of reading."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .cutting import cut
from .errors import NoDigitError
from .found import Found
from .ink import Ink
from .paper import Array, Mask

__all__ = ["find_digits", "ink_of"]

MOST = 400  # digits in a picture
MOST_PARTS = 3 * MOST  # strokes and marks that are looked at


def find_digits(ink: Ink) -> list[Found]:
    """Find the digits, row by row from the top, each row from the left."""
    labels, count = ndimage.label(ink.mask, np.ones((3, 3)))
    parts = []
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0  # the paper
    large = np.flatnonzero((areas >= 4) & (areas * 400 >= areas.max()))
    if len(large) > MOST_PARTS:
        raise _too_many(len(large))
    places = ndimage.find_objects(labels)
    for number in large:
        rows, columns = place = places[number - 1]
        parts.append(Found(rows.start, columns.start, rows.stop, columns.stop, labels[place] == number))
    parts = _without_edges(parts, ink.mask.shape)
    if not parts:
        raise NoDigitError("from_image: there are only specks or marks at the edge, but no digit; show it whole")
    width = 2 * _typical_half_width(parts)
    parts = _without_frames([part for part in parts if _is_stroke(part)])
    if not parts:
        raise NoDigitError("from_image: there are only specks and blots, but no strokes of a digit")
    height = _typical_height(parts)
    parts = _joined(parts, height, width)
    parts = [part for part in parts if part.height > 0.4 * height and part.size >= 6 and not _is_flat(part, width)]
    if not parts:
        raise NoDigitError("from_image: there are only small marks or flat lines, but no digit")
    digits: list[Found] = []
    for done, part in enumerate(parts):
        if len(digits) + len(parts) - done > MOST:
            raise _too_many(len(digits) + len(parts) - done)
        digits += cut(part, ink.amount, height, width, len(parts) == 1)
    if len(digits) > MOST:
        raise _too_many(len(digits))
    return [digit for row in _rows(digits) for digit in row]


def _too_many(count: int) -> NoDigitError:
    return NoDigitError(f"from_image: there are {count} marks or more, where {MOST} digits are read; crop it to them")


def ink_of(digit: Found, ink: Ink) -> Array:
    """The ink of one digit and its soft edge, (h, w) in [0, 1], without what lies beside it."""
    reach = 1 + digit.size // 12
    top, left = max(digit.top - reach, 0), max(digit.left - reach, 0)
    part = ink.amount[top : digit.bottom + reach, left : digit.right + reach]
    own = np.zeros(part.shape, bool)
    own[digit.top - top : digit.bottom - top, digit.left - left : digit.right - left] = digit.mask
    near = ndimage.maximum_filter(own, 2 * reach + 1, mode="constant")
    others = ink.mask[top : digit.bottom + reach, left : digit.right + reach] & ~own
    if others.any():
        near &= own | ~ndimage.binary_dilation(others)
    return np.where(near, part, 0)


def _without_edges(parts: list[Found], shape: tuple[int, ...]) -> list[Found]:
    """Leave out what is cut off by the border and is no stroke, such as the edge of a table."""
    kept = []
    for part in parts:
        sides = (part.top == 0) + (part.left == 0) + (part.bottom == shape[0]) + (part.right == shape[1])
        flat = min(part.height, part.width) * 8 < part.size
        if sides >= 3 or (sides and (flat or part.half_widths[1] > 0.2 * part.size)) and len(parts) > 1:
            continue
        kept.append(part)
    return kept


def _is_stroke(part: Found) -> bool:
    """Whether a part is long for its width, as strokes are, but not as long and uneven as a texture; or too small."""
    usual, greatest = part.half_widths
    area = int(part.mask.sum())
    long_enough = area > 1.4 * (2 * greatest) ** 2
    return part.size < 6 or (long_enough and greatest < 10 * usual and area < 24 * part.size * usual)


def _is_flat(part: Found, width: float) -> bool:
    """Whether a part is one straight stroke, nearly level: a dash or the start of a 7."""
    if part.width < 1.2 * part.height:
        return False
    y, x = np.nonzero(part.mask)
    spreads, axes = np.linalg.eigh(np.cov(x, y))
    return bool(spreads[0] ** 0.5 < 0.45 * width and abs(axes[1, 1]) < 0.6)


def _typical_half_width(parts: list[Found]) -> float:
    """Half the width of most ink's stroke."""
    largest = sorted(parts, key=lambda part: -part.mask.sum())[:12]
    return max(0.5, float(np.median([part.half_widths[0] for part in largest])))


def _typical_height(parts: list[Found]) -> float:
    """The height of most digits: the median of those that are not much smaller than the tallest."""
    heights = np.array([max(part.height, 0.5 * part.width) for part in parts])
    return float(np.median(heights[heights >= 0.5 * heights.max()]))


def _joined(parts: list[Found], height: float, width: float) -> list[Found]:
    """Join parts that belong to one digit, the nearest first, until none are left."""
    boxes = np.array([(part.top, part.left, part.bottom, part.right) for part in parts])
    members = [[part] for part in parts]
    new = np.ones(len(parts), bool)  # two others are of different digits: they would have been joined before
    while True:
        order = np.argsort(boxes[:, 1], kind="stable")
        boxes, new, members = boxes[order], new[order], [members[k] for k in order]
        pairs = []
        for i in np.flatnonzero(new):
            others = np.flatnonzero(~new | (np.arange(len(boxes)) > i))
            apart = _apartness(boxes, np.minimum(i, others), np.maximum(i, others), height, width)
            near = others[np.isfinite(apart)]
            pairs.append(np.stack([apart[np.isfinite(apart)], np.minimum(i, near), np.maximum(i, near)]))
        found = np.concatenate(pairs, axis=1) if pairs else np.empty((3, 0))
        if not found.size:
            return [_together(some) for some in members]
        used = np.zeros(len(boxes), bool)
        joined, joined_members = [], []
        for i, j in found[1:, np.lexsort(found[::-1])].T.astype(np.intp).tolist():
            if not (used[i] or used[j]):
                used[[i, j]] = True
                joined.append([*np.minimum(boxes[i, :2], boxes[j, :2]), *np.maximum(boxes[i, 2:], boxes[j, 2:])])
                joined_members.append(members[i] + members[j])
        boxes = np.concatenate([boxes[~used], np.array(joined)])
        new = np.repeat([False, True], [len(boxes) - len(joined), len(joined)])
        members = [some for some, gone in zip(members, used, strict=True) if not gone] + joined_members


def _without_frames(parts: list[Found]) -> list[Found]:
    """Leave out closed outlines that hold others, such as the boxes of a form."""
    boxes = np.array([(part.top, part.left, -part.bottom, -part.right) for part in parts])
    heights = np.array([part.height for part in parts])
    kept = []
    for part, box in zip(parts, boxes, strict=True):
        if not ((boxes > box).all(axis=1) & (heights >= 0.3 * part.height)).any() or not _is_outline(part.mask):
            kept.append(part)
    return kept


def _is_outline(mask: Mask) -> bool:
    """Whether ink fills little of what it encloses."""
    paper, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return bool(mask.sum() < 0.3 * (paper[1:-1, 1:-1] != paper[0, 0]).sum())


def _apartness(
    boxes: npt.NDArray[np.intp], one: npt.NDArray[np.intp], two: npt.NDArray[np.intp], height: float, width: float
) -> npt.NDArray[np.float64]:
    """How far two parts of one digit are from each other, in pixels; infinite for those of different ones.

    The boxes (n, 4) are top, left, bottom and right; pairs of them are compared.
    """
    first, second = boxes[one], boxes[two]
    starts = np.maximum(first[:, :2], second[:, :2])
    stops = np.minimum(first[:, 2:], second[:, 2:])
    gap_y, gap_x = (starts - stops).T  # negative where they overlap
    tops_lefts = np.minimum(first[:, :2], second[:, :2])
    bottoms_rights = np.maximum(first[:, 2:], second[:, 2:])
    together_y, together_x = (bottoms_rights - tops_lefts).T
    sides = np.stack([first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]])  # (2, n, 2): heights and widths
    sizes = sides.max(axis=2)
    heights = sides[:, :, 0]
    first_is_larger = sizes[0] > sizes[1]
    small_height = np.where(first_is_larger, heights[1], heights[0])
    large_height = np.where(first_is_larger, heights[0], heights[1])
    tallest = np.maximum(height, large_height)
    narrower = sides[:, :, 1].min(axis=0)
    above = -gap_x / np.maximum(1, narrower) > 0.5
    touches = above & (gap_y <= max(2, 1.2 * width))
    touches &= together_y <= 2.2 * tallest
    follows = above & (small_height < 0.6 * height)
    follows &= gap_y < 0.35 * height
    follows &= together_y <= 1.6 * tallest
    beside = ~above & (gap_y < 0)
    beside &= small_height < 0.75 * height
    beside &= together_x <= 1.2 * height
    beside &= gap_x <= max(2, 0.8 * width, 0.05 * height)
    distances = [gap_y.clip(0), gap_y.astype(float), gap_x.clip(0) + 0.1]
    distance = np.select([touches, follows, beside], distances, np.inf)
    close = np.maximum(gap_x, gap_y) <= 0.4 * height
    no_specks = sizes.min(axis=0) >= 0.08 * height
    return np.where(close & no_specks, distance, np.inf)


def _together(parts: list[Found]) -> Found:
    if len(parts) == 1:
        return parts[0]
    top, left = min(part.top for part in parts), min(part.left for part in parts)
    bottom, right = max(part.bottom for part in parts), max(part.right for part in parts)
    mask = np.zeros((bottom - top, right - left), bool)
    for part in parts:
        mask[part.top - top : part.bottom - top, part.left - left : part.right - left] |= part.mask
    return Found(top, left, bottom, right, mask)


def _rows(digits: list[Found]) -> list[list[Found]]:
    """Put digits into rows: each follows the last one to its left that is about as high."""
    rows: list[list[Found]] = []
    for digit in sorted(digits, key=lambda one: one.left + one.right):
        middle = (digit.top + digit.bottom) / 2
        off = [abs(middle - (row[-1].top + row[-1].bottom) / 2) for row in rows]
        nearest = int(np.argmin(off)) if off else -1
        if off and off[nearest] < 0.6 * max(digit.height, rows[nearest][-1].height):
            rows[nearest].append(digit)
        else:
            rows.append([digit])
    return sorted(rows, key=lambda row: np.mean([one.top + one.bottom for one in row]))
