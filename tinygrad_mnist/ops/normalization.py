"""Normalization of activations: batch, layer and group.

One primitive normalizes x along axes: ``y = (x - mean) / sqrt(variance + eps)``. With groups of M numbers, its Jacobian
is ``J = (1 - (1 1' + y y') / M) / sqrt(variance + eps)``. It is symmetric, so that one op, `_normalize_gradient`,
serves backward and in the rules of its own: J g. Mean and variance are computed once and handed on as an input that has
no rule: the rules by x are those of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..record import as_tensor, astype, primitive, unbroadcast
from ..tensor import Array, Operand, Tensor
from ..validation import each, integer, real
from .elementwise import sqrt
from .operators import in_rules, in_single
from .reduction import mean
from .shape import reshape, stack

__all__ = ["batch_norm", "group_norm", "layer_norm"]

Axes = tuple[int, ...]


# Statistics and normalization -----------------------------------------------------------------------------------------
@primitive
def _moments(x: Any, /, *, axes: Axes) -> Any:
    """Mean and variance of each group, in at least double precision: two arrays in one."""
    return kernels.moments(x, axes)


def _inverse(moments: Array, eps: float) -> Any:
    return 1 / np.sqrt(moments[1] + eps)


def _count(x: Array, axes: Axes) -> int:
    lengths: list[int] = [x.shape[axis] for axis in axes]
    return max(math.prod(lengths), 1)


@primitive
def _normalize(x: Any, moments: Any, scaling: Any, /, *, axes: Axes, eps: float) -> Any:
    """``y * weight + bias``; ``scaling`` holds weight and bias, two numbers or one of each for each group."""
    scale = _inverse(moments, eps) * scaling[0]
    return kernels.affine(x, moments[0], scale, scaling[1], axes)


@primitive
def _normalize_gradient(g: Any, x: Any, moments: Any, weight: Any, /, *, axes: Axes, eps: float) -> Any:
    """``weight * J g``: the gradient by x of the sum of ``g * y * weight``."""
    inverse = _inverse(moments, eps)
    count = _count(x, axes)
    plain, products = kernels.gradient_sums(g, x, axes, moments[0])
    factor = inverse * weight
    scale = -(inverse * products / count) * inverse * factor
    return kernels.affine(x, moments[0], scale, -factor * (plain / count), axes, g, factor)


@primitive
def _scaling_gradient(g: Any, x: Any, moments: Any, /, *, axes: Axes, eps: float) -> Any:
    """The sums of ``g * y`` and of ``g`` of each group, in one array: in single precision at least."""
    plain, products = kernels.gradient_sums(g, x, axes, moments[0])
    out = np.stack([products * _inverse(moments, eps), plain])
    return out.astype(np.promote_types(x.dtype, np.float32))


@primitive
def _inverse_deviation(x: Any, moments: Any, /, *, axes: Axes, eps: float) -> Any:
    """``1 / sqrt(variance + eps)`` of each group."""
    return _inverse(moments, eps).astype(x.dtype)


normalized = in_rules(_normalize)
jacobian_product = in_rules(_normalize_gradient)
scaling_sums = in_rules(_scaling_gradient)
inverse_deviation = in_rules(_inverse_deviation)
PLAIN = np.array([1.0, 0.0])  # weight and bias


def _curvature(h: Tensor, out: Tensor, g: Tensor, x: Tensor, moments: Tensor, weight: Tensor, **how: Any) -> Tensor:
    """Return the gradient by x of the sum of ``h * (weight * J g)``."""
    if not x.size:  # there is nothing to average
        return x
    axes = how["axes"]
    y = normalized(x, moments, PLAIN, **how)
    jg = jacobian_product(g, x, moments, 1.0, **how)
    jh = jacobian_product(h, x, moments, 1.0, **how)
    first = mean(h * jg, axes, True)
    second = mean(y * g, axes, True)
    third = mean(y * h, axes, True)
    return -(y * first + jh * second + jg * third) * inverse_deviation(x, moments, **how) * weight


_moments.defvjp(None)
_normalize.defvjp(
    lambda g, out, x, moments, scaling, **how: jacobian_product(g, x, moments, scaling[0], **how),
    None,
    lambda g, out, x, moments, scaling, **how: scaling_sums(g, x, moments, **how),
)
_normalize_gradient.defvjp(
    lambda h, out, g, x, moments, weight, **how: jacobian_product(h, x, moments, weight, **how),
    in_single(_curvature),
    None,
    lambda h, out, g, x, moments, weight, **how: unbroadcast(h * jacobian_product(g, x, moments, 1.0, **how), weight),
)
_scaling_gradient.defvjp(
    lambda h, out, g, x, moments, **how: normalized(x, moments, h, **how),
    lambda h, out, g, x, moments, **how: jacobian_product(g, x, moments, h[0], **how),
    None,
)
_inverse_deviation.defvjp(
    lambda g, out, x, moments, **how: (
        normalized(x, moments, PLAIN, **how) * (-g * out * out / _count(x.data, how["axes"]))
    ),
    None,
)


# Given statistics -----------------------------------------------------------------------------------------------------
@primitive
def _affine(x: Any, center: Any, scale: Any, shift: Any, /, *, axes: Axes) -> Any:
    """``(x - center) * scale + shift``, where all but x are numbers, or one for each group."""
    return kernels.affine(x, center, scale, shift, axes)


@primitive
def _products(g: Any, x: Any, center: Any, /, *, axes: Axes) -> Any:
    """The sum of ``g * (x - center)`` of each group, in single precision at least."""
    return kernels.gradient_sums(g, x, axes, center)[1].astype(np.promote_types(x.dtype, np.float32))


_affine.defvjp(
    lambda g, out, x, center, scale, shift, axes: _affine(g, 0.0, scale, 0.0, axes=axes),
    lambda g, out, x, center, scale, shift, axes: unbroadcast(g, center) * -scale,
    lambda g, out, x, center, scale, shift, axes: _products(g, x, center, axes=axes),
    lambda g, out, x, center, scale, shift, axes: unbroadcast(g, shift),
)
_products.defvjp(
    lambda h, out, g, x, center, axes: _affine(x, center, h, 0.0, axes=axes),
    lambda h, out, g, x, center, axes: _affine(g, 0.0, h, 0.0, axes=axes),
    lambda h, out, g, x, center, axes: unbroadcast(g, center) * -h,
)


# Public functions -----------------------------------------------------------------------------------------------------
def floats(x: Operand) -> Tensor:
    """Return a Tensor of floats; integers become float64, as in `mean`."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else astype(x, np.float64)


def normalized_batch(
    caller: str, x: Tensor, weight: Operand | None, bias: Operand | None, eps: float
) -> tuple[Tensor, Array]:
    """Normalize each channel by the mean and variance of the batch; return these, too, as (2, C)."""
    axes = (0, *range(2, x.ndim))
    if _count(x.data, axes) < 2 or not x.size:
        raise ValueError(
            f"{caller}: x of shape {x.shape} has fewer than two values per channel, whose variance tells nothing; pass "
            "more examples (a shard or last batch may be as small as 1: choose other sizes), or normalize by given "
            "statistics"
        )
    moments = _moments(x, axes=axes)
    scale = per_channel(caller, "weight", weight, x, 1.0)
    shift = per_channel(caller, "bias", bias, x)
    out = _normalize(x, moments, stack([scale, shift]), axes=axes, eps=eps)
    return out, moments.data.reshape(2, -1)


def per_channel(caller: str, name: str, values: Operand | None, x: Tensor, missing: float = 0.0) -> Tensor:
    """Return the numbers of the channels as (1, C, 1, …), of the dtype of `x`; `missing` where there are none."""
    values = as_tensor(np.full(x.shape[1:2], missing, x.dtype) if values is None else values)
    if values.shape != x.shape[1:2]:
        raise ValueError(
            f"{caller}: {name} has shape {values.shape}, but x of shape {x.shape} has {x.shape[1]} channels; it must "
            f"be ({x.shape[1]},)"
        )
    values = values if values.dtype == x.dtype else astype(values, x.dtype)
    return reshape(values, 1, -1, *[1] * (x.ndim - 2))


def check_channels(caller: str, x: Tensor) -> None:
    """Raise an error if there is no axis of channels."""
    if x.ndim < 2:
        raise ValueError(f"{caller}: x has shape {x.shape}; it must be (N, C) or (N, C, …)")


def batch_norm(
    x: Operand,
    running_mean: Operand | None = None,
    running_var: Operand | None = None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    Without `running_mean` and `running_var`, mean and variance (divided by the count) are those of the batch, and the
    gradient passes through them. PyTorch's function, apart from what it does in place: running statistics are kept by
    `tinygrad_mnist.nn.BatchNorm2d`.

    Parameters
    ----------
    x : array_like, shape (N, C) or (N, C, …)
    running_mean, running_var : array_like, shape (C,), optional
        Both or neither.
    weight, bias : array_like, shape (C,), optional
    eps : float
        Above 0.

    Returns
    -------
    Tensor
        Of the shape and dtype of `x`; integers become float64.

    Raises
    ------
    ValueError
        If shapes do not fit, one of the statistics is missing, or a batch without them has fewer than two values per
        channel.

    Examples
    --------
    >>> batch_norm([[1.0, 10.0], [3.0, 20.0]], eps=1e-9)
    Tensor([[-1., -1.],
            [ 1.,  1.]], dtype=float64)
    >>> batch_norm([[1.0, 10.0]], running_mean=[0.0, 8.0], running_var=[4.0, 1.0], eps=1e-9)
    Tensor([[0.5, 2. ]], dtype=float64)
    """
    caller = "batch_norm"
    x = floats(x)
    eps = real(caller, "eps", eps, above=0)
    check_channels(caller, x)
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{caller}: pass both running_mean and running_var, or neither")
    if running_mean is None or running_var is None:
        return normalized_batch(caller, x, weight, bias, eps)[0]
    center = per_channel(caller, "running_mean", running_mean, x)
    variance = per_channel(caller, "running_var", running_var, x)
    scale = per_channel(caller, "weight", weight, x, 1.0)
    shift = per_channel(caller, "bias", bias, x)
    return _affine(x, center, scale / sqrt(variance + eps), shift, axes=(0, *range(2, x.ndim)))


def layer_norm(
    x: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize over the last axes: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    Parameters
    ----------
    x : array_like, shape (…, *normalized_shape)
    normalized_shape : int or sequence of int
        The last lengths of `x`, for checking.
    weight, bias : array_like, shape normalized_shape, optional
    eps : float
        Above 0.

    Returns
    -------
    Tensor
        Of the shape and dtype of `x`; integers become float64.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> layer_norm([[1.0, 3.0], [10.0, 20.0]], 2, eps=1e-9)
    Tensor([[-1.,  1.],
            [-1.,  1.]], dtype=float64)
    """
    caller = "layer_norm"
    x = floats(x)
    eps = real(caller, "eps", eps, above=0)
    shape = checked_shape(caller, normalized_shape)
    if x.shape[max(x.ndim - len(shape), 0) :] != shape:
        raise ValueError(f"{caller}: x has shape {x.shape}; its last lengths must be normalized_shape {shape}")
    given = []
    for name, values in (("weight", weight), ("bias", bias)):
        found = None if values is None else as_tensor(values)
        if found is not None and found.shape != shape:
            raise ValueError(f"{caller}: {name} has shape {found.shape}; it must be normalized_shape {shape}")
        given.append(found if found is None or found.dtype == x.dtype else astype(found, x.dtype))
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    out = _normalize(x, _moments(x, axes=axes), PLAIN, axes=axes, eps=eps)
    out = out if given[0] is None else out * given[0]
    return out if given[1] is None else out + given[1]


def checked_shape(caller: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return `normalized_shape` as a tuple of at least one length."""
    if isinstance(normalized_shape, Sequence) and not isinstance(normalized_shape, str):
        shape = each(caller, "normalized_shape", normalized_shape, integer)
    else:
        shape = (integer(caller, "normalized_shape", normalized_shape),)
    if not shape:
        raise ValueError(f"{caller}: normalized_shape is empty; it must have at least one length")
    return shape


def group_norm(
    x: Operand,
    num_groups: int,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each image over groups of channels, then scale each channel: ``y * weight + bias``.

    Parameters
    ----------
    x : array_like, shape (N, C) or (N, C, …)
    num_groups : int
        A divisor of C; 1 normalizes over all channels, C over each channel alone (instance normalization).
    weight, bias : array_like, shape (C,), optional
    eps : float
        Above 0.

    Returns
    -------
    Tensor
        Of the shape and dtype of `x`; integers become float64.

    Raises
    ------
    ValueError
        If shapes do not fit, or `num_groups` does not divide C.

    Examples
    --------
    >>> group_norm([[1.0, 3.0, 10.0, 20.0]], num_groups=2, eps=1e-9)
    Tensor([[-1.,  1., -1.,  1.]], dtype=float64)
    """
    caller = "group_norm"
    x = floats(x)
    eps = real(caller, "eps", eps, above=0)
    check_channels(caller, x)
    num_groups = integer(caller, "num_groups", num_groups, 1)
    if x.shape[1] % num_groups:
        raise ValueError(f"{caller}: num_groups is {num_groups}; it must divide the {x.shape[1]} channels of x")
    size = math.prod(x.shape[1:]) // num_groups
    grouped = reshape(x, x.shape[0], num_groups, size)
    moments = _moments(grouped, axes=(2,))
    out = reshape(_normalize(grouped, moments, PLAIN, axes=(2,), eps=eps), x.shape)
    if weight is None and bias is None:
        return out
    scale = per_channel(caller, "weight", weight, x, 1.0)
    shift = per_channel(caller, "bias", bias, x)
    return _affine(out, 0.0, scale, shift, axes=(0, *range(2, x.ndim)))
