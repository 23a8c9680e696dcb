"""Initial weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..kernels import Pair, pair
from ..record import as_tensor
from ..tensor import Array, Operand, Tensor
from ..validation import each, integer, real

__all__ = ["initial_weights", "whitening_filters"]

INITS = ("he", "xavier", "he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "orthogonal", "zeros")


def initial_weights(
    shape: Sequence[int],
    fan_in: int,
    init: str = "he",
    rng: np.random.Generator | None = None,
    dtype: npt.DTypeLike = np.float32,
    *,
    fan_out: int | None = None,
) -> Tensor:
    """Random weights of mean 0 that keep the variance of activations from layer to layer.

    ====================================  ====================================================================
    init                                  weights
    ====================================  ====================================================================
    "he", "he_normal"                     normal, variance 2 / fan_in: for ReLU (He et al., 2015)
    "he_uniform"                          uniform, the same variance
    "xavier"                              normal, variance 1 / fan_in: keeps the variance forward
    "xavier_normal"                       normal, variance 2 / (fan_in + fan_out), a compromise between forward
                                          and backward (Glorot and Bengio, 2010): **not** the same as "xavier"
    "xavier_uniform"                      uniform, the same variance
    "orthogonal"                          orthonormal rows, or columns, of the weights as a matrix
                                          (shape[0], all the rest) (Saxe et al., 2014)
    "zeros"                               0, as for the last layer of a residual branch
    ====================================  ====================================================================

    Parameters
    ----------
    shape : sequence of int
    fan_in : int
        How many inputs one output is a sum over.
    init : str
        See above.
    rng : numpy.random.Generator, optional
        Left out: different weights every time.
    fan_out : int, optional
        How many outputs one input adds to. By default that of a matrix (fan_in, fan_out) or of filters (F, C, KH, KW):
        F * KH * KW.

    Examples
    --------
    >>> initial_weights((10, 5), fan_in=10, rng=np.random.default_rng(0)).shape
    (10, 5)
    >>> w = initial_weights((2, 3), fan_in=2, init="orthogonal", rng=np.random.default_rng(0))
    >>> bool(np.allclose(w @ w.T, np.eye(2), atol=1e-6))
    True
    """
    if init not in INITS:
        raise ValueError(f"init is {init!r}; it must be one of {', '.join(map(repr, INITS))}")
    shape = each("initial_weights", "shape", shape, integer)
    fan_in = integer("initial_weights", "fan_in", fan_in, 1)
    if fan_out is None:
        outputs = math.prod(shape) * math.prod(shape[2:]) // fan_in
    else:
        outputs = integer("initial_weights", "fan_out", fan_out, 1)
    values = _draw(shape, init, np.random.default_rng(rng), fan_in, outputs)
    return Tensor(values.astype(dtype), requires_grad=True)


def _draw(shape: tuple[int, ...], init: str, rng: np.random.Generator, fan_in: int, fan_out: int) -> Array:
    if init == "zeros":
        return np.zeros(shape)
    if init == "orthogonal":
        rows = shape[0] if shape else 1
        draws = rng.standard_normal((rows, math.prod(shape[1:])))
        return _orthonormal(draws).reshape(shape)
    name, _, distribution = init.partition("_")
    if name == "he":
        variance = 2 / fan_in
    elif distribution:
        variance = 2 / (fan_in + fan_out)
    else:  # "xavier" alone
        variance = 1 / fan_in
    if distribution == "uniform":
        bound = np.sqrt(3 * variance)
        return rng.uniform(-bound, bound, shape)
    return np.asarray(rng.standard_normal(shape) * np.sqrt(variance))


def _orthonormal(draws: Array) -> Array:
    """Return orthonormal rows, or columns if there are more rows: each such matrix is equally likely."""
    rows, columns = draws.shape
    q, r = np.linalg.qr(draws if rows >= columns else draws.T)
    q = q * np.where(np.diag(r) < 0, -1, 1)  # else not all of them are (Mezzadri, 2007)
    return np.asarray(q if rows >= columns else q.T)


def whitening_filters(images: Operand, filters: int, kernel_size: Pair, eps: float = 0.01) -> npt.NDArray[np.float32]:
    """Filters of a first convolution that make its outputs uncorrelated and about equally large.

    They are the principal directions of the patches of `images`, those of the largest variance v first, divided by
    ``sqrt(v + eps)``; behind them come their negatives, for what ReLU cuts off. A network begins with them where it
    would arrive after many steps. They can stay as they are, which saves the work of their gradients (Jordan, 2024)::

        conv = model.layers[0]
        conv.weight.data = tg.nn.whitening_filters(images, 16, 3)
        conv.weight.requires_grad = conv.bias.requires_grad = False

    Parameters
    ----------
    images : array_like of floats, shape (N, C, H, W)
        As the convolution gets them; some hundred are enough.
    filters : int
        An even number, at most twice as many as a patch has values.
    kernel_size : int or (int, int)
    eps : float
        Above 0. Directions of less variance have smaller outputs.

    Returns
    -------
    ndarray of float32, shape (filters, C, KH, KW)

    Raises
    ------
    ValueError
        If `images` are no floats, not finite, of another shape or smaller than the kernel, or `filters` is odd or too
        large.

    Examples
    --------
    >>> images = np.random.default_rng(0).random((50, 1, 8, 8))
    >>> w = whitening_filters(images, 6, 2)
    >>> w.shape, bool((w[:3] == -w[3:]).all())
    ((6, 1, 2, 2), True)
    """
    caller = "whitening_filters"
    x, filters = as_tensor(images).data, integer(caller, "filters", filters, 1)
    (kh, kw), eps = pair(caller, "kernel_size", kernel_size, 1), real(caller, "eps", eps, above=0)
    if x.ndim != 4 or not x.size or x.dtype.kind != "f" or x.shape[2] < kh or x.shape[3] < kw:
        raise ValueError(
            f"{caller}: images are {x.dtype} {x.shape}, the kernel is {kh} x {kw}; pass floats (N, C, H, W) of at "
            "least that size"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{caller}: images hold a NaN or an infinity; leave those images out")
    values = x.shape[1] * kh * kw
    if filters % 2 or filters > 2 * values:
        raise ValueError(
            f"{caller}: filters is {filters}; it must be even, and at most {2 * values} for {values} values"
        )
    height, width = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    offsets = [(c, i, j) for c in range(x.shape[1]) for i in range(kh) for j in range(kw)]
    patches = np.stack([x[:, c, i : i + height, j : j + width].ravel() for c, i, j in offsets]).astype(np.float64)
    patches -= patches.mean(axis=1, keepdims=True)  # (C * KH * KW, N * OH * OW)
    variances, directions = np.linalg.eigh(patches @ patches.T / patches.shape[1])  # ascending; directions are columns
    half = (directions / np.sqrt(np.maximum(variances, 0) + eps)).T[::-1][: filters // 2]
    largest = np.take_along_axis(half, abs(half).argmax(axis=1, keepdims=True), axis=1)
    half = half * np.sign(largest)  # eigenvectors have no sign of their own
    return np.concatenate([half, -half]).reshape(filters, -1, kh, kw).astype(np.float32)
