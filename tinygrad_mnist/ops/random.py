"""Ops that draw random numbers."""

from __future__ import annotations

import numpy as np

from ..tensor import Operand, Tensor, as_tensor
from ..validation import real

__all__ = ["dropout"]


def dropout(x: Operand, p: float, rng: np.random.Generator | None = None, rescale: str = "train") -> Tensor:
    """Training (a generator is given): set each element to 0 with probability `p`. Inference (none is): no randomness.

    Parameters
    ----------
    x : array_like
    p : float in [0, 1]
        Probability of dropping an element.
    rng : numpy.random.Generator, optional
        Draws the elements to drop; giving one is what makes this a training pass.
    rescale : {"train", "test"}
        When to make up for the dropped elements: "train" divides by 1 - p in training (inverted dropout, as in
        PyTorch); "test" multiplies by 1 - p in inference (classic dropout, Srivastava et al., 2014).

    Examples
    --------
    >>> dropout(np.ones(4), 0.5, rng=np.random.default_rng(0))
    Tensor([2., 2., 2., 0.], dtype=float64)
    >>> dropout(np.ones(4), 0.5, rescale="test")
    Tensor([0.5, 0.5, 0.5, 0.5], dtype=float64)
    """
    x, p = as_tensor(x), real("dropout", "p", p, least=0, most=1)
    if rescale not in ("train", "test"):
        raise ValueError(
            f'dropout: rescale is {rescale!r}; it must be "train" (inverted dropout) or "test" (classic dropout)'
        )
    if rng is None:
        return x * (1.0 - p) if rescale == "test" else x
    if not isinstance(rng, np.random.Generator) or x.dtype.kind != "f":
        raise TypeError(
            f"dropout: x is {x.dtype}, rng is {type(rng).__name__}; pass floats and np.random.default_rng(seed)"
        )
    keep = rng.random(x.shape, dtype=np.float32) >= p
    factor = 1 / (1 - p) if rescale == "train" and p < 1 else 1.0
    return x * np.where(keep, factor, 0.0).astype(x.dtype)
