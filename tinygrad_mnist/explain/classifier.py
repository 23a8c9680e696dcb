"""What the explanations share: images as pixels in [0, 1], the logits of a model and their record, target classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backward import grad, topological_order
from ..ops import softmax
from ..record import no_grad, recording
from ..tensor import Tensor

__all__ = ["Pixels", "as_pixels", "as_targets", "gradient", "probabilities", "recorded_logits"]

Pixels = npt.NDArray[np.floating[Any]]

# Images whose gradients are computed together. On blank paper all elements of a max-pooling window are the same number.
# Convolutions of more images are computed by Winograd's method, which rounds neighbours differently: the gradient would
# go to one of them by chance, and to another one in a batch of another size.
FEW = 4


def as_pixels(caller: str, images: Any) -> Pixels:
    """Convert images (N, H, W), uint8 or floats in [0, 1], to floats in [0, 1]: a new array.

    It is float64 where the images are, else float32.
    """
    try:
        array = np.asarray(images.data if isinstance(images, Tensor) else images)
    except Exception as error:  # ragged lists, or an __array__ that fails
        raise TypeError(f"{caller}: images of type {type(images).__name__} cannot become an array ({error})") from error
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(f"{caller}: images have shape {array.shape}; pass (N, H, W), one image as image[None]")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise TypeError(f"{caller}: images are {array.dtype}; pass uint8 pixels, or floats in [0, 1]")
    if array.dtype == np.uint8:
        return np.asarray(np.divide(array, 255, dtype=np.float32))
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN compares as False
        found = "NaN" if np.isnan(array).any() else f"from {array.min():g} to {array.max():g}"
        raise ValueError(f"{caller}: images of floats are {found}; pass pixels in [0, 1], or uint8 from 0 to 255")
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


def recorded_logits(caller: str, model: Any, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Call a model on pixels that require a gradient, and return them and the logits, also within `no_grad`."""
    x = Tensor(pixels, requires_grad=True)
    with recording(True):
        logits = _checked(caller, model(x), len(pixels))
    if not logits.requires_grad or not any(node is x for node in topological_order(logits)):
        raise ValueError(
            f"{caller}: the record of the logits does not lead back to the images; the model must compute with the "
            "Tensor that it gets, by ops or tg.data.as_input"
        )
    return x, logits


def gradient(caller: str, model: Any, pixels: Pixels, target: Any, scores: Callable[[Tensor], Tensor]) -> Pixels:
    """Compute the gradient of one of the scores that are made from the logits of each image, by its pixels.

    A few images at a time: see `FEW`.
    """
    count = len(pixels)
    if count <= FEW:
        return _gradient(caller, model, pixels, target, scores)
    per_image = target is not None and np.ndim(target) > 0
    if per_image and np.shape(target) != (count,):
        as_targets(caller, target, np.zeros((count, 1)))  # an error that names the number of all images
    found = []
    for start in range(0, count, FEW):
        piece = slice(start, start + FEW)
        own = np.asarray(target)[piece] if per_image else target
        found.append(_gradient(caller, model, pixels[piece], own, scores))
    return np.concatenate(found)


def _gradient(caller: str, model: Any, pixels: Pixels, target: Any, scores: Callable[[Tensor], Tensor]) -> Pixels:
    x, logits = recorded_logits(caller, model, pixels)
    classes = as_targets(caller, target, logits.data)
    with recording(True):
        chosen = scores(logits)[np.arange(len(classes)), classes].sum()
    (found,) = grad(chosen, [x], retain_graph=False)
    return found.data


def probabilities(caller: str, model: Any, pixels: Pixels) -> Pixels:
    """Compute the probabilities (N, K) of all classes."""
    with no_grad():
        return softmax(_checked(caller, model(Tensor(pixels)), len(pixels))).data


def _checked(caller: str, logits: Any, count: int) -> Tensor:
    """Return what a model has computed for so many images, if it is logits (N, K) that are finite."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        found = f"a Tensor of shape {logits.shape}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{caller}: for {count} images the model returns {found}; it must return logits (N, K) of at least two "
            "classes"
        )
    if not np.isfinite(logits.data).all():
        raise FloatingPointError(f"{caller}: the model returns logits that are NaN or infinite")
    return logits


def as_targets(caller: str, target: Any, scores: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return a class for each row of `scores` (N, K): the given one or ones, by default that of the largest score."""
    count, classes = scores.shape
    if target is None:
        return np.asarray(scores.argmax(axis=1))
    found = np.asarray(target)
    if found.dtype.kind not in "iu" and not (found.size == 0 and isinstance(target, (list, tuple))):
        raise TypeError(f"{caller}: target is {target!r}; it must be a class, an integer, or one for each image")
    if found.shape not in ((), (count,)):
        raise ValueError(f"{caller}: target has shape {found.shape}; pass one class, or one for each of {count} images")
    wrong = found[(found < 0) | (found >= classes)]
    if wrong.size:
        raise ValueError(f"{caller}: target is {wrong.flat[0]}; the model has the classes 0 to {classes - 1}")
    return np.broadcast_to(found, count).astype(np.intp)
