"""What every convolution of a model computes, read from the graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FeatureMap", "feature_maps"]


class FeatureMap(NamedTuple):
    """The output of a convolution."""

    name: str  # of the layer in the model, such as "layers.0"
    values: npt.NDArray[np.floating[Any]]  # (N, C, H, W)


def feature_maps(model: Any, images: Any) -> list[FeatureMap]:
    """Compute the output of every convolution of a model, in the order of computation."""
    raise NotImplementedError
