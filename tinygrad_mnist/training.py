"""The training loop as a stream of steps, and what people look at: accuracy, held-out images, curves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .data import batches
from .functional import cross_entropy
from .nn import parameters
from .optim import Optimizer
from .parallel import map_shards, value_and_grad
from .tensor import no_grad

__all__ = ["Evaluation", "Step", "accuracy", "evaluate", "fit", "hold_out", "plot_curves", "predict"]


class Step(NamedTuple):
    """One step of training: what `fit` yields."""

    epoch: int  # from 1
    step: int  # from 1, over all epochs
    loss: float  # mean over the batch, in nats, from the forward pass that the gradient came from
    images: int  # in the batch
    last: bool  # of its epoch


def fit(
    model: Any,
    optimizer: Optimizer,
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    *,
    epochs: int,
    batch_size: int = 500,
    rng: np.random.Generator,
    shard_size: int | None = None,
    threads: int | None = None,
) -> Iterator[Step]:
    """Train a model, one optimiser step for each item that is taken from the returned iterator.

    Parameters
    ----------
    model : object
        With ``loss(images, labels, rng) -> Tensor``.
    optimizer : Optimizer
        Of the model's parameters.
    images, labels : ndarray
        Equally long.
    epochs, batch_size : int
    rng : numpy.random.Generator
        Decides the order of the images and what dropout drops.
    shard_size, threads : int, optional
        See `parallel.value_and_grad`; the result does not depend on `threads`.

    Yields
    ------
    Step
    """
    weights = parameters(model)
    step = 0
    for epoch in range(1, epochs + 1):
        for index in (order := list(batches(len(images), batch_size, rng))):
            loss, grads = value_and_grad(model.loss, weights, images[index], labels[index], rng=rng, shard_size=shard_size, threads=threads)
            optimizer.step(grads)
            step += 1
            yield Step(epoch, step, loss, len(index), index is order[-1])


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

    loss: float  # mean cross-entropy, in nats
    accuracy: float  # share of the images whose class was predicted


def evaluate(model: Any, images: npt.NDArray[Any], labels: npt.NDArray[Any], threads: int | None = None) -> Evaluation:
    """Mean cross-entropy and accuracy, in inference; parameters as `predict`'s, and the true classes, an integer for each image.

    Raises
    ------
    ValueError
        If there is no image, or not one class index for each.

    Examples
    --------
    >>> from tinygrad_mnist import Tensor
    >>> loss, accuracy = evaluate(Tensor, np.zeros((2, 10)), np.array([3, 0]))
    >>> round(loss, 4), accuracy
    (2.3026, 0.5)
    """
    _check_labels("evaluate", images, labels)
    logits = np.concatenate(list(_logits(model, images, threads)))
    with no_grad():
        return Evaluation(cross_entropy(logits, labels).item(), float(np.mean(logits.argmax(axis=1) == labels)))


def accuracy(model: Any, images: npt.NDArray[Any], labels: npt.NDArray[Any], threads: int | None = None) -> float:
    """Share of images whose largest logit is that of their label."""
    _check_labels("accuracy", images, labels)
    return np.count_nonzero(predict(model, images, threads) == labels) / len(labels)


def _check_labels(caller: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    if not len(images) or np.shape(labels) != (len(images),):
        raise ValueError(f"{caller}: {len(images)} images, and labels of shape {np.shape(labels)}; pass one class index for each image")


def _logits(model: Any, images: npt.NDArray[Any], threads: int | None) -> Iterator[npt.NDArray[Any]]:
    def infer(number: int, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with no_grad():
            out: npt.NDArray[Any] = model(x).data
            return out

    return map_shards(infer, images, threads=threads) if len(images) else iter(())


def hold_out(labels: npt.NDArray[Any], count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split into training and validation, every class with its share of the `count` validation examples (to within one).

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
        raise ValueError(f"hold_out: cannot hold out {count} of {len(labels)} examples; at least one must remain for training")
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    held = by_class[(np.arange(count) * len(labels)) // max(count, 1)]  # evenly spaced over the classes
    return np.setdiff1d(order, held), np.sort(held)


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str) -> None:
    """Draw the loss of every step and the accuracy of every epoch into a PNG.

    Parameters
    ----------
    rows : sequence of dict
        The lines of ``metrics.jsonl``, as `scripts/train_mnist.py` writes them.
    path : str or PathLike
    title : str
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_curves: drawing needs Matplotlib; install it with pip install 'tinygrad_mnist[train]'") from error
    steps = [row for row in rows if row["event"] == "step"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    per_epoch = max((row["step"] for row in steps if row["epoch"] == 1), default=1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] / per_epoch for r in steps], [r["loss"] for r in steps], color="#9ecae1", linewidth=0.8, label="each step")
    left.plot([r["epoch"] - 0.5 for r in epochs], [r["mean_loss"] for r in epochs], color="#08519c", marker="o", label="mean of the epoch")
    left.set(title="Training loss", xlabel="epoch", ylabel="cross-entropy (nats)", ylim=(0, None))
    left.legend()
    for name, color, marker in (("train", "#d95f02", "s"), ("validation", "#1b9e77", "o")):
        known = [row for row in epochs if row.get(f"{name}_accuracy") is not None]
        right.plot([r["epoch"] for r in known], [100 * r[f"{name}_accuracy"] for r in known], color=color, marker=marker, label=name)
    for row in (row for row in rows if row["event"] == "test"):
        percent = 100 * row["test_accuracy"]
        right.axhline(percent, color="#555555", linestyle="--", label=f"test, at the end: {percent:.2f} %")
    right.set(title="Accuracy", xlabel="epoch", ylabel="correct (%)")
    right.grid(alpha=0.3)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
