"""What a classifier would need to see for an answer: gradient ascent on the image."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import log_softmax
from ..validation import integer, real
from .classifier import Pixels, as_pixels, gradient

__all__ = ["ascend"]


def ascend(model: Any, images: Any, target: Any, *, steps: int = 1, step_size: float = 0.05) -> Pixels:
    """Move images a few steps along the gradient of the log-probability of a class: what the model would need to see.

    The gradient is blurred, so that strokes grow and fade rather than single pixels, and scaled so that its largest
    value is 1. Pixels stay in [0, 1]. Equal images give equal results; a result can be passed again, to go on.

    Parameters
    ----------
    model, images
        See `saliency`.
    target : int or array_like of int, shape (N,)
        The class that the images are moved to, or one for each image.
    steps : int
    step_size : float
        How much a pixel changes in a step at most, in units of the full brightness.

    Returns
    -------
    ndarray, shape (N, H, W)
        Pixels in [0, 1]. float64 where the images are, else float32.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in `saliency`; also if `target` is None.

    Examples
    --------
    >>> def model(x):  # the more is bright, the more it is of class 1
    ...     bright = x.sum(axis=(1, 2)).reshape(-1, 1)
    ...     return bright * np.array([0.0, 1.0])
    >>> ascend(model, np.zeros((1, 1, 3)), 1, steps=2, step_size=0.25).round(2)
    array([[[0.39, 0.5 , 0.39]]])
    """
    if target is None:
        raise TypeError("ascend: target is None; it must be a class, an integer, or one for each image")
    pixels = as_pixels("ascend", images)
    steps = integer("ascend", "steps", steps)
    step_size = real("ascend", "step_size", step_size, above=0)
    for _ in range(steps):
        slope = _blurred(gradient("ascend", model, pixels, target, log_softmax))
        largest = np.abs(slope).max(axis=(1, 2), keepdims=True)
        pixels = np.clip(pixels + step_size * slope / np.maximum(largest, np.finfo(pixels.dtype).tiny), 0, 1)
    return pixels


def _blurred(images: Pixels) -> Pixels:
    """Blur images by the binomial weights 1, 4, 6, 4, 1 along both axes; zeros lie around them."""
    for axis in (1, 2):
        padded = np.pad(images, [(2, 2) if a == axis else (0, 0) for a in range(3)])
        n = images.shape[axis]
        parts = [np.take(padded, np.arange(i, i + n), axis) for i in range(5)]
        images = (parts[0] + 4 * parts[1] + 6 * parts[2] + 4 * parts[3] + parts[4]) / 16
    return images
