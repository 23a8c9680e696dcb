"""Evaluate a model: predictions, loss and accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.conversion import as_array
from ..debug.anomaly import locate_nonfinite
from ..nn.buffer import named_in
from ..ops import cross_entropy
from ..record import no_grad
from ..tensor import Tensor
from ..validation import integer
from .shards import map_shards

__all__ = ["Evaluation", "accuracy", "as_images", "as_labelled", "evaluate", "predict"]


def predict(model: Any, images: npt.ArrayLike, threads: int | None = None, *, shifts: int = 0) -> npt.NDArray[np.intp]:
    """Predict the class of each image, that of the largest logit.

    Parameters
    ----------
    model : callable
        Images in, logits (N, K) out.
    images : array_like, shape (N, ...)
        Taken by position, as everywhere: an index of pandas plays no part.
    threads : int, optional
        See `parallel.value_and_grad`; the result does not depend on it.
    shifts : int
        If not 0, add up the logits of an image and of its copies that are shifted by so many pixels up, down, left and
        right, with zeros behind them (test-time augmentation). Images are (N, H, W) or (N, C, H, W) then.

    Returns
    -------
    ndarray of intp, shape (N,)

    Examples
    --------
    >>> from tinygrad_mnist import Tensor
    >>> predict(Tensor, np.array([[0.0, 2.0], [3.0, 1.0]])).tolist()  # a model whose input are the logits
    [1, 0]
    """
    images, shifts = as_images("predict", images), integer("predict", "shifts", shifts)
    if shifts and (images.ndim < 3 or min(images.shape[-2:]) <= shifts):
        raise ValueError(f"predict: shifts is {shifts}, images have shape {images.shape}; pass (N, H, W), larger ones")
    parts = [logits.argmax(axis=1) for logits in _logits(model, images, threads, shifts)]
    return np.concatenate(parts) if parts else np.zeros(0, np.intp)


class Evaluation(NamedTuple):
    """Loss and accuracy of a model on labelled images."""

    loss: float  # mean over the images; of cross-entropy in nats
    accuracy: float  # fraction of the images whose class was predicted


def evaluate(
    model: Any,
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    threads: int | None = None,
    loss: Callable[[Tensor, npt.NDArray[Any]], Tensor] | None = None,
) -> Evaluation:
    """Compute mean loss and accuracy, in inference.

    Parameters
    ----------
    model, images, threads
        See `predict`.
    labels : array_like of int, shape (N,)
        The true classes.
    loss : callable, optional
        ``loss(logits, labels)``, a scalar Tensor: the mean over all images; `cross_entropy` by default.

    Raises
    ------
    ValueError
        If there are no images, or not one class index for each.
    FloatingPointError
        If a logit is NaN or the loss is not finite; the message says which op produced the first such value.

    Examples
    --------
    >>> from tinygrad_mnist import Tensor
    >>> loss, accuracy = evaluate(Tensor, np.zeros((2, 10)), np.array([3, 0]))  # a model that takes logits for images
    >>> round(loss, 4), accuracy
    (2.3026, 0.5)
    """
    images, labels = as_labelled("evaluate", images, labels)
    logits = np.concatenate(list(_logits(model, images, threads)))

    def measure() -> float:
        with no_grad(), np.errstate(invalid="ignore"):  # infinity minus infinity is reported below
            return (loss or cross_entropy)(Tensor(logits), labels).item()

    mean = measure()
    if not math.isfinite(mean):
        origin = measure if np.isfinite(logits).all() else lambda: list(_logits(model, images, threads=1))
        raise FloatingPointError(f"evaluate: the loss is {mean}; {locate_nonfinite(origin)}")
    return Evaluation(mean, float(np.mean(logits.argmax(axis=1) == labels)))


def accuracy(
    model: Any, images: npt.ArrayLike, labels: npt.ArrayLike, threads: int | None = None, *, shifts: int = 0
) -> float:
    """Return the fraction of images whose largest logit is that of their label.

    Parameters
    ----------
    model, images, labels, threads, shifts
        See `evaluate` and `predict`.

    Examples
    --------
    >>> accuracy(Tensor, np.array([[0.0, 2.0], [3.0, 1.0]]), np.array([1, 1]))  # a model whose input are the logits
    0.5
    """
    images, labels = as_labelled("accuracy", images, labels)
    return float(np.mean(predict(model, images, threads, shifts=shifts) == labels))


def as_images(caller: str, images: Any, name: str = "images") -> npt.NDArray[Any]:
    """Convert images to an array, by position; an ndarray is returned as it is, unless it holds objects."""
    whole = type(images) is np.ndarray and images.dtype != object
    return images if whole else as_array(caller, name, images)


def as_labelled(caller: str, images: Any, labels: Any, which: str = "") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Convert images and labels to arrays; raise a ValueError unless there are images and one label for each."""
    images, labels = as_images(caller, images, f"{which}images"), as_array(caller, f"{which}labels", labels)
    count = len(images) if images.shape else 0
    if not count or labels.shape != (count,):
        raise ValueError(
            f"{caller}: {count} {which}images, and labels of shape {labels.shape}; pass one class index for each image"
        )
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{caller}: {which}labels hold NaN, for missing ones; leave those examples out")
    return images, labels


def _logits(model: Any, images: npt.NDArray[Any], threads: int | None, shifts: int = 0) -> Iterator[npt.NDArray[Any]]:
    moves = [(shifts, 0), (-shifts, 0), (0, shifts), (0, -shifts)] if shifts else []

    def infer(number: int, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with no_grad():
            out: npt.NDArray[Any] = model(x).data
            for down, right in moves:
                out = out + model(_shifted(x, down, right)).data
            if np.isnan(out).any():
                raise FloatingPointError(f"a logit is NaN: {locate_nonfinite(lambda: model(x))}")
            return out

    if len(images):
        with named_in(model):
            yield from map_shards(infer, images, threads=threads)


def _shifted(images: npt.NDArray[Any], down: int, right: int) -> npt.NDArray[Any]:
    """Shift images (..., H, W) by pixels; zeros come in at the border."""

    def overlap(by: int) -> tuple[slice, slice]:  # of the new and of the old axis
        return slice(max(by, 0), min(by, 0) or None), slice(max(-by, 0), min(-by, 0) or None)

    (new_rows, rows), (new_columns, columns) = overlap(down), overlap(right)
    moved = np.zeros_like(images)
    moved[..., new_rows, new_columns] = images[..., rows, columns]
    return moved
