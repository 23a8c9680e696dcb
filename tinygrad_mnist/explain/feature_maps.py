"""What every convolution of a model computes, read from the record of the logits."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backward import topological_order
from ..ops.conv import _conv_output
from ..tensor import Tensor
from ..walk import leaves
from .classifier import Pixels, as_pixels, recorded_logits

__all__ = ["FeatureMap", "feature_maps"]


class FeatureMap(NamedTuple):
    """The output of a convolution, its bias added."""

    name: str  # of the layer in the model, such as "layers.0"
    values: Pixels  # (N, C, H, W)


def feature_maps(model: Any, images: Any) -> list[FeatureMap]:
    """Compute the output of every convolution of a model, in the order of computation.

    They are found in the record of the logits, so that any model will do. A convolution that is used twice is listed
    twice. `conv1d` gives (N, C, 1, L); transposed convolutions are left out.

    Parameters
    ----------
    model, images
        See `saliency`.

    Returns
    -------
    list of FeatureMap
        Each has a ``name``, the place of its weight in the model ("layers.0" for "layers.0.weight"), and ``values``, an
        ndarray (N, C, H, W). If the weight is computed from a parameter, the name is that of the parameter; if it is no
        part of the model, "convolution 2" for the second one. Empty for models without a convolution.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in `saliency`.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> rng = np.random.default_rng(0)
    >>> class Model:
    ...     def __init__(self):
    ...         self.conv = tg.nn.Conv2d(1, 4, 3, rng=rng)
    ...
    ...     def __call__(self, images, rng=None):
    ...         return tg.relu(self.conv(tg.data.as_input(images))).mean(axis=(2, 3))
    >>> [(name, values.shape) for name, values in feature_maps(Model(), np.zeros((2, 8, 8), np.uint8))]
    [('conv', (2, 4, 6, 6))]
    """
    _, logits = recorded_logits("feature_maps", model, as_pixels("feature_maps", images))
    names = {id(tensor): name.removesuffix(".weight") for name, tensor in leaves(model, "feature_maps").items()}
    found: list[FeatureMap] = []
    for node in topological_order(logits):
        if node.op is _conv_output and node.inputs is not None:
            name = _name(node.inputs[1], names) or f"convolution {len(found) + 1}"
            found.append(FeatureMap(name, node.data))
    return found


def _name(weight: Tensor, names: dict[int, str]) -> str | None:
    """Return the name of a weight, or of the first parameter that it was made from."""
    return next((names[id(source)] for source in topological_order(weight) if id(source) in names), None)
