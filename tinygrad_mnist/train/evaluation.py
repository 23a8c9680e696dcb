"""Evaluate a model: predictions, loss, accuracy and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ..data.layout import channels_first
from ..debug.anomaly import locate_nonfinite
from ..nn.buffer import named_in
from ..ops import cross_entropy
from ..record import no_grad
from ..tensor import Tensor
from ..validation import integer
from .examples import as_classified, as_examples, as_inputs, several
from .inference import all_outputs, check_outputs, described, leaves, map_arrays, outputs_of_shards
from .shards import mean_loss

__all__ = ["Evaluation", "Loss", "Metrics", "accuracy", "evaluate", "predict"]

Loss = Callable[[Any, Any], Tensor]  # of outputs, as the model returns them, and labels
Metrics = Mapping[str, Callable[[Any, Any], Any]]  # of outputs, as ndarrays, and labels


def predict(model: Any, images: Any, threads: int | None = None, *, shifts: int = 0) -> npt.NDArray[np.intp]:
    """Predict the class of each image, that of the largest logit.

    Parameters
    ----------
    model : callable
        Images in, logits (N, K) of at least two classes out. `outputs` returns what other models compute.
    images, threads
        See `outputs`.
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
    return np.asarray(predicted_logits(model, images, threads, shifts).argmax(axis=1))


def predicted_logits(model: Any, images: Any, threads: int | None, shifts: int) -> npt.NDArray[Any]:
    """Compute what `predict` decides by: logits (N, K), those of an image and of its shifted copies added up."""
    inputs, shifts = several(as_inputs("predict", images)), integer("predict", "shifts", shifts)
    if shifts:
        if len(inputs) > 1:
            raise ValueError(
                f"predict: shifts is {shifts}, and the model has {len(inputs)} inputs; shift them yourself"
            )
        shape = inputs[0].shape
        if len(shape) < 3 or min(shape[-2:]) <= shifts:
            raise ValueError(f"predict: shifts is {shifts}, images have shape {shape}; pass (N, H, W), larger ones")
        if len(shape) == 4:
            channels_first("predict", inputs[0], known=False)
    if not len(inputs[0]):
        return np.zeros((0, 2))
    logits = all_outputs("predict", model, inputs, threads, shifts)
    check_outputs(model, inputs, logits)
    if not isinstance(logits, np.ndarray) or logits.ndim != 2 or logits.shape[1] < 2:
        words = "no logits (N, K) of at least two classes; see training.outputs"
        raise ValueError(f"predict: the model returns {described(logits)}, {words}")
    return logits


class Evaluation(NamedTuple):
    """Loss and accuracy of a model on labelled images."""

    loss: float  # mean over the images; of cross-entropy in nats
    accuracy: float  # fraction of the images whose class was predicted; NaN where outputs or labels are no classes


@overload
def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    threads: int | None = None,
    loss: Loss | None = None,
    metrics: None = None,
) -> Evaluation: ...


@overload
def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    threads: int | None = None,
    loss: Loss | None = None,
    *,
    metrics: Metrics,
) -> dict[str, float]: ...


@overload
def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    threads: int | None,
    loss: Loss | None,
    metrics: Metrics | None,
) -> Evaluation | dict[str, float]: ...


def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    threads: int | None = None,
    loss: Loss | None = None,
    metrics: Metrics | None = None,
) -> Evaluation | dict[str, float]:
    """Compute mean loss and accuracy, or metrics of your own, in inference.

    Parameters
    ----------
    model, images, threads
        See `tinygrad_mnist.training.outputs`.
    labels : array_like, or tuple of them, or None
        The true classes (N,), integers; with a `loss` of your own, or a model that has one, what that takes (see
        `Trainer`).
    loss : callable, optional
        ``loss(outputs, labels)``, a scalar Tensor: the mean over all images, of which it gets the outputs together. By
        default `cross_entropy`, where the outputs are logits (N, K) and the labels classes; else the model's own
        ``model.loss(images, labels, None)``, whose values of the shards are averaged by size, or by the weights that it
        returns beside them (see `parallel.value_and_grad`).
    metrics : dict of str to callable, optional
        ``metric(outputs, labels)``, a number: it gets what the model returns for all images, as ndarrays. They take the
        place of the accuracy; with ``{}`` the loss is alone.

    Returns
    -------
    Evaluation
        The accuracy is NaN where outputs are no logits (N, K) of at least two classes, or labels no integers (N,).
    dict of str to float
        ``loss`` and each metric, if `metrics` are given.

    Raises
    ------
    TypeError
        If the loss or a metric returns no number.
    ValueError
        If there are no images, or not one label for each, or an output has not one row for each.
    FloatingPointError
        If an output is NaN or the loss is not finite; the message says which op produced the first such value. If a
        metric is not finite.

    Examples
    --------
    >>> from tinygrad_mnist import Tensor
    >>> loss, accuracy = evaluate(Tensor, np.zeros((2, 10)), np.array([3, 0]))  # a model that takes logits for images
    >>> round(loss, 4), accuracy
    (2.3026, 0.5)
    >>> error = {"largest error": lambda outputs, y: abs(outputs - y).max()}
    >>> evaluate(Tensor, np.ones(3), np.arange(3), loss=lambda outputs, y: ((outputs - y) ** 2).mean(), metrics=error)
    {'loss': 0.6666666666666666, 'largest error': 1.0}
    """
    own = loss is None and getattr(model, "loss", None) is not None
    examples = (as_examples if loss or own else as_classified)("evaluate", images, labels)
    indices = (
        isinstance(examples.labels, np.ndarray) and examples.labels.ndim == 1 and examples.labels.dtype.kind in "biu"
    )
    found: Any = ()
    if indices or metrics or not own:  # else the model's own loss says it all
        found = all_outputs("evaluate", model, examples.inputs, threads)
        check_outputs(model, examples.inputs, found)
    logits = isinstance(found, np.ndarray) and found.ndim == 2 and found.shape[1] > 1
    classes = not (loss or own) or (logits and indices)
    function = loss or (cross_entropy if classes else None)

    def own_loss(*arrays: npt.NDArray[Any]) -> Any:
        return examples.with_arrays(arrays).model_loss(model, None)

    def measure(threads: int | None = 1) -> float:
        with np.errstate(invalid="ignore"):  # infinity minus infinity is reported below
            if function:
                with no_grad():
                    value = function(map_arrays(Tensor, found), examples.target)
                return _number("loss", value[0] if isinstance(value, tuple) else value)  # of (loss, weight)
            with named_in(model):
                return mean_loss(own_loss, *examples.arrays, threads=threads)

    mean = measure(threads)
    if not math.isfinite(mean):
        finite = all(np.isfinite(array).all() for array in leaves(found))
        origin = measure if finite else lambda: list(outputs_of_shards("evaluate", model, examples.inputs, 1))
        raise FloatingPointError(f"evaluate: the loss is {mean}; {locate_nonfinite(origin)}")
    if metrics is None:
        return Evaluation(mean, float(np.mean(found.argmax(axis=1) == examples.labels)) if classes else math.nan)
    scores = {name: _finite(f"metric {name}", metric(found, examples.target)) for name, metric in metrics.items()}
    return {"loss": mean, **scores}


def accuracy(model: Any, images: Any, labels: npt.ArrayLike, threads: int | None = None, *, shifts: int = 0) -> float:
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
    images, labels = as_classified("accuracy", images, labels)
    return float(np.mean(predict(model, images, threads, shifts=shifts) == labels))


def _number(name: str, value: Any) -> float:
    array = np.asarray(value.data if isinstance(value, Tensor) else value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise TypeError(f"evaluate: {name} returned {described(value)}; it must return a number")
    return float(array.item())


def _finite(name: str, value: Any) -> float:
    number = _number(name, value)
    if not math.isfinite(number):
        raise FloatingPointError(f"evaluate: {name} is {number}")
    return number
