"""How good a model is: predictions, loss and accuracy; images held out, and what they select."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..debug.anomaly import detect_anomaly
from ..functional import cross_entropy
from ..tensor import Tensor, no_grad
from .shards import map_shards

__all__ = [
    "Evaluation",
    "accuracy",
    "best_epoch",
    "check_labels",
    "culprit",
    "evaluate",
    "hold_out",
    "predict",
    "should_stop",
]


def predict(model: Any, images: npt.NDArray[Any], threads: int | None = None) -> npt.NDArray[np.intp]:
    """Class of each image: that of its largest logit.

    Parameters
    ----------
    model : callable
        Images in, logits (N, K) out.
    images : ndarray, shape (N, ...)
    threads : int, optional
        See `parallel.value_and_grad`; the result does not depend on it.

    Returns
    -------
    ndarray of intp, shape (N,)

    Examples
    --------
    >>> from tinygrad_mnist import Tensor
    >>> predict(Tensor, np.array([[0.0, 2.0], [3.0, 1.0]])).tolist()  # a model that takes logits for images
    [1, 0]
    """
    parts = [logits.argmax(axis=1) for logits in _logits(model, images, threads)]
    return np.concatenate(parts) if parts else np.zeros(0, np.intp)


class Evaluation(NamedTuple):
    """How well a model does on labelled images: what `evaluate` returns."""

    loss: float  # mean over the images; of cross-entropy in nats
    accuracy: float  # share of the images whose class was predicted


def evaluate(
    model: Any,
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    threads: int | None = None,
    loss: Callable[[Tensor, npt.NDArray[Any]], Tensor] | None = None,
) -> Evaluation:
    """Mean loss and accuracy, in inference.

    Parameters
    ----------
    model, images, threads
        See `predict`.
    labels : ndarray of int, shape (N,)
        The true classes.
    loss : callable, optional
        ``loss(logits, labels)``, a scalar Tensor: the mean over all images; `cross_entropy` by default.

    Raises
    ------
    ValueError
        If there is no image, or not one class index for each.
    FloatingPointError
        If a logit is NaN, or the loss not finite: it says where that began.

    Examples
    --------
    >>> from tinygrad_mnist import Tensor
    >>> loss, accuracy = evaluate(Tensor, np.zeros((2, 10)), np.array([3, 0]))  # a model that takes logits for images
    >>> round(loss, 4), accuracy
    (2.3026, 0.5)
    """
    check_labels("evaluate", images, labels)
    logits = np.concatenate(list(_logits(model, images, threads)))
    with no_grad(), np.errstate(invalid="ignore"):  # infinity minus infinity is told below
        mean = (loss or cross_entropy)(Tensor(logits), labels).item()
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"evaluate: the loss is {mean}; {culprit(lambda: list(_logits(model, images, threads=1)))}"
        )
    return Evaluation(mean, float(np.mean(logits.argmax(axis=1) == labels)))


def accuracy(model: Any, images: npt.NDArray[Any], labels: npt.NDArray[Any], threads: int | None = None) -> float:
    """Share of images whose largest logit is that of their label."""
    check_labels("accuracy", images, labels)
    return np.count_nonzero(predict(model, images, threads) == labels) / len(labels)


def check_labels(caller: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    """Raise a ValueError unless there are images, and a label for each."""
    if not len(images) or np.shape(labels) != (len(images),):
        raise ValueError(
            f"{caller}: {len(images)} images, and labels of shape {np.shape(labels)}; pass one class index for each "
            "image"
        )


def _logits(model: Any, images: npt.NDArray[Any], threads: int | None) -> Iterator[npt.NDArray[Any]]:
    def infer(number: int, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with no_grad():
            out: npt.NDArray[Any] = model(x).data
            if np.isnan(out).any():
                raise FloatingPointError(f"a logit is NaN: {culprit(lambda: model(x))}")
            return out

    return map_shards(infer, images, threads=threads) if len(images) else iter(())


def hold_out(
    labels: npt.NDArray[Any], count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split into training and validation, every class with its share of the `count` validation examples (to within
    one).

    Returns
    -------
    training, validation : ndarray of intp
        Sorted positions; together all of them.

    Examples
    --------
    >>> training, validation = hold_out(np.array([0, 1, 0, 1, 0, 1]), 2, np.random.default_rng(0))
    >>> len(training), len(validation)
    (4, 2)
    """
    if not 0 <= count < len(labels):
        raise ValueError(
            f"hold_out: cannot hold out {count} of {len(labels)} examples; at least one must remain for training"
        )
    labels = np.asarray(labels)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    held = by_class[(np.arange(count) * len(labels)) // max(count, 1)]  # evenly spaced over the classes
    return np.setdiff1d(order, held), np.sort(held)


def best_epoch(scores: Sequence[Any]) -> int:
    """Position of the first of the highest scores.

    Examples
    --------
    >>> best_epoch([0.97, 0.98, 0.98])
    1
    """
    if not scores:
        raise ValueError("best_epoch: there are no scores yet")
    return max(range(len(scores)), key=scores.__getitem__)


def should_stop(scores: Sequence[Any], patience: int) -> bool:
    """Whether the last `patience` scores are no higher than the best one before them.

    Examples
    --------
    >>> should_stop([0.97, 0.98, 0.98], patience=2), should_stop([0.97, 0.98, 0.98, 0.97], patience=2)
    (False, True)
    """
    return len(scores) > patience and best_epoch(scores) < len(scores) - patience


def culprit(function: Callable[[], Any]) -> str:
    """Compute something once more, op by op, and say where the first NaN, or the first infinity of finite numbers,
    appeared.
    """
    with detect_anomaly() as watcher:
        try:
            function()
        except FloatingPointError as error:
            return f"{watcher.first_infinity}; then {error}" if watcher.first_infinity else str(error)
    return watcher.first_infinity or "no op made it: it was given, or came from adding up"
