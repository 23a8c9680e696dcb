"""How much the probability of a class falls when a part of the image is covered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..validation import integer, real
from .classifier import Pixels, as_pixels, as_targets, probabilities

__all__ = ["occlusion"]

BATCH = 512  # covered images that the model gets at once


def occlusion(
    model: Any, images: Any, target: Any = None, *, size: int = 7, stride: int = 2, fill: float = 0.0
) -> Pixels:
    """Fall of the probability of a class when a square patch of the image is covered (Zeiler and Fergus, 2014).

    The patch is put at every `stride`-th place, and against the lower and the right border. The value of a pixel is the
    mean fall over the patches that cover it: positive where the image speaks for the class, negative where it speaks
    against it.

    Parameters
    ----------
    model, images, target
        See `saliency`; no record is needed. By default the class of the largest probability is explained.
    size : int
        Side of the patch in pixels, at most that of the images.
    stride : int
        Pixels from one place to the next, at most `size`, so that every pixel is covered. 1 gives the smoothest map and
        takes four times as long as 2.
    fill : float
        Brightness of the patch, from 0 to 1.

    Returns
    -------
    ndarray, shape (N, H, W)
        Differences of probabilities, from -1 to 1. float64 where the images are, else float32.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in `saliency`.

    Examples
    --------
    >>> from tinygrad_mnist import log, stack
    >>> def model(x):  # the brightness of the first pixel is the probability of class 1
    ...     return log(stack([1 - x[:, 0, 0], x[:, 0, 0]], axis=1))
    >>> occlusion(model, np.array([[[0.75, 1.0], [0.5, 0.5]]]), size=1, stride=1, fill=0.25)
    array([[[0.5, 0. ],
            [0. , 0. ]]])
    """
    pixels = as_pixels("occlusion", images)
    size = integer("occlusion", "size", size, 1)
    stride = integer("occlusion", "stride", stride, 1)
    fill = real("occlusion", "fill", fill, least=0, most=1)
    if size > min(pixels.shape[1:]) or stride > size:
        raise ValueError(
            f"occlusion: size is {size} and stride {stride}, images have shape {pixels.shape}; the size must be at "
            "most that of the images, the stride at most the size"
        )
    whole = _in_batches(model, pixels)
    classes = as_targets("occlusion", target, whole)
    rows, columns = (_windows(length, size, stride) for length in pixels.shape[1:])
    # Which image, row and column of patches each covered image has.
    shape = len(pixels), len(rows), len(columns)
    which = np.indices(shape).reshape(3, -1)
    fall = np.empty(which.shape[1], pixels.dtype)
    for start in range(0, len(fall), BATCH):
        image, row, column = which[:, start : start + BATCH]
        covered = rows[row][:, :, None] & columns[column][:, None, :]
        changed = np.where(covered, pixels.dtype.type(fill), pixels[image])
        left = probabilities("occlusion", model, changed)
        chosen = classes[image]
        before, after = whole[image, chosen], left[np.arange(len(image)), chosen]
        fall[start : start + BATCH] = before - after
    patches = rows.sum(0)[:, None] * columns.sum(0)  # that cover each pixel
    total = rows.T @ fall.reshape(shape) @ columns
    return np.asarray(total / patches, pixels.dtype)


def _in_batches(model: Any, pixels: Pixels) -> Pixels:
    batches = [pixels[start : start + BATCH] for start in range(0, max(len(pixels), 1), BATCH)]
    return np.concatenate([probabilities("occlusion", model, batch) for batch in batches])


def _windows(length: int, size: int, stride: int) -> npt.NDArray[np.bool_]:
    """Return which pixels of an axis are covered by the patch at each of its places: (places, length)."""
    last = length - size
    starts = np.array([*range(0, last, stride), last])[:, None]
    place = np.arange(length)
    return (place >= starts) & (place < starts + size)
