"""Trained classifiers of digits: the weights of this folder, or those of a run or a file of your own."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

__all__ = ["CLASSIFIERS", "SHIPPED", "Classifier", "describe", "describe_data", "load_classifier"]

SHIPPED = Path(__file__).with_name("deep_convnet.safetensors")
CLASSIFIERS = {  # and the largest whole number among its arguments: a file must not ask for a model of any size
    "deep_convnet.DeepConvNet": 6,
    "lenet.LeNet5": 0,
    "mlp.MLP": 10_000,
    "resnet.ResNet": 0,
    "vision_transformer.VisionTransformer": 100,
}
LONGEST = 4000  # characters of an error that lists what does not fit
DTYPES = ("float16", "float32", "float64")  # others may take any room


@dataclass(frozen=True)
class Classifier:
    """A trained model of images (N, 28, 28), and what is known about it."""

    model: Any  # images (N, 28, 28) uint8, or a Tensor of floats in [0, 1] -> logits (N, 10)
    name: str  # such as "deep_convnet.DeepConvNet"
    path: Path  # of the weights
    temperature: float = 1.0  # that logits are divided by
    metadata: dict[str, str] = field(default_factory=dict)  # all that the file says


def describe(name: str, **arguments: Any) -> dict[str, str]:
    """Metadata by which `load_classifier` knows the model of a file of weights.

    Parameters
    ----------
    name : str
        Of the model in this folder: one of `CLASSIFIERS`.
    **arguments
        What it was made with, but for `rng`: numbers, strings and None.

    Raises
    ------
    ValueError
        If the model is not known, or `load_classifier` would refuse an argument.

    Examples
    --------
    >>> describe("deep_convnet.DeepConvNet", depth=5)
    {'model': 'deep_convnet.DeepConvNet', 'arguments': '{"depth": 5}'}
    """
    if name not in CLASSIFIERS:
        raise ValueError(f"describe: {name} is not a classifier of models/; use one of {', '.join(CLASSIFIERS)}")
    _check_arguments(name, arguments)
    return {"model": name, "arguments": json.dumps(arguments)}


def describe_data(data: tg.data.Dataset, count: int) -> str:
    """Words for what a model was trained on: so many images of a data set, without the place where it was found.

    Examples
    --------
    >>> images, labels = tg.data.synthetic_digits(2, rng=np.random.default_rng(0))
    >>> describe_data(tg.data.Dataset(images, labels, images, labels, "MNIST from /home/me/mnist", False), 55_000)
    'MNIST: 55,000 training images'
    """
    kind = "synthetic digits" if data.synthetic else data.source.split(" from ")[0]
    return f"{kind}: {count:,} training images"


def load_classifier(path: str | os.PathLike[str] = SHIPPED) -> Classifier:
    """Load a trained classifier from a file of weights, by default the one that stands here.

    The file says which model it is of, see `describe`. One that says nothing is of a `DeepConvNet` that was made with
    no arguments but its depth.

    Parameters
    ----------
    path : str or PathLike

    Raises
    ------
    FileNotFoundError
    CheckpointError
        Naming the file and the model, if it is of another one than it says, or of none that is known, or if anything
        else is wrong with it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "weights.safetensors")
    ...     about = {**describe("deep_convnet.DeepConvNet", depth=4), "temperature": "1.25"}
    ...     tg.checkpoint.save_weights(path, tg.nn.state_dict(DeepConvNet(depth=4)), about)
    ...     found = load_classifier(path)
    >>> found.name, len(found.model.layers), found.temperature
    ('deep_convnet.DeepConvNet', 16, 1.25)
    """
    path = Path(path)
    metadata = tg.checkpoint.load_metadata(path)
    if "model" in metadata:
        name = metadata["model"]
        model = _described(path, name, metadata.get("arguments", "{}"))
    elif "exported from" in metadata:
        raise tg.checkpoint.CheckpointError(
            f"{path} holds weights of {_short(metadata['exported from'])} in the layout of PyTorch; name the file that "
            "they were exported from"
        )
    else:
        name = "deep_convnet.DeepConvNet"
        model = _unnamed(path)
    try:
        tg.nn.load_state_dict(model, tg.checkpoint.load_weights(path, like=model))
    except tg.checkpoint.CheckpointError as error:
        words = str(error) if len(str(error)) < LONGEST else f"{str(error)[:LONGEST]}…"
        raise tg.checkpoint.CheckpointError(f"{words} (model: {name})") from error
    _try_out(path, name, model)
    return Classifier(model, name, path, _temperature(path, metadata), metadata)


def _make(name: str, arguments: Mapping[str, Any]) -> Any:
    module, _, kind = name.partition(".")
    return getattr(importlib.import_module(f"models.{module}"), kind)(rng=np.random.default_rng(0), **arguments)


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError for arguments that are no plain values, or make a model that takes much memory."""
    for key, value in arguments.items():
        right = isinstance(value, str | float | None) or (isinstance(value, int) and value <= CLASSIFIERS[name])
        if not right or (key == "dtype" and value not in DTYPES):
            raise ValueError(
                f"{name}: {key} is {value!r:.50}; arguments are numbers, whole ones of at most {CLASSIFIERS[name]}, "
                f"strings and None, and a dtype is one of {', '.join(DTYPES)}"
            )


def _described(path: Path, name: str, text: str) -> Any:
    """Make the model that a file says it is of, if that is one of `CLASSIFIERS`."""
    if name not in CLASSIFIERS:
        known = ", ".join(CLASSIFIERS)
        raise tg.checkpoint.CheckpointError(
            f"{path} says that it is of {_short(name)}, which is no classifier of models/; use weights of {known}"
        )
    try:
        arguments = json.loads(text)
        if not isinstance(arguments, dict):
            raise TypeError("they are no object")
        _check_arguments(name, arguments)
        return _make(name, arguments)
    except (TypeError, ValueError, RecursionError) as error:
        raise tg.checkpoint.CheckpointError(
            f"{path} says that it is of {name} with the arguments {_short(text)}, which are wrong ({_short(error)}); "
            "save it with those that the model was made with"
        ) from error


def _unnamed(path: Path) -> DeepConvNet:
    """Make the model of a file that does not say it, from its names and shapes."""
    found = _shapes(tg.checkpoint.load_weights(path))
    for depth in (6, 5, 4):
        if _shapes(tg.nn.state_dict(model := DeepConvNet(depth=depth))) == found:
            return model
    fitting = [name for name in CLASSIFIERS if _shapes(tg.nn.state_dict(_make(name, {}))) == found]
    problem = f"fit {fitting[0]}, but it does not say so" if fitting else "are of no model of models/"
    raise tg.checkpoint.CheckpointError(
        f"the weights in {path} {problem}; save them with metadata=models.pretrained.describe(name of the model)"
    )


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (array.shape, array.dtype) for name, array in weights.items()}


def _try_out(path: Path, name: str, model: Any) -> None:
    """Raise an error for a model that has no answer, or one that is not finite."""
    try:
        with tg.no_grad(), np.errstate(over="ignore", invalid="ignore"):
            logits = model(np.full((1, 28, 28), 255, np.uint8)).data
    except RuntimeError as error:  # batch normalization without statistics
        raise tg.checkpoint.CheckpointError(f"{path}, of {name}, is not trained: {error}") from error
    if not np.isfinite(logits).all():
        raise tg.checkpoint.CheckpointError(
            f"{path}, of {name}, has weights so large that its answers are not finite; use those of an earlier epoch"
        )


def _temperature(path: Path, metadata: Mapping[str, str]) -> float:
    text = metadata.get("temperature", "1")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise tg.checkpoint.CheckpointError(
            f"{path} says that its temperature is {_short(text)}; it must be a finite number above 0: save it anew"
        )
    return value


def _short(value: object) -> str:
    """Return text of a file for a message: in one line, not long."""
    text = str(value).encode("unicode_escape").decode()
    return text if len(text) <= 100 else f"{text[:100]}…"
