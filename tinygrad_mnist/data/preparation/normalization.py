"""Give one digit the size, the place and the width of stroke that MNIST's have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from .paper import Array, Mask

__all__ = ["BOX", "SIDE", "half_widths", "normalized"]

BOX, SIDE = 20, 28  # pixels: the box that the ink fills, the image that holds it
FINE = 5  # points in a pixel, on each axis, where strokes are made wider or narrower
HALF_WIDTHS = 0.85, 1.6  # pixels: strokes between are left as they are; most of MNIST's are


def half_widths(mask: Mask) -> tuple[float, float]:
    """Half the usual and half the greatest width of the strokes in a mask, in pixels, but for hairs at their edges."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))
    ridge = depth[(depth >= ndimage.maximum_filter(depth, 3)) & (depth > 0.08 * depth.max())]
    return (float(np.median(ridge)) - 0.5, float(ridge.max()) - 0.5) if ridge.size else (0.0, 0.0)


def normalized(amount: Array, clean: bool) -> npt.NDArray[np.uint8]:
    """Prepare the ink of one digit, (h, w) in [0, 1] and nothing else, as an image (28, 28)."""
    amount = amount / amount.max()
    # In small images, faint pixels are parts of the strokes; in larger ones they are soft edges and JPEG's ripples.
    faintest = 0.5 if not clean else 0.1 if max(amount.shape) <= 2 * SIDE else 0.3
    rows, columns = (np.flatnonzero((amount > faintest).any(axis=axis)) for axis in (1, 0))
    amount = amount[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longest = max(amount.shape)
    # The strokes as a mask of FINE * BOX points; a pen so thin that it would be lost is made wider first.
    scale = FINE * BOX / longest
    step = 1 + longest // 100  # some of the pixels tell how wide it is
    missing = int(2 / scale - 2 * step * half_widths(amount[::step, ::step] > 0.5)[0]) if scale < 1 else 0
    part = np.pad(amount, 1 + longest // 10 + max(missing, 0))
    fine = _resized(ndimage.grey_dilation(part, 1 + missing) if missing > 0 else part, scale)
    mask = fine > 0.5 * fine.max()
    half = half_widths(mask)[0] / FINE
    wanted = float(np.clip(half, *HALF_WIDTHS))
    if clean and abs(wanted - half) < 0.15:
        return _placed(_resized(amount, BOX / longest))
    # The axes of the strokes span the box but for half a stroke at both ends, whatever its width is.
    scale = (BOX - 2 * wanted) / max(BOX - 2 * half, BOX / 2)
    wider = wanted / scale - half
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    depth = depth - np.sign(depth) / 2 + wider * FINE  # points inside the outline
    ink = _resized((0.5 + depth / 2).clip(0, 1).astype(np.float32), scale / FINE)
    rows, columns = (np.flatnonzero((ink > 0.1).any(axis=axis)) for axis in (1, 0))
    return _placed(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _resized(values: Array, scale: float) -> Array:
    """Resize (h, w) by a factor on both axes: by the mean of what a pixel covers, or linearly where it is enlarged."""
    height, width = values.shape
    new_height, new_width = (max(1, round(size * scale)) for size in (height, width))
    # The new pixels are exactly 1 / scale wide: they may reach beyond the old ones, or end before.
    beyond = 1 + int(0.5 / scale)
    left = (width - new_width / scale) / 2 + beyond
    top = (height - new_height / scale) / 2 + beyond
    box = (left, top, left + new_width / scale, top + new_height / scale)
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    image = Image.fromarray(np.pad(values, beyond)).resize((new_width, new_height), way, box)
    return np.asarray(image, np.float32)


def _placed(ink: Array) -> npt.NDArray[np.uint8]:
    """Place the ink so that its centre of mass is in the middle, by whole pixels."""
    ink = ink[: SIDE - 1, : SIDE - 1] / max(float(ink.max()), 1e-6)
    image = np.zeros((SIDE, SIDE), np.uint8)
    corner = []
    for axis in (0, 1):
        size = ink.shape[axis]
        middle = (ink.sum(axis=1 - axis) * np.arange(size)).sum() / ink.sum()
        corner.append(int(np.clip(np.rint((SIDE - 1) / 2 - middle), 0, SIDE - size)))
    top, left = corner
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = np.rint(255 * ink.clip(0, 1))
    return image
