"""What a classifier would need to see for an answer: gradient ascent on the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..ops import log_softmax
from ..validation import integer, real
from .classifier import Pixels, as_pixels, gradient

__all__ = ["ascend"]


FADING = 0.1  # of all pixels in a step, as a share of the largest change


def ascend(
    model: Any, images: Any, target: Any, *, steps: int = 1, step_size: float = 0.05, smoothing: float = 1.0
) -> Pixels:
    """Move images a few steps towards a class, by gradient ascent: what the model would need to see.

    It raises the log-probability of the class. So that strokes grow and fade rather than single pixels, the gradient is
    blurred and scaled to a largest value of 1; besides, each step makes an image a little smoother and darker. Pixels
    stay in [0, 1]. Equal images give equal results. A result can be passed again, to go on.

    Parameters
    ----------
    model, images
        See `saliency`.
    target : int or array_like of int, shape (N,)
        The class that the images are moved to, or one for each image.
    steps : int
    step_size : float
        How much the pixel with the largest gradient changes in a step by it, in units of the full brightness.
    smoothing : float
        How much smoother and darker a step makes an image. 0: only the gradient counts, and grey haze appears.

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
    >>> ascend(model, np.zeros((1, 1, 3)), 1, steps=2, step_size=0.25, smoothing=0).round(2)
    array([[[0.39, 0.5 , 0.39]]])
    """
    if target is None:
        raise TypeError("ascend: target is None; it must be a class, an integer, or one for each image")
    pixels = as_pixels("ascend", images)
    steps = integer("ascend", "steps", steps)
    step_size = real("ascend", "step_size", step_size, above=0)
    smoothing = real("ascend", "smoothing", smoothing, least=0)
    for _ in range(steps):
        slope = _blurred(gradient("ascend", model, pixels, target, log_softmax))
        largest = np.abs(slope).max(axis=(1, 2), keepdims=True)
        upward = slope / np.maximum(largest, np.finfo(slope.dtype).tiny)  # 0 where there is no slope at all
        calmer = _blurred(pixels) - pixels - FADING
        pixels = np.clip(pixels + step_size * (upward + smoothing * calmer), 0, 1)
    return pixels


def _blurred(images: Pixels) -> Pixels:
    """Blur images (N, H, W) by the weights 1, 4, 6, 4, 1 along both axes; zeros lie around them."""
    rows, columns = (_weights(length, images.dtype) for length in images.shape[1:])
    return np.asarray(rows @ images @ columns)


def _weights(length: int, dtype: Any) -> npt.NDArray[Any]:
    """Return the matrix (length, length) that blurs an axis."""
    place = np.arange(length)
    apart = np.abs(place[:, None] - place)
    return np.select([apart == 0, apart == 1, apart == 2], [6, 4, 1], 0).astype(dtype) / 16
