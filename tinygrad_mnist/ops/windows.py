"""Sliding windows as views, and im2col: a convolution as one matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import Geometry, Pair, Size, make_geometry, pair
from ..record import as_tensor, primitive
from ..tensor import Operand, Tensor
from .indexing import getitem
from .shape import pad, reshape, transpose

__all__ = ["col2im", "im2col"]


@primitive
def _unfold(x: Any, /, *, axis: int, size: int, step: int) -> Any:
    """Lay out windows: (..., L, ...) -> (..., O, ..., size), a view."""
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    every = (slice(None),) * axis + (slice(None, None, step),)
    return windows[every]


@primitive
def _fold(windows: Any, /, *, axis: int, length: int, step: int) -> Any:
    """Add up overlapping windows: (..., O, ..., size) -> (..., L, ...), the adjoint of ``_unfold``."""
    *shape, size = windows.shape
    count, shape[axis] = shape[axis], length
    half = windows.dtype == np.float16  # added up in single precision, as in every sum
    out = np.zeros_like(windows[..., 0], shape=shape, dtype=np.float32 if half else None)
    for offset in range(size):
        end = offset + (count - 1) * step + 1
        out[(slice(None),) * axis + (slice(offset, end, step),)] += windows[..., offset]
    return out.astype(windows.dtype, copy=False)


_unfold.defvjp(lambda g, out, x, axis, size, step: _fold(g, axis=axis, length=x.shape[axis], step=step))
_fold.defvjp(lambda g, out, windows, axis, length, step: _unfold(g, axis=axis, size=windows.shape[-1], step=step))


def windows(op: str, x: Tensor, kernel: Size, geometry: Geometry) -> Tensor:
    """Return the windows of images, padded with zeros: (N, C, H, W) -> (N, C, OH, OW, KH, KW)."""
    geometry.check(op, x.shape, kernel)
    (ph, pw), (sh, sw) = geometry.padding, geometry.stride
    if ph or pw:
        x = pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    rows = _unfold(x, axis=2, size=kernel[0], step=sh)
    return _unfold(rows, axis=3, size=kernel[1], step=sw)


def im2col(x: Operand, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Write every receptive field as a row, so that a convolution is one matrix product (Chellapilla et al., 2006).

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)

    Returns
    -------
    Tensor, shape (N * OH * OW, C * KH * KW)

    Examples
    --------
    >>> im2col(np.arange(6.0).reshape(1, 1, 2, 3), (2, 2))
    Tensor([[0., 1., 3., 4.],
            [1., 2., 4., 5.]], dtype=float64)
    """
    kernel = pair("im2col", "kernel_size", kernel_size, 1)
    fields = windows("im2col", as_tensor(x), kernel, make_geometry("im2col", stride, padding))
    n, c, oh, ow, kh, kw = fields.shape
    return reshape(transpose(fields, 0, 2, 3, 1, 4, 5), n * oh * ow, c * kh * kw)


def col2im(
    cols: Operand, input_shape: tuple[int, int, int, int], kernel_size: Pair, stride: Pair = 1, padding: Pair = 0
) -> Tensor:
    """Add the rows of an `im2col` matrix back into an image of `input_shape`: the adjoint of `im2col`.

    Parameters
    ----------
    cols : array_like, shape (N * OH * OW, C * KH * KW)
    input_shape : (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Examples
    --------
    >>> col2im(np.ones((2, 4)), (1, 1, 2, 3), (2, 2))
    Tensor([[[[1., 2., 1.],
              [1., 2., 1.]]]], dtype=float64)
    """
    (n, c, h, w), cols = input_shape, as_tensor(cols)
    kernel, geometry = pair("col2im", "kernel_size", kernel_size, 1), make_geometry("col2im", stride, padding)
    oh, ow = geometry.check("col2im", input_shape, kernel)
    (top, left), (sh, sw), shape = geometry.padding, geometry.stride, (n * oh * ow, c * kernel[0] * kernel[1])
    if cols.shape != shape:
        raise ValueError(f"col2im: cols has shape {cols.shape}; for these settings it must be {shape}")
    fields = transpose(reshape(cols, n, oh, ow, c, *kernel), 0, 3, 1, 2, 4, 5)
    rows = _fold(fields, axis=3, length=w + 2 * left, step=sw)
    image = _fold(rows, axis=2, length=h + 2 * top, step=sh)
    return getitem(image, (slice(None), slice(None), slice(top, top + h), slice(left, left + w)))
