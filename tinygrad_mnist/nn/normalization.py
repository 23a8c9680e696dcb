"""Layers that normalize activations: BatchNorm1d, BatchNorm2d, LayerNorm, GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ops import batch_norm, group_norm, layer_norm
from ..ops.normalization import checked_shape, floats, normalized_batch
from ..tensor import Array, Operand, Tensor
from ..validation import integer, real
from .buffer import Buffer

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "LayerNorm"]


def _parameter(shape: tuple[int, ...], value: float, dtype: npt.DTypeLike, wanted: bool) -> Any:  # a Tensor or None
    return Tensor(np.full(shape, value, dtype), requires_grad=True) if wanted else None


class BatchNorm2d:
    """Normalize each channel of images (N, C, H, W), then ``y * weight + bias``: see `batch_norm`.

    Passing a generator is training: each channel is normalized by mean and variance of the batch, and these are merged
    into `running_mean` and `running_var`. Without a generator it is normalized by the running ones; a layer that was
    never trained has none, and refuses.

    In `tinygrad_mnist.parallel.value_and_grad`, and so in training, a batch is cut into shards (of up to 144 images).
    Each shard is normalized by its own mean and variance, whatever the number of threads, and its running ones are
    averaged with those of the others, weighted by images: the same bits for any number of threads. For exact
    statistics of the whole batch pass ``shard_size=len(batch)`` there, or ``shard_size=batch_size`` to `Trainer`: one
    shard, whose ops use all cores.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance; above 0.
    momentum : float or None
        How much of the latest statistics goes into the running ones; None: their mean over all steps.
    affine : bool
        Whether there are `weight`, which begins with ones, and `bias`, which begins with zeros, both (C,).
    dtype : dtype
        Of the parameters and running statistics.

    Attributes
    ----------
    running_mean, running_var : Buffer, shape (C,)
        The variance is divided by the count minus 1; what normalizes a batch is divided by the count.
    num_batches_tracked : Buffer
        How many calls with a generator there were (in training with shards: steps).

    Raises
    ------
    TypeError
        If `rng` is something else than a generator or None.
    RuntimeError
        In a call without a generator before any with one, or before running statistics have been loaded.
    ValueError
        In a call with a generator, if a channel has fewer than two values.

    Examples
    --------
    >>> layer = BatchNorm2d(3)
    >>> images = np.random.default_rng(0).normal(5, 2, (8, 3, 4, 4)).astype(np.float32)
    >>> out = layer(images, rng=np.random.default_rng(0))
    >>> bool(abs(out.mean().item()) < 1e-6), layer.running_var.shape, layer(images).shape
    (True, (3,), (8, 3, 4, 4))
    """

    axes: tuple[int, ...] = (4,)  # how many axes x may have
    shapes = "(N, C, H, W)"

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        name = type(self).__name__
        shape = (integer(name, "num_features", num_features, 1),)
        self.eps = real(name, "eps", eps, above=0)
        self.momentum = None if momentum is None else real(name, "momentum", momentum, least=0, most=1)
        self.weight = _parameter(shape, 1, dtype, affine)
        self.bias = _parameter(shape, 0, dtype, affine)
        self.running_mean = Buffer(np.zeros(shape, dtype))
        self.running_var = Buffer(np.ones(shape, dtype))
        self.num_batches_tracked = Buffer(np.zeros((), np.int64))

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        name = type(self).__name__
        channels = self.running_mean.size
        x = floats(x)
        if x.ndim not in self.axes or x.shape[1] != channels:
            raise ValueError(f"{name}: x has shape {x.shape}; it must be {self.shapes} with C = {channels}")
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"{name}: rng is {rng!r}; pass np.random.default_rng(seed) in training, else None")
        if rng is not None:
            out, (mean, variance) = normalized_batch(name, x, self.weight, self.bias, self.eps)
            self._track(mean, variance, x.size // channels)
            return out
        if not self.num_batches_tracked.item():
            raise RuntimeError(
                f"{name}: there are no running statistics, since this layer has never been called with a generator; "
                "train it first, and pass the generator on to it: layer(x, rng=rng)"
            )
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps)

    def _track(self, mean: Array, variance: Array, count: int) -> None:
        """Merge the statistics of a batch into the running ones."""
        self.num_batches_tracked.data = self.num_batches_tracked.data + 1
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        for buffer, latest in ((self.running_mean, mean), (self.running_var, unbiased)):
            with np.errstate(over="ignore", invalid="ignore"):
                buffer.data = ((1 - share) * buffer.data + share * latest).astype(buffer.dtype)

    def __repr__(self) -> str:
        settings = f"eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"
        return f"{type(self).__name__}({self.running_mean.size}, {settings})"


class BatchNorm1d(BatchNorm2d):
    """Normalize each of C features of (N, C) or (N, C, L), then ``y * weight + bias``: all else as in `BatchNorm2d`.

    Examples
    --------
    >>> layer = BatchNorm1d(2)
    >>> layer([[1.0, 2.0], [3.0, 6.0]], rng=np.random.default_rng(0)).data.round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    axes = (2, 3)
    shapes = "(N, C) or (N, C, L)"


class LayerNorm:
    """Normalize over the last axes, then ``y * weight + bias``: see `layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The last lengths of the inputs.
    eps : float
        Added to the variance; above 0.
    elementwise_affine : bool
        Whether there are `weight`, which begins with ones, and `bias`, which begins with zeros, of `normalized_shape`.
    bias : bool
        Whether there is a bias beside the weight.
    dtype : dtype
        Of the parameters.

    Examples
    --------
    >>> LayerNorm(4)(np.arange(8.0).reshape(2, 4)).data.round(2)
    array([[-1.34, -0.45,  0.45,  1.34],
           [-1.34, -0.45,  0.45,  1.34]])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.normalized_shape = checked_shape("LayerNorm", normalized_shape)
        self.eps = real("LayerNorm", "eps", eps, above=0)
        self.weight = _parameter(self.normalized_shape, 1, dtype, elementwise_affine)
        self.bias = _parameter(self.normalized_shape, 0, dtype, elementwise_affine and bias)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def __repr__(self) -> str:
        settings = f"eps={self.eps}, elementwise_affine={self.weight is not None}, bias={self.bias is not None}"
        return f"LayerNorm({self.normalized_shape}, {settings})"


class GroupNorm:
    """Normalize each example over groups of channels, then each channel ``y * weight + bias``: see `group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        The first divides the second.
    eps : float
        Added to the variance; above 0.
    affine : bool
        Whether there are `weight`, which begins with ones, and `bias`, which begins with zeros, both (C,).
    dtype : dtype
        Of the parameters.

    Examples
    --------
    >>> GroupNorm(2, 4)([[1.0, 3.0, 10.0, 20.0]]).data.round(2)
    array([[-1.,  1., -1.,  1.]])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = integer("GroupNorm", "num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ValueError(f"GroupNorm: num_groups is {num_groups}; it must divide num_channels, {num_channels}")
        self.eps = real("GroupNorm", "eps", eps, above=0)
        shape = (self.num_channels,)
        self.weight = _parameter(shape, 1, dtype, affine)
        self.bias = _parameter(shape, 0, dtype, affine)

    def __call__(self, x: Operand, rng: np.random.Generator | None = None) -> Tensor:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def __repr__(self) -> str:
        settings = f"eps={self.eps}, affine={self.weight is not None}"
        return f"GroupNorm({self.num_groups}, {self.num_channels}, {settings})"
