"""The gradient of a logit by the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..record import as_tensor
from ..validation import integer, real
from .classifier import Pixels, as_pixels, as_targets, gradient, probabilities

__all__ = ["saliency"]


def saliency(model: Any, images: Any, target: Any = None, *, samples: int = 1, noise: float = 0.15) -> Pixels:
    """Gradient of a logit of each image by its pixels: which pixels, made brighter, would raise or lower the logit.

    It is signed: positive where a brighter pixel raises the logit, negative where it lowers it. It holds for small
    changes alone. Its absolute value is the saliency map of Simonyan et al. (2014).

    Parameters
    ----------
    model : callable
        A classifier: Tensor (N, H, W) of pixels in [0, 1] in, logits (N, K) out, computed by recorded ops
        (`tinygrad_mnist.data.as_input` is one of them). Its parameters, their gradients and its buffers stay as they
        are.
    images : array_like, shape (N, H, W)
        uint8, or floats in [0, 1]. They are computed at once: pass some hundred at a time.
    target : int or array_like of int, shape (N,), optional
        The class whose logit is explained, or one for each image; by default that of the largest logit.
    samples : int
        With more than one, the mean gradient over so many copies of each image to which noise is added (SmoothGrad,
        Smilkov et al., 2017): less speckled. The same noise in every call.
    noise : float
        Standard deviation of that noise, in units of the full brightness.

    Returns
    -------
    ndarray, shape (N, H, W)
        In logits per unit of brightness: a pixel goes from 0 to 1. float64 where the images are, else float32.

    Raises
    ------
    TypeError, ValueError
        If images, target or settings are none of these, or the model returns no logits (N, K), or they have no record
        that leads back to the images.
    FloatingPointError
        If a logit is NaN or infinite.

    Examples
    --------
    >>> model = lambda x: x.reshape(-1, 2) @ np.array([[1.0, -2.0], [0.0, 3.0]])
    >>> saliency(model, np.array([[[1.0, 0.5]]]), target=1)
    array([[[-2.,  3.]]])
    """
    pixels = as_pixels("saliency", images)
    samples = integer("saliency", "samples", samples, 1)
    noise = real("saliency", "noise", noise, least=0)
    if samples == 1:
        return gradient("saliency", model, pixels, target, as_tensor)
    classes = as_targets("saliency", target, probabilities("saliency", model, pixels))  # of the images without noise
    size = pixels.shape[1:]
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, noise, (samples, 1, *size))
    copies = (pixels + shifts).astype(pixels.dtype)
    repeated = np.tile(classes, samples)
    slopes = gradient("saliency", model, copies.reshape(-1, *size), repeated, as_tensor)
    return np.asarray(slopes.reshape(copies.shape).mean(axis=0))
