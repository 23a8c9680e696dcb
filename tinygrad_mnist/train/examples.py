"""What a model is trained and measured on: inputs, one array or several, and labels of any kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.conversion import as_array

__all__ = ["Examples", "as_classified", "as_examples", "as_images", "as_inputs", "several"]

Arrays = tuple[npt.NDArray[Any], ...]


class Examples(NamedTuple):
    """Inputs and labels, equally long and paired by position."""

    images: Any  # an array, or a tuple of arrays for a model of several inputs
    labels: Any  # an array, a tuple of arrays, or None

    @property
    def inputs(self) -> Arrays:
        """What the model is called with."""
        return several(self.images)

    @property
    def arrays(self) -> Arrays:
        """Inputs and labels in a row, to be cut into batches and shards."""
        return self.inputs if self.labels is None else self.inputs + several(self.labels)

    @property
    def size(self) -> int:
        """How many examples there are."""
        return len(self.inputs[0])

    @property
    def target(self) -> Any:
        """What a loss compares outputs with: the labels, or the inputs where there are none."""
        return self.images if self.labels is None else self.labels

    def model_loss(self, model: Any, rng: np.random.Generator | None) -> Any:
        """Return what the model's own loss is for these examples."""
        if self.labels is None:
            return model.loss(*self.inputs, rng)
        return model.loss(*self.inputs, self.labels, rng)

    def with_arrays(self, arrays: Arrays) -> Examples:
        """Return other examples of the same kind, from what their `arrays` are."""
        inputs = len(self.inputs)
        images = arrays[:inputs] if isinstance(self.images, tuple) else arrays[0]
        if self.labels is None:
            return Examples(images, None)
        labels = arrays[inputs:] if isinstance(self.labels, tuple) else arrays[inputs]
        return Examples(images, labels)


def as_images(caller: str, images: Any, name: str = "images") -> npt.NDArray[Any]:
    """Convert images to an array, by position; an ndarray is returned as it is, unless it holds objects."""
    whole = type(images) is np.ndarray and images.dtype != object
    return images if whole else as_array(caller, name, images)


def as_inputs(caller: str, images: Any, name: str = "images") -> Any:
    """Convert the input of a model to an array, or its inputs, a tuple of arrays, to equally long ones."""
    if not _is_several(images):
        return as_images(caller, images, name)
    arrays = tuple(as_images(caller, part, f"{name}[{i}]") for i, part in enumerate(images))
    lengths = [_length(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"{caller}: {name} are arrays of {lengths} examples; pass equally long ones")
    return arrays


def as_examples(caller: str, images: Any, labels: Any, which: str = "") -> Examples:
    """Convert images and labels of any kind to arrays; raise a ValueError unless they are equally long."""
    images = as_inputs(caller, images, f"{which}images")
    if _is_several(labels):
        labels = tuple(_as_labels(caller, part, f"{which}labels[{i}]") for i, part in enumerate(labels))
    elif labels is not None:
        labels = _as_labels(caller, labels, f"{which}labels")
    count = _length(several(images)[0])
    found = [] if labels is None else [_length(part) for part in several(labels)]
    wrong = [other for other in found if other != count]
    if wrong or not count:
        raise ValueError(
            f"{caller}: {count} {which}images and {wrong[0] if wrong else count} labels; pass one label for each "
            "image, several inputs as a tuple of arrays"
        )
    return Examples(images, labels)


def as_classified(caller: str, images: Any, labels: Any, which: str = "") -> Examples:
    """Convert images and labels to arrays; raise a ValueError unless there are images and one class for each."""
    remedy = "pass one class index for each image"
    anything = "" if caller == "accuracy" else ", or loss=, such as tg.cross_entropy for one-hot rows, or tg.mse_loss"
    if labels is None:
        raise TypeError(f"{caller}: {which}labels, of type NoneType, are no classes; {remedy}{anything}")
    images = as_inputs(caller, images, f"{which}images")
    labels = as_array(caller, f"{which}labels", labels)
    count = _length(several(images)[0])
    if not count or labels.shape != (count,):
        remedy += anything if count and labels.ndim > 1 and len(labels) == count else ""
        raise ValueError(f"{caller}: {count} {which}images, and labels of shape {labels.shape}; {remedy}")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{caller}: {which}labels hold NaN, for missing ones; leave those examples out")
    if labels.dtype.kind == "f" and anything:
        raise TypeError(f"{caller}: {which}labels are {labels.dtype}; {remedy}, an integer{anything}")
    return Examples(images, labels)


def _length(array: npt.NDArray[Any]) -> int:
    return len(array) if array.shape else 0


def _as_labels(caller: str, labels: Any, name: str) -> npt.NDArray[Any]:
    return labels if type(labels) is np.ndarray else as_array(caller, name, labels)


def _is_several(value: Any) -> bool:
    """Whether this is a tuple of arrays; one of numbers, or of lists of them, is a single array."""
    numbers = (bool, int, float, str, np.generic, list, tuple)
    return isinstance(value, tuple) and len(value) > 0 and not any(isinstance(part, numbers) for part in value)


def several(value: Any) -> Arrays:
    """Return a single array as a tuple, too."""
    return value if isinstance(value, tuple) else (value,)
