"""Convolution and pooling: linear maps whose adjoints are each other's VJPs, and compositions of them.

Tensors are (N, C, H, W) by name. In memory the batch is innermost, (H, C, W, N), so that copies and products run over long rows. That
layout lives in the strides alone: any input is accepted, and elementwise ops keep the order that they find.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import TypeAlias

import numpy as np

from .ops import getitem, mean, pad, reshape, sum, transpose
from .tensor import Array, Operand, Tensor, as_tensor, primitive

__all__ = ["avg_pool2d", "col2im", "conv2d", "im2col", "max_pool2d"]

Pair: TypeAlias = int | tuple[int, int]

# The convolution as a trilinear form -----------------------------------------------------------------------------------------------------
# T(x, w, g) = sum over n, f, i, j, c, k, l of  g[n, f, i, j] * w[f, c, k, l] * x[n, c, i * stride + k - padding, j * stride + l - padding]
#
# Its three partial derivatives are the three functions below, and the derivative of each with respect to each of its arguments is another
# of the three. That is all there is to state: derivatives of every order follow. A faster implementation may replace their bodies.
TILE_PRODUCT = 1_000_000  # OpenBLAS multiplies matrices of up to M * N * K elements without packing them: 102 against 92 GFLOP/s (conv2)
TILE_COLUMNS = (400, 2000)  # fewest and most columns of a tile, whatever the product; many small ones keep threads waiting for each other
TILE_BYTES = 2 << 20  # a lowered tile and its result, for the second-level cache: 248 against 323 ms for a step of 500 images untiled


def _tiles(
    x: Array, filters: int, kernel: tuple[int, int], stride: tuple[int, int], before: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[tuple[slice, ...], slice, Array]]:
    """Cut a convolution into matrix products: im2col along the width only, one cache-sized tile at a time.

    A tile is copied to (rows, KW, C, columns, images). The KH*KW*C x columns*images matrix of each output row is then already there,
    overlapping that of the next row: a view of shape (OH, KH*KW*C, columns*images). It takes KW copies of the input, not KH * KW.

    Yields the index of the tile in an (OH, F, OW, N) array, the range of its rows in a (KH*KW*C, F) matrix, and that view.
    """
    n, c, h, w = x.shape
    (kh, kw), (sh, sw), (top, left), (oh, ow) = kernel, stride, before, size
    planes = x.transpose(2, 1, 3, 0)  # (N, C, H, W) -> (H, C, W, N)
    columns = min(max(TILE_PRODUCT // max(filters * c * kh * kw, 1), TILE_COLUMNS[0]), TILE_COLUMNS[1])
    images = _parts(n, columns)
    across = _parts(ow, max(columns * len(images) // max(n, 1), 1))  # several columns only of all images
    row_bytes = max((kw * c * sh + filters) * columns * x.itemsize, 1)
    blocks = []
    for i0, i1 in _parts(oh, max(TILE_BYTES // row_bytes - kh + 1, 1)):
        begin, end = max(i0 * sh - top, 0), max(min((i1 - 1) * sh - top + kh, h), 0)  # rows of the image
        runs = []  # output rows in sequence that see the same rows of the kernel inside the image
        for (first, last), sequence in groupby(range(i0, i1), lambda i: (max(0, top - i * sh), min(kh, h + top - i * sh))):
            i, *more = sequence
            runs.append((slice(i, i + 1 + len(more)), i * sh - top + first - begin, first, max(last - first, 0)))
        blocks.append((begin, max(end - begin, 0), runs))
    tallest = max((height for _, height, _ in blocks), default=0)
    widest = max((j1 - j0 for j0, j1 in across), default=0) * max((n1 - n0 for n0, n1 in images), default=0)
    buffer = np.empty(tallest * kw * c * widest, x.dtype)  # one for all tiles: fresh ones would cost a page fault for every 4 KiB
    for n0, n1 in images:
        for j0, j1 in across:
            copies = []  # for each kernel column, the part of the tile that lies inside the image, and where that begins there
            for k in range(kw):
                p, q = (min(max(-((k - left - edge) // sw), j0), j1) for edge in (0, w))
                copies.append((slice(p - j0, q - j0), slice(p * sw + k - left, max((q - 1) * sw + k - left + 1, 0), sw)))
            m = (j1 - j0) * (n1 - n0)
            row = kw * c * m * x.itemsize
            for begin, height, runs in blocks:
                lowered = buffer[: height * kw * c * m].reshape(height, kw, c, j1 - j0, n1 - n0)
                for k, (inside, source) in enumerate(copies):
                    if inside.stop - inside.start < j1 - j0:
                        lowered[:, k] = 0
                    if inside.start < inside.stop:
                        lowered[:, k, :, inside] = planes[begin : begin + height, :, source, n0:n1]
                for rows, start, first, taps in runs:
                    shape, strides = (rows.stop - rows.start, taps * kw * c, m), (row * sh, m * x.itemsize, x.itemsize)
                    matrix = np.ndarray(shape, x.dtype, lowered, start * row if taps else 0, strides)
                    yield (rows, slice(None), slice(j0, j1), slice(n0, n1)), slice(first * kw * c, (first + taps) * kw * c), matrix


def _parts(length: int, most: int) -> list[tuple[int, int]]:
    """Cut range(length) into the fewest nearly equal parts of at most `most`."""
    count = -(-length // most)
    edges = [length * i // count for i in range(count + 1)] if count else []
    return list(pairwise(edges))


def _correlate(x: Array, w: Array, bias: Array | None, stride: tuple[int, int], before: tuple[int, int], size: tuple[int, int]) -> Array:
    """Sum over c, k, l of w[f, c, k, l] * x[n, c, i * stride + k - before, j * stride + l - before]; outside the image x is 0."""
    f, c, kh, kw = w.shape
    matrix = w.transpose(0, 2, 3, 1).reshape(f, kh * kw * c)  # (F, C, KH, KW) -> (F, KH*KW*C)
    out = np.empty((size[0], f, size[1], len(x)), np.result_type(x, w) if bias is None else np.result_type(x, w, bias))
    for tile, taps, lowered in _tiles(x.astype(out.dtype, copy=False), f, (kh, kw), stride, before, size):
        part = out[tile]
        np.matmul(matrix[:, taps], lowered, out=part.reshape(len(lowered), f, lowered.shape[2], copy=False))
        if bias is not None:
            part += bias.reshape(-1, 1, 1)  # now, while the tile is in the cache
    return out.transpose(3, 1, 0, 2)  # (OH, F, OW, N) -> (N, F, OH, OW)


@primitive
def _conv_output(x: Array, w: Array, *bias: Array, stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """dT/dg, and the bias added: (N, C, H, W), (F, C, KH, KW), (F,) -> (N, F, OH, OW)."""
    size = _output_size(x.shape[2:], w.shape[2:], stride, padding)
    return _correlate(x, w, bias[0] if bias else None, stride, padding, size)


@primitive
def _conv_input(g: Array, w: Array, *, stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]) -> Array:
    """dT/dx, which is a convolution too, of g spread out by the stride with the flipped kernel: (N, F, OH, OW) -> (N, C, H, W)."""
    if stride != (1, 1):
        n, f, oh, ow = g.shape
        spread = np.zeros(((oh - 1) * stride[0] + 1, f, (ow - 1) * stride[1] + 1, n), g.dtype).transpose(3, 1, 0, 2)
        spread[:, :, :: stride[0], :: stride[1]] = g
        g = spread
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return _correlate(g, flipped, None, (1, 1), (w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]), size)


@primitive
def _conv_weight(x: Array, g: Array, *, stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]) -> Array:
    """dT/dw: (N, C, H, W), (N, F, OH, OW) -> (F, C, KH, KW)."""
    c, f, (kh, kw) = x.shape[1], g.shape[1], size
    total = np.zeros((kh * kw * c, f), np.result_type(x, g))
    planes = g.transpose(2, 1, 3, 0)  # (N, F, OH, OW) -> (OH, F, OW, N)
    for tile, taps, lowered in _tiles(x.astype(total.dtype, copy=False), f, size, stride, padding, g.shape[2:]):
        rows = planes[tile].reshape(len(lowered), f, lowered.shape[2])
        total[taps] += np.sum(lowered @ rows.swapaxes(1, 2), axis=0)  # twice as fast in this order as g @ lowered.T
    return total.reshape(kh, kw, c, f).transpose(3, 2, 0, 1)


_conv_output.defvjp(
    lambda g, out, x, w, *bias, **geometry: _conv_input(g, w, size=x.shape[2:], **geometry),
    lambda g, out, x, w, *bias, **geometry: _conv_weight(x, g, size=w.shape[2:], **geometry),
    lambda g, out, x, w, bias, **geometry: sum(g, (0, 2, 3)),
)
_conv_input.defvjp(
    lambda h, out, g, w, size, **geometry: _conv_output(h, w, **geometry),
    lambda h, out, g, w, size, **geometry: _conv_weight(h, g, size=w.shape[2:], **geometry),
)
_conv_weight.defvjp(
    lambda h, out, x, g, size, **geometry: _conv_input(g, h, size=x.shape[2:], **geometry),
    lambda h, out, x, g, size, **geometry: _conv_output(x, h, **geometry),
)


def conv2d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as in PyTorch) over a batch of images.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    weight : array_like, shape (F, C, KH, KW)
    bias : array_like, shape (F,), optional
    stride, padding : int or (height, width)
        Step of the window; rows and columns of zeros added on every side.

    Returns
    -------
    Tensor, shape (N, F, OH, OW)
        OH = (H + 2 * padding - KH) // stride + 1, OW likewise.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or the kernel is larger than the padded image.

    Examples
    --------
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([0.5]))
    Tensor([[[[4.5, 4.5],
              [4.5, 4.5]]]], dtype=float64)
    """
    x, weight = as_tensor(x), as_tensor(weight)
    if weight.ndim != 4 or x.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"conv2d: x of shape {x.shape} does not fit weight of shape {weight.shape}; they must be (N, C, H, W) and (F, C, KH, KW) "
            "with the same number of channels C (one grey image: x.reshape(1, 1, height, width))"
        )
    strides, paddings = _pair("conv2d", "stride", stride, 1), _pair("conv2d", "padding", padding, 0)
    _checked_size("conv2d", x.shape, weight.shape[2:], strides, paddings)
    if bias is None:
        return _conv_output(x, weight, stride=strides, padding=paddings)
    bias = as_tensor(bias)
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"conv2d: bias has shape {bias.shape}; for {weight.shape[0]} filters it must be {weight.shape[:1]}")
    return _conv_output(x, weight, bias, stride=strides, padding=paddings)


def _pair(op: str, name: str, value: Pair, least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < least for v in pair):
        raise ValueError(f"{op}: {name} must be an integer of at least {least} or a pair (height, width) of such, got {value!r}")
    return int(pair[0]), int(pair[1])


def _output_size(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> tuple[int, int]:
    oh, ow = ((s + 2 * p - k) // d + 1 for s, k, d, p in zip(size, kernel, stride, padding, strict=True))
    return oh, ow


def _checked_size(
    op: str, shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Return the size (OH, OW) of the output, or explain why there is none."""
    if len(shape) != 4:
        raise ValueError(f"{op}: images have shape {shape}; it must be (N, C, H, W) (one grey image: x.reshape(1, 1, height, width))")
    size = _output_size(shape[2:], kernel, stride, padding)
    if min(kernel) < 1 or min(size) < 1:
        raise ValueError(
            f"{op}: a kernel of {kernel[0]} x {kernel[1]} does not fit into images of {shape[2]} x {shape[3]} with padding {padding}; "
            "use a smaller kernel or more padding"
        )
    return size


# Windows along one axis, and im2col -----------------------------------------------------------------------------------------------------
def _slot(axis: int, offset: int, count: int, step: int) -> tuple[slice, ...]:
    """Index of the element at `offset` in each of `count` windows along `axis`."""
    return (slice(None),) * axis + (slice(offset, offset + (count - 1) * step + 1, step),)


@primitive
def _unfold(x: Array, *, axis: int, size: int, step: int) -> Array:
    """Lay out windows: (..., L, ...) -> (..., O, ..., size), a view."""
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return windows[(slice(None),) * axis + (slice(None, None, step),)]


@primitive
def _fold(windows: Array, *, axis: int, length: int, step: int) -> Array:
    """Add up overlapping windows: (..., O, ..., size) -> (..., L, ...), the adjoint of ``_unfold``."""
    *shape, size = windows.shape
    count, shape[axis] = shape[axis], length
    out = np.zeros_like(windows[..., 0], shape=shape)
    for offset in range(size):
        out[_slot(axis, offset, count, step)] += windows[..., offset]
    return out


_unfold.defvjp(lambda g, out, x, axis, size, step: _fold(g, axis=axis, length=x.shape[axis], step=step))
_fold.defvjp(lambda g, out, windows, axis, length, step: _unfold(g, axis=axis, size=windows.shape[-1], step=step))


def _windows(op: str, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], value: float = 0.0) -> Tensor:
    """(N, C, H, W) -> (N, C, OH, OW, KH, KW)."""
    _checked_size(op, x.shape, kernel, stride, padding)
    x = _unfold(_framed(x, padding, value), axis=2, size=kernel[0], step=stride[0])
    return _unfold(x, axis=3, size=kernel[1], step=stride[1])


def _framed(x: Tensor, padding: tuple[int, int], value: float = 0.0) -> Tensor:
    return pad(x, ((0, 0), (0, 0), padding[:1] * 2, padding[1:] * 2), value) if any(padding) else x


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
    x, kernel = as_tensor(x), _pair("im2col", "kernel_size", kernel_size, 1)
    windows = _windows("im2col", x, kernel, _pair("im2col", "stride", stride, 1), _pair("im2col", "padding", padding, 0))
    n, c, oh, ow, kh, kw = windows.shape
    return reshape(transpose(windows, 0, 2, 3, 1, 4, 5), n * oh * ow, c * kh * kw)


def col2im(cols: Operand, input_shape: tuple[int, int, int, int], kernel_size: Pair, stride: Pair = 1, padding: Pair = 0) -> Tensor:
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
    kernel, steps = _pair("col2im", "kernel_size", kernel_size, 1), _pair("col2im", "stride", stride, 1)
    top, left = _pair("col2im", "padding", padding, 0)
    oh, ow = _checked_size("col2im", input_shape, kernel, steps, (top, left))
    if cols.shape != (n * oh * ow, c * kernel[0] * kernel[1]):
        raise ValueError(f"col2im: cols has shape {cols.shape}; for these settings it must be {(n * oh * ow, c * kernel[0] * kernel[1])}")
    windows = transpose(reshape(cols, n, oh, ow, c, *kernel), 0, 3, 1, 2, 4, 5)
    rows = _fold(windows, axis=3, length=w + 2 * left, step=steps[1])
    image = _fold(rows, axis=2, length=h + 2 * top, step=steps[0])
    return getitem(image, (slice(None), slice(None), slice(top, top + h), slice(left, left + w)))


# Pooling ---------------------------------------------------------------------------------------------------------------------------------
def avg_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Mean of every window; padding counts as zeros (as in PyTorch).

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)
        Without `stride`, windows lie side by side.

    Returns
    -------
    Tensor, shape (N, C, OH, OW)

    Examples
    --------
    >>> avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    Tensor([[[[1.5]]]], dtype=float64)
    """
    kernel, steps, paddings = _pooling("avg_pool2d", kernel_size, stride, padding)
    return mean(_windows("avg_pool2d", as_tensor(x), kernel, steps, paddings), axis=(-2, -1))


def max_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Maximum of every window; the gradient goes to its first maximum, row by row. Padding counts as minus infinity.

    Parameters
    ----------
    x : array_like of floats, shape (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)
        Without `stride`, windows lie side by side. Padding of at most half the kernel.

    Returns
    -------
    Tensor, shape (N, C, OH, OW)

    Examples
    --------
    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    Tensor([[[[ 5.,  7.],
              [13., 15.]]]], dtype=float64)
    """
    x = as_tensor(x)
    kernel, steps, paddings = _pooling("max_pool2d", kernel_size, stride, padding)
    _checked_size("max_pool2d", x.shape, kernel, steps, paddings)
    if x.dtype.kind != "f":
        raise TypeError(f"max_pool2d: x is {x.dtype}; padding counts as minus infinity, so convert it to floats first")
    x = _framed(x, paddings, -np.inf)
    for axis in (3, 2):  # width first, then height: the first maximum along both is the first one in row-major order
        x = _window_max(x, axis=axis, size=kernel[axis - 2], step=steps[axis - 2])
    return x


def _pooling(op: str, kernel_size: Pair, stride: Pair | None, padding: Pair) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kernel, paddings = _pair(op, "kernel_size", kernel_size, 1), _pair(op, "padding", padding, 0)
    if any(2 * p > k for p, k in zip(paddings, kernel, strict=True)):
        raise ValueError(f"{op}: padding {padding} is more than half of kernel_size {kernel_size}: some windows would hold padding alone")
    return kernel, kernel if stride is None else _pair(op, "stride", stride, 1), paddings


@primitive
def _window_max(x: Array, *, axis: int, size: int, step: int) -> Array:
    slots = _slots(x, axis, size, step)
    out = np.maximum(slots[0], slots[min(1, size - 1)])
    for slot in slots[2:]:
        np.maximum(out, slot, out=out)
    return out


@primitive
def _to_first_max(g: Array, x: Array, top: Array, *, axis: int, size: int, step: int) -> Array:
    """Put each element of `g` where `x` first attains the maximum `top` of its window, adding up where windows overlap."""
    out = np.empty_like(x, dtype=g.dtype)
    if step != size or g.shape[axis] * size != x.shape[axis]:  # else every element is written exactly once
        out[...] = 0
    overlapping = step < size
    *parts, last = _slots(out, axis, size, step)
    for part, slot in zip(parts, _slots(x, axis, size, step), strict=False):
        hit = np.multiply(slot == top, g, out=None if overlapping else part)
        g = np.subtract(g, hit, out=last if part is parts[-1] and not overlapping else None)  # what is left for later elements
        if overlapping:
            part += hit
    if overlapping:
        last += g
    elif not parts:
        last[...] = g
    return out


@primitive
def _at_first_max(v: Array, x: Array, top: Array, *, axis: int, size: int, step: int) -> Array:
    """Read `v` where `x` first attains the maximum `top` of its window: the adjoint of ``_to_first_max``."""
    *slots, out = _slots(v, axis, size, step)
    for slot, key in zip(slots[::-1], _slots(x, axis, size, step)[-2::-1], strict=True):
        out = np.where(key == top, slot, out)
    return out


def _slots(x: Array, axis: int, size: int, step: int) -> list[Array]:
    """Return the first, second … elements of all windows, as views."""
    count = (x.shape[axis] - size) // step + 1
    return [x[_slot(axis, offset, count, step)] for offset in range(size)]


_window_max.defvjp(lambda g, out, x, **window: _to_first_max(g, x, out, **window))
_to_first_max.defvjp(lambda h, out, g, x, top, **window: _at_first_max(h, x, top, **window), None, None)
_at_first_max.defvjp(lambda h, out, v, x, top, **window: _to_first_max(h, x, top, **window), None, None)
