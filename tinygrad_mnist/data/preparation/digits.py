"""Find the digits in a picture, and prepare each as MNIST's were."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...validation import integer
from .errors import ImageError, NoDigitError

__all__ = ["Digits", "ImageError", "NoDigitError", "from_image"]


class Digits(NamedTuple):
    """The digits in a picture, row by row from the top, each row from the left."""

    images: npt.NDArray[np.uint8]  # (n, 28, 28), as MNIST's: ink is 255
    # (n, 4): left, top, right, bottom in pixels of the upright picture, the last two exclusive
    boxes: npt.NDArray[np.intp]
    # (n,): it touched its neighbour and was cut off, or may hold several that were not cut
    touching: npt.NDArray[np.bool_]


def from_image(image: Any, *, max_pixels: int = 50_000_000) -> Digits:
    """Find the digits in a picture, and prepare each as MNIST's were.

    Dark ink on light paper or the reverse, in any colour: a scan, a drawing, a photograph. Uneven light, shadows, grain
    and specks are left out. Each digit's bounding box is scaled to 20x20 pixels without changing its shape. Strokes
    that are thin or thick are given the width of MNIST's. The centre of mass is put in the middle of 28x28 by whole
    pixels (LeCun et al., 1998). MNIST's own images come back as they are.

    Parameters
    ----------
    image : str, PathLike, bytes, binary file, ndarray or PIL.Image.Image
        A file's path, its content (AVIF, BMP, GIF, JPEG, JPEG 2000, PCX, PNG, PPM, QOI, TIFF, WebP; the first of
        several frames), or pixels: (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16, bool, or floats in [0, 1]. EXIF's
        orientation is followed. Transparent places become paper.
    max_pixels : int
        The largest accepted number of pixels, known from the header before anything is decoded. No side may be longer
        than 16,384 pixels, no file larger than 200 MB. Pictures whose longer side has more than 1,600 pixels are
        reduced.

    Returns
    -------
    Digits
        ``images`` (n, 28, 28) of uint8, 255 is ink; ``boxes`` (n, 4) of intp: left, top, right and bottom in pixels of
        the upright picture, the last two exclusive; ``touching`` (n,) of bool: the digit was cut from a neighbour, or
        may hold several that were not cut. Row by row from the top, each row from the left; n is 1 to 400.

    Raises
    ------
    NoDigitError
        If there is no digit; it says what there is.
    ImageError
        If the picture cannot be read, or is too large.
    OSError
        If there is no such file, or it may not be opened.
    ImportError
        If Pillow or SciPy is not installed.

    Examples
    --------
    >>> paper = np.full((200, 300), 255, np.uint8)
    >>> paper[40:160, 60:70] = paper[50:150, 200:212] = 0  # 1 1
    >>> images, boxes, touching = from_image(paper)
    >>> images.shape, boxes.tolist()
    ((2, 28, 28), [[60, 40, 70, 160], [200, 50, 212, 150]])
    """
    try:
        from . import ink, normalization, reading, segmentation
    except ImportError as error:
        raise ImportError("from_image needs Pillow and SciPy; pip install 'tinygrad_mnist[images]'") from error
    picture = reading.read(image, integer("from_image", "max_pixels", max_pixels, 1))
    found = ink.find_ink(picture.levels)
    digits = segmentation.find_digits(found)
    images, boxes = [], []
    height, width = picture.levels.shape[:2]
    scale = np.array([picture.width / width, picture.height / height] * 2)
    for digit in digits:
        images.append(normalization.normalized(segmentation.ink_of(digit, found), found.clean))
        box = np.array([digit.left, digit.top, digit.right, digit.bottom]) * scale
        boxes.append(np.append(np.floor(box[:2]), np.ceil(box[2:])))
    return Digits(
        np.stack(images), np.stack(boxes).astype(np.intp), np.array([digit.touching for digit in digits], np.bool_)
    )
