"""Find the sheet of paper where a picture shows more than it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["Array", "Mask", "block_means", "enlarged", "find_sheet", "sheet_means", "threshold"]

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SIDE = 96  # pixels: the sheet is found on a picture of this size


def block_means(values: Array, side: int) -> Array:
    """Reduce (h, w, ...) by averaging blocks, so that no side is longer than `side`."""
    factor = -(-max(values.shape[:2]) // side)
    if factor == 1:
        return values
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], factor)
        counts = np.diff(np.append(starts, values.shape[axis]))
        shape = [-1 if a == axis else 1 for a in range(values.ndim)]
        sums = np.add.reduceat(values, starts, axis=axis)
        values = np.asarray(sums / counts.astype(np.float32).reshape(shape), np.float32)
    return values


def enlarged(values: Array, shape: tuple[int, ...], side: int) -> Array:
    """Enlarge what `block_means` made of at most `side` pixels to the shape (h, w) it came from."""
    factor = -(-max(shape) // side)
    for axis in (0, 1):
        size, parts = shape[axis], values.shape[axis]
        place = ((np.arange(size) + 0.5) / factor - 0.5).clip(0, parts - 1)
        first = np.minimum(place.astype(np.intp), max(parts - 2, 0))
        share = (place - first).astype(np.float32)
        share = share.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        after = np.minimum(first + 1, parts - 1)
        values = np.take(values, first, axis) * (1 - share) + np.take(values, after, axis) * share
    return values


def sheet_means(values: Array, sheet: Mask | None, side: int) -> Array:
    """Reduce (h, w) as `block_means` does, by the sheet's pixels alone; beyond it, the nearest block goes on."""
    if sheet is None:
        return block_means(values, side)
    share = block_means(sheet.astype(np.float32), side)
    means = block_means(np.where(sheet, values, np.float32(0)), side) / np.maximum(share, 1e-6)
    nearest = ndimage.distance_transform_edt(share == 0, return_distances=False, return_indices=True)
    return np.asarray(means[tuple(nearest)], np.float32)


def threshold(values: Array) -> float:
    """Split values into two classes, so that the spread between them is greatest (Otsu, 1979)."""
    if np.ptp(values) < 1e-5:  # they are one class
        return float(values.min())
    counts, edges = np.histogram(values, 128)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * above)
    between[~np.isfinite(between)] = -1
    return float(edges[1 + int(np.argmax(between))])


def find_sheet(grey: Array) -> Mask | None:
    """Find paper that lies on something else, such as a table, as a mask (h, w); None where paper is all there is."""
    small = block_means(grey, SIDE)
    light = small > threshold(small.ravel())
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    other = ~light if border.mean() > 0.5 else light
    if other.mean() < 0.25:
        return None
    labels, count = ndimage.label(other)
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    filled = ndimage.binary_fill_holes(largest)
    if filled.mean() < 0.25 or largest.sum() < 0.65 * filled.sum() or _rectangularity(filled) < 0.86:
        return None
    around = np.concatenate([filled[0], filled[-1], filled[:, 0], filled[:, -1]])
    if around.mean() > 0.27:  # it is light and shadow rather than paper and table
        return None
    inner = ndimage.binary_erosion(filled, iterations=2, border_value=1)
    outer = ndimage.binary_dilation(filled, iterations=2)
    step = abs(small[filled & ~inner].mean() - small[outer & ~filled].mean())
    if step < 0.6 * abs(small[filled].mean() - small[~filled].mean()):  # light that fades has no edge
        return None
    factor = -(-max(grey.shape) // SIDE)
    return np.repeat(np.repeat(inner, factor, 0), factor, 1)[: grey.shape[0], : grey.shape[1]]


def _rectangularity(mask: Mask) -> float:
    """The area's share of the smallest rectangle around it."""
    y, x = np.nonzero(mask ^ ndimage.binary_erosion(mask))
    angles = np.linspace(0, np.pi / 2, 18, endpoint=False)
    along = np.outer(np.cos(angles), x) + np.outer(np.sin(angles), y)
    across = np.outer(np.cos(angles), y) - np.outer(np.sin(angles), x)
    areas = (np.ptp(along, axis=1) + 1) * (np.ptp(across, axis=1) + 1)
    return float(mask.sum() / areas.min())
