"""Convolutions of other kinds, along one axis and transposed: by those of conv.py."""

from __future__ import annotations

from ..kernels import Pair, make_geometry, pair
from ..record import as_tensor
from ..tensor import Operand, Tensor
from ..validation import integer
from .conv import _conv_input, _conv_output, check_bias, check_channels
from .shape import expand_dims, reshape, squeeze

__all__ = ["conv1d", "conv_transpose2d"]


def conv1d(
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """One-dimensional convolution (cross-correlation, as in PyTorch) over a batch of sequences: see `conv2d`.

    Parameters
    ----------
    x : array_like, shape (N, C, L)
    weight : array_like, shape (F, C // groups, K)
    bias : array_like, shape (F,), optional
    stride, dilation, groups : int
    padding : int, "same" or "valid"

    Returns
    -------
    Tensor, shape (N, F, OL)
        OL = (L + 2 * padding - dilation * (K - 1) - 1) // stride + 1.

    Raises
    ------
    ValueError
        If shapes do not fit each other, the kernel is larger than the padded sequence, or "same" meets a stride.

    Examples
    --------
    >>> conv1d([[[1.0, 2.0, 4.0, 8.0]]], [[[-1.0, 1.0]]])
    Tensor([[[1., 2., 4.]]], dtype=float64)
    """
    x, weight = as_tensor(x), as_tensor(weight)
    groups = check_channels("conv1d", x, weight, groups, ndim=3)
    step = integer("conv1d", "stride", stride, 1)
    spread = integer("conv1d", "dilation", dilation, 1)
    sides: Pair | str = padding if padding in ("same", "valid") else (0, integer("conv1d", "padding", padding))
    image = expand_dims(x, 2)  # (N, C, L) -> (N, C, 1, L)
    kernel = expand_dims(weight, 2)
    size = kernel.shape[2:]
    geometry = make_geometry("conv1d", (1, step), sides, (1, spread), groups, size)
    geometry.check("conv1d", image.shape, size)
    bias = check_bias("conv1d", bias, len(weight))
    return squeeze(_conv_output(image, kernel, bias, geometry=geometry), 2)


def conv_transpose2d(
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Transposed convolution, as in PyTorch: the gradient of `conv2d` by its images, for the cotangent `x`.

    Each pixel adds its multiple of the kernel to the output, `stride` pixels further on.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    weight : array_like, shape (C, F // groups, KH, KW)
    bias : array_like, shape (F,), optional
    stride, dilation : int or (height, width)
        Those of the convolution.
    padding : int or (height, width)
        Rows and columns that are cut off on every side.
    output_padding : int or (height, width)
        Rows and columns that are added at the end: less than `stride` or `dilation`.
    groups : int
        Channels of `x` and of the output are cut into so many groups; each of one side belongs to one of the other.

    Returns
    -------
    Tensor, shape (N, F, OH, OW)
        OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1, OW likewise.

    Raises
    ------
    ValueError
        If shapes do not fit each other, `output_padding` is too large, or nothing of the output is left.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 2, 3)), stride=2)
    Tensor([[[[1., 1., 3., 2., 2.],
              [1., 1., 3., 2., 2.]]]], dtype=float64)
    """
    op = "conv_transpose2d"
    x, weight = as_tensor(x), as_tensor(weight)
    groups = integer(op, "groups", groups, 1)
    empty = 0 in x.shape[2:] + weight.shape[2:]
    if weight.ndim != 4 or x.ndim != 4 or x.shape[1] != weight.shape[0] or x.shape[1] % groups or empty:
        raise ValueError(
            f"{op}: x of shape {x.shape} does not fit weight of shape {weight.shape} for groups={groups}; they must be "
            "(N, C, H, W) and (C, F // groups, KH, KW), not empty, with the same number of channels C, and groups a "
            "divisor of it"
        )
    plain = make_geometry(op, stride, padding, dilation, groups)
    extra = pair(op, "output_padding", output_padding, 0)
    axes = zip(x.shape[2:], weight.shape[2:], plain.stride, plain.padding, plain.dilation, extra, strict=True)
    height, width = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in axes]
    too_much = any(e >= max(s, d) for e, s, d in zip(extra, plain.stride, plain.dilation, strict=True))
    if min(height, width) < 1 or too_much:
        raise ValueError(
            f"{op}: the output would be {height} x {width} with output_padding {output_padding}; that must be less "
            f"than stride {stride} or dilation {dilation}, and the output at least 1 x 1: use less padding"
        )
    geometry = plain._replace(end=(-extra[0], -extra[1]))
    out = _conv_input(x, weight, geometry=geometry, size=(height, width))
    if bias is None:
        return out
    filters = weight.shape[1] * groups
    return out + reshape(check_bias(op, bias, filters), filters, 1, 1)
