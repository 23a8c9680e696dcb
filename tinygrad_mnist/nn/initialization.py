"""Initial weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..tensor import Tensor
from ..validation import each, integer

__all__ = ["initial_weights"]

GAIN = {"he": 2.0, "xavier": 1.0}  # variance of a weight, times the fan-in


def initial_weights(
    shape: Sequence[int],
    fan_in: int,
    init: str = "he",
    rng: np.random.Generator | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> Tensor:
    """Normally distributed weights of mean 0 that keep the variance of activations from layer to layer.

    Parameters
    ----------
    shape : sequence of int
    fan_in : int
        How many inputs one output is a sum over.
    init : {"he", "xavier"}
        Standard deviation sqrt(2 / fan_in), for ReLU (He et al., 2015), or sqrt(1 / fan_in) (Glorot and Bengio, 2010).
    rng : numpy.random.Generator, optional
        Left out: different weights every time.

    Examples
    --------
    >>> initial_weights((10, 5), fan_in=10, rng=np.random.default_rng(0)).shape
    (10, 5)
    """
    if init not in GAIN:
        raise ValueError(f"init is {init!r}; it must be one of {', '.join(map(repr, GAIN))}")
    shape = each("initial_weights", "shape", shape, integer)
    fan_in = integer("initial_weights", "fan_in", fan_in, 1)
    draws = np.random.default_rng(rng).standard_normal(shape)
    return Tensor((draws * np.sqrt(GAIN[init] / fan_in)).astype(dtype), requires_grad=True)
