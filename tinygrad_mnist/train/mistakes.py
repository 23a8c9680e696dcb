"""A picture of what a classifier gets wrong (Matplotlib, from the ``train`` extra)."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.conversion import as_array
from .examples import as_examples, as_images
from .plots import figure_class, save_figure

__all__ = ["plot_mistakes"]

ACROSS, DOWN = 6, 4  # mistakes that are shown
WIDTH, HEIGHT = 11.0, 5.0  # of the figure, in inches
PLACES = {"left": 0.055, "right": 0.995, "bottom": 0.1, "top": 0.84, "wspace": 0.05, "width_ratios": (4.3, 6.7)}
BESIDE, ABOVE = 0.3, 0.4  # room beside an image, and for the words above it: shares of its size
MOST_CLASSES = 20  # whose counts are written into the confusion matrix


def plot_mistakes(
    images: Any, labels: npt.ArrayLike, logits: npt.ArrayLike, path: str | os.PathLike[str], title: str = ""
) -> None:
    """Draw the confusion matrix of a classifier, and its most confident mistakes, into a PNG.

    A mistake is an image whose largest logit is not that of its label; the probability of a class is the softmax of the
    logits. The 24 mistakes with the highest probabilities are shown, in this order, each with its label, the class that
    was predicted, and the probability of that.

    Parameters
    ----------
    images : array_like, shape (N, H, W), (N, 1, H, W) or (N, 3, H, W)
        Grey or colour, of any range: the lowest value of those that are shown is drawn in black, the highest in white.
    labels : array_like of int, shape (N,)
        The true classes, from 0 to K - 1.
    logits : array_like, shape (N, K)
        What `outputs` returns; of probabilities, pass their logarithms.
    path : str or PathLike
    title : str
        Of one line or two.

    Raises
    ------
    ImportError
        If Matplotlib is not installed (``pip install 'tinygrad_mnist[train]'``).
    ValueError
        If images, labels and logits do not fit each other, or a logit is NaN.

    Examples
    --------
    >>> from tinygrad_mnist.data import synthetic_digits
    >>> images, labels = synthetic_digits(4, rng=np.random.default_rng(0))
    >>> logits = np.eye(10)[(labels + [0, 0, 0, 1]) % 10]  # the last one is wrong
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_mistakes(images, labels, logits, pathlib.Path(folder, "mistakes.png"), "an example")
    """
    images, labels, logits = _checked(images, labels, logits)
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    sure = 1 / np.exp(logits[wrong] - logits[wrong].max(axis=1, keepdims=True)).sum(axis=1)  # softmax's largest
    order = np.argsort(-sure, kind="stable")[: ACROSS * DOWN]
    shown = wrong[order]
    figure = figure_class("plot_mistakes")(figsize=(WIDTH, HEIGHT))
    left, right = figure.subplots(1, 2, gridspec_kw=PLACES)
    count, classes = len(labels), logits.shape[1]
    _draw_matrix(left, np.bincount(classes * labels + predicted, minlength=classes**2).reshape(classes, classes))
    share = 100 * (count - len(wrong)) / count
    left.set_title(f"{count - len(wrong):,} of {count:,} correct ({share:.2f} %)", fontsize="medium")
    right.axis("off")
    if len(wrong):
        words = zip(labels[shown], predicted[shown], 100 * sure[order], strict=True)
        _draw_tiles(right, images[shown], [f"{true} → {guess}: {percent:.0f} %" for true, guess, percent in words])
        which = f"the {len(shown):,} most confident of " if len(shown) < len(wrong) else ""
        which += f"{len(wrong):,} mistakes" if len(wrong) > 1 else "a single mistake"
        right.set_title(f"{which}: label → prediction, its probability", fontsize="medium")
    else:
        right.text(0.5, 0.5, "no mistakes", ha="center", va="center", fontsize=16)
    save_figure(figure, path, title)


def _checked(images: Any, labels: Any, logits: Any) -> tuple[npt.NDArray[Any], ...]:
    caller = "plot_mistakes"
    images, labels = as_examples(caller, as_images(caller, images), as_array(caller, "labels", labels))
    logits = as_array(caller, "logits", logits)
    grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[1] in (1, 3)
    if not (grey or colour) or not images.size:
        words = "pass (N, H, W), or (N, C, H, W) of 1 or 3 channels"
        raise ValueError(f"{caller}: images have shape {images.shape}; {words}")
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(images):
        words = "pass one row for each, of two classes or more"
        raise ValueError(f"{caller}: {len(images)} images, and logits of shape {logits.shape}; {words}")
    finite = np.isfinite(logits.max(axis=1))  # of the others, -inf is the logarithm of a probability of 0
    if not finite.all():
        words = f"the logits of image {finite.argmin()} have a NaN or no finite largest one; leave such images out"
        raise ValueError(f"{caller}: {words}")
    if labels.ndim != 1:
        raise ValueError(f"{caller}: labels have shape {labels.shape}; pass (N,), one class for each image")
    last = logits.shape[1] - 1
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > last:
        found = f"{labels.dtype}, from {labels.min()} to {labels.max()}"
        raise ValueError(f"{caller}: labels are {found}; pass integers from 0 to {last}, one for each column of logits")
    return images, labels.astype(np.intp), logits.astype(np.float64)


def _draw_matrix(axis: Any, counts: npt.NDArray[Any]) -> None:
    """Draw how often each class was taken for each other; colours show mistakes alone, which are few."""
    mistakes = counts * (1 - np.eye(len(counts), dtype=int))
    axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1, 1.3 * mistakes.max()))  # dark numbers can be read on it
    axis.set(xlabel="predicted class", ylabel="label")
    if len(counts) > MOST_CLASSES:
        return
    axis.set(xticks=range(len(counts)), yticks=range(len(counts)))
    for (true, guess), count in np.ndenumerate(counts):
        if count:
            color = "#888888" if true == guess else "black"
            axis.text(guess, true, f"{count:,}", ha="center", va="center", fontsize=7, color=color)


def _draw_tiles(axis: Any, images: npt.NDArray[Any], words: list[str]) -> None:
    """Draw images in rows, as a single one: an axis for each would take a second."""
    images = images.astype(np.float64).reshape(len(images), -1, *images.shape[-2:])
    low, high = images.min(), images.max()
    images = np.moveaxis((images - low) / (high - low or 1), 1, -1)
    height, width = images.shape[1:3]
    down, across = math.ceil((1 + ABOVE) * height), math.ceil((1 + BESIDE) * width)
    canvas = np.ones((DOWN * down, ACROSS * across, images.shape[-1]))
    for number, (image, text) in enumerate(zip(images, words, strict=True)):
        top, left = number // ACROSS * down + down - height, number % ACROSS * across + (across - width) // 2
        canvas[top : top + height, left : left + width] = image
        axis.text(left + width / 2 - 0.5, top - 0.5 - 0.1 * height, text, ha="center", va="bottom", fontsize=7)
    grey = canvas.shape[-1] == 1
    axis.imshow(canvas[..., 0] if grey else canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
