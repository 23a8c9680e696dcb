"""Find the digits in a picture, and prepare each as MNIST's were."""

from __future__ import annotations

import io
import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Digits", "ImageError", "NoDigitError", "from_image"]

MAX_PIXELS = 50_000_000


class ImageError(ValueError):
    """A picture cannot be read or is not accepted; the message names it, the reason and the remedy."""


class NoDigitError(ImageError):
    """There is no digit in a picture; the message says what there is."""


class Digits(NamedTuple):
    """The digits in a picture, row by row from the top, each row from the left."""

    images: npt.NDArray[np.uint8]  # (n, 28, 28), as MNIST's: ink is 255
    boxes: npt.NDArray[
        np.intp
    ]  # (n, 4): left, top, right, bottom in pixels of the upright picture, the last two exclusive
    touching: npt.NDArray[
        np.bool_
    ]  # (n,): it touched its neighbour and was cut off, or holds several that were not cut


def from_image(image: Any, *, max_pixels: int = MAX_PIXELS) -> Digits:
    """Find the digits in a picture, and prepare each as MNIST's were."""
    from PIL import Image
    from scipy import ndimage

    if isinstance(image, np.ndarray):
        opened = Image.fromarray(image)
    elif isinstance(image, bytes):
        opened = Image.open(io.BytesIO(image))
    elif isinstance(image, str | os.PathLike):
        opened = Image.open(image)
    else:
        opened = image
    grey = np.asarray(opened.convert("L"), np.float32)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))
    if ink.max() < 40:
        raise NoDigitError("from_image: the picture is blank; draw a digit")
    labels, count = ndimage.label(ink > ink.max() / 2, np.ones((3, 3)))
    found = []
    for rows, columns in ndimage.find_objects(labels):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if max(height, width) >= 8:
            part = ink[rows, columns] * 255 / ink.max()
            scaled = np.clip(ndimage.zoom(part, 20 / max(height, width), order=1), 0, 255)
            cy, cx = ndimage.center_of_mass(scaled)
            canvas = np.zeros((28, 28), np.uint8)
            top, left = (
                int(np.clip(round(13.5 - c), 0, 28 - n)) for c, n in ((cy, scaled.shape[0]), (cx, scaled.shape[1]))
            )
            canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
            found.append((columns.start, rows.start, columns.stop, rows.stop, canvas))
    if not found:
        raise NoDigitError("from_image: no digit found")
    found.sort(key=lambda part: part[0])
    return Digits(
        np.stack([part[4] for part in found]), np.array([part[:4] for part in found]), np.zeros(len(found), bool)
    )
