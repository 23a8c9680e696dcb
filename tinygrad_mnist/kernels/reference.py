"""The three partial derivatives of a convolution, on arrays: where a convolutional network spends its time.

    T(x, w, g) = sum over n, f, i, j, c, k, l of
                 g[n, f, i, j] * w[f, c, k, l] * x[n, c, i * stride + k - padding, j * stride + l - padding]

`output` is dT/dg, `input_gradient` dT/dx, `weight_gradient` dT/dw. The rules that make them derivatives of each other
are in conv.py; a faster implementation of the three can take their place.

Arrays are (N, C, H, W) by name and (H, C, W, N) in memory; any other order is accepted and copied. Then im2col is a
matter of strides. What column l of the kernel sees of an image row is a matrix of C rows and OW*N columns, beginning l
* N numbers on. KH rows of the image below each other are a matrix of KH*C rows, and the next output row sees the same,
C rows on. So a convolution is KW stacks of products that read the image in place, added up: nothing is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]  # height, width

BLOCK_BYTES = 3 << 19  # of intermediate results, for the second-level cache: so many output rows at a time
# Where the processor has AVX-512, OpenBLAS multiplies small matrices without packing them first: up to M * N * K = 1e6,
# and M * N = 1200 for products with a transpose. That runs at 105-115 GFLOP/s, large products at 75-95. Elsewhere
# nothing is gained by cutting.
SMALL = bool(
    getattr(sys.modules.get("numpy._core._multiarray_umath"), "__cpu_features__", {}).get("AVX512F")
)  # as np.show_runtime does
SMALL_PRODUCT, SMALL_GRADIENT, SMALL_COLUMNS = 1_000_000, 1200, 64
FEW_CHANNELS = 8  # fewer make flat products: 1.3 instead of 0.5 ms for conv1, 125 images


def output(x: Array, w: Array, bias: Array | None, stride: Size, padding: Size, rectify: bool = False) -> Array:
    """dT/dg, the bias added, and max(.., 0) if it is to be rectified.

    (N, C, H, W), (F, C, KH, KW), (F,) -> (N, F, OH, OW).
    """
    return _correlate(x, w, bias, stride, padding, output_size(x.shape[2:], w.shape[2:], stride, padding), rectify)


def input_gradient(g: Array, w: Array, stride: Size, padding: Size, size: Size) -> Array:
    """dT/dx, which is a convolution too, of g spread out by the stride with the flipped kernel.

    (N, F, OH, OW) -> (N, C, H, W).
    """
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return _correlate(
        spread(g, stride), flipped, None, (1, 1), (w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]), size
    )


def weight_gradient(x: Array, g: Array, stride: Size, padding: Size, size: Size) -> Array:
    """dT/dw: (N, C, H, W), (N, F, OH, OW) -> (F, C, KH, KW)."""
    c, (f, oh, ow), (kh, kw) = x.shape[1], g.shape[1:], size
    dtype = np.result_type(x, g)
    image, columns = _laid_out(x, kw, stride[1], padding[1], ow, dtype)
    gradient = np.ascontiguousarray(
        g.transpose(2, 1, 3, 0), dtype
    )  # (N, F, OH, OW) -> (OH, F, OW, N), nearly always as it lies
    total = np.zeros((len(columns), kh * image.shape[1], f), dtype)
    row_bytes = total[0].nbytes * (
        ow * len(x) * SMALL_GRADIENT // SMALL_PRODUCT + 1
    )  # of products, as most of them are cut
    for i0, i1 in _parts(oh, max(BLOCK_BYTES // max(row_bytes, 1), 1)):
        for part, column in zip(total, columns, strict=True):
            for taps, seen, of_them in _products(
                image.shape, f, kh, stride[0], padding[0], (i0, i1), ow, column, dtype.itemsize, True
            ):
                products = seen.of(image) @ of_them.of(gradient[i0:i1]).swapaxes(
                    -1, -2
                )  # twice as fast in this order as g @ x.T
                part[taps] += np.add.reduce(products, axis=(0, 1)).reshape(
                    taps.stop - taps.start, f
                )  # (rows, T, A, 1, taps / A, F)
    if len(columns) < kw:  # lowered: (1, KH * KW*C, F)
        return total.reshape(kh, kw, c, f).transpose(3, 2, 0, 1)
    return total.reshape(kw, kh, c, f).transpose(3, 2, 1, 0)  # (KW, KH * C, F)


def spread(g: Array, stride: Size) -> Array:
    """Put stride - 1 rows and columns of zeros between those of `g`."""
    if stride == (1, 1):
        return g
    n, f, oh, ow = g.shape
    out = np.zeros(((oh - 1) * stride[0] + 1, f, (ow - 1) * stride[1] + 1, n), g.dtype).transpose(3, 1, 0, 2)
    out[:, :, :: stride[0], :: stride[1]] = g
    return out


def output_size(size: tuple[int, ...], kernel: tuple[int, ...], stride: Size, padding: Size) -> Size:
    """Return (OH, OW) of images of `size`; not positive, if the kernel does not fit."""
    oh, ow = ((s + 2 * p - k) // d + 1 for s, k, d, p in zip(size, kernel, stride, padding, strict=True))
    return oh, ow


def _correlate(
    x: Array, w: Array, bias: Array | None, stride: Size, before: Size, size: Size, rectify: bool = False
) -> Array:
    """Sum over c, k, l of w[f, c, k, l] * x[n, c, i * stride + k - before, j * stride + l - before].

    Outside the image x is 0.
    """
    n, (f, c, kh, kw), (oh, ow) = len(x), w.shape, size
    dtype = np.result_type(x, w) if bias is None else np.result_type(x, w, bias)
    image, columns = _laid_out(x, kw, stride[1], before[1], ow, dtype)
    if len(columns) < kw:  # lowered
        filters = w.transpose(0, 2, 3, 1).reshape(1, f, kh * kw * c)  # (F, C, KH, KW) -> (1, F, KH*KW*C)
    else:
        filters = w.transpose(3, 0, 2, 1).reshape(kw, f, kh * c)  # (F, C, KH, KW) -> (KW, F, KH*C)
    filters = np.ascontiguousarray(filters, dtype)
    out = np.empty((oh, f, ow, n), dtype)
    blocks = _parts(oh, max(BLOCK_BYTES // max(f * ow * n * dtype.itemsize, 1), 1))
    scratch = np.empty((max((i1 - i0 for i0, i1 in blocks), default=0), f, ow, n), dtype) if len(columns) > 1 else out
    for i0, i1 in blocks:
        block, more = out[i0:i1], scratch[: i1 - i0]
        for number, column in enumerate(columns):
            result = more if number else block
            for taps, seen, part in _products(
                image.shape, f, kh, stride[0], before[0], (i0, i1), ow, column, dtype.itemsize, False
            ):
                weights = filters[number, :, taps].reshape(*part.shape[3:5], seen.shape[4])
                np.matmul(weights, seen.of(image), out=part.of(result))
            begin, end, _ = column
            if number:
                block[:, :, begin:end] += result[:, :, begin:end]
            else:
                block[:, :, :begin] = block[:, :, end:] = 0
        if bias is not None:
            block += np.repeat(bias, ow * n).reshape(f, ow, n)  # twice as fast as broadcasting it
        if rectify:
            np.maximum(
                block, np.zeros_like(block[:1]), out=block
            )  # a row of zeros: NumPy does not vectorise this with a number
    return out.transpose(3, 1, 0, 2)  # (OH, F, OW, N) -> (N, F, OH, OW)


def _laid_out(
    x: Array, kw: int, sw: int, left: int, ow: int, dtype: np.dtype[Any]
) -> tuple[Array, list[tuple[int, int, int]]]:
    """Lay an image out for products: (N, C, H, W) -> (H, C, W, N), or lowered along the width to (H, KW*C, OW, N).

    Returns it, and for each column of the kernel the output columns for which it is inside the image, and what the
    first of them sees.
    """
    n, c, h, w = x.shape
    image, columns = x.transpose(2, 1, 3, 0), _columns_inside(w, kw, sw, left, ow)
    if sw == 1 and c >= FEW_CHANNELS:
        return np.ascontiguousarray(image, dtype), columns
    lowered = np.zeros((h, kw, c, ow, n), dtype)
    for k, (begin, end, start) in enumerate(columns):
        if begin < end:
            lowered[:, k, :, begin:end] = image[:, :, start : start + (end - begin - 1) * sw + 1 : sw]
    return lowered.reshape(h, kw * c, ow, n), [(0, ow, 0)]


@lru_cache(maxsize=1024)
def _columns_inside(w: int, kw: int, sw: int, left: int, ow: int) -> list[tuple[int, int, int]]:
    """For each column of the kernel, the output columns (begin, end) for which it is inside the image, and what the
    first one sees.
    """
    edges = [[min(max(-((k - left - edge) // sw), 0), ow) for edge in (0, w)] for k in range(kw)]
    return [(begin, max(begin, end), begin * sw + k - left) for k, (begin, end) in enumerate(edges)]


class _Matrices(NamedTuple):
    """A stack of matrices in a buffer: where it begins and how it lies, in bytes."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, buffer: Array) -> Array:
        if 0 in self.shape:
            return np.empty(self.shape, buffer.dtype)
        return np.ndarray(self.shape, buffer.dtype, buffer, self.offset, self.strides)


@lru_cache(maxsize=4096)  # planned once for all steps: while a thread does this, no other can go on
def _products(
    shape: tuple[int, ...],
    filters: int,
    kh: int,
    sh: int,
    top: int,
    rows: Size,
    ow: int,
    column: tuple[int, int, int],
    size: int,
    gradient: bool,
) -> Sequence[tuple[slice, _Matrices, _Matrices]]:
    """Plan the products of one column of the kernel with an image (H, C, W, N) for some `rows` of the output (OH, F,
    OW, N).

    `size` is that of a number, in bytes. Returns taps, a range of the kernel's KH*C rows, what they see of the image,
    of shape (rows, T, A, 1, taps / A, columns / T), and the output that belongs to it, of shape (rows, T, 1, B, F / B,
    columns / T). A, B and T make the products small.
    """
    (h, c, w, n), (i0, i1), (begin, end, start) = shape, rows, column
    line, out_line, plan = w * n * size, ow * n * size, []
    for (first, last), sequence in groupby(range(i0, i1), lambda i: (max(0, top - i * sh), min(kh, h + top - i * sh))):
        i, *more = sequence  # output rows that see the same rows of the kernel inside the image
        count, taps = 1 + len(more), max(last - first, 0) * c
        a = _pieces(taps, SMALL_GRADIENT // max(filters, 1)) if gradient else 1
        b = 1 if gradient else _pieces(filters, SMALL_PRODUCT // max(taps * SMALL_COLUMNS, 1))
        for at, t, wide in _cut((end - begin) * n, taps * filters // (a * b)):
            offset = (i * sh - top + first) * c * line + (start * n + at) * size
            strides = (sh * c * line, wide * size, taps // a * line, 0, line, size)
            seen = _Matrices(offset, (count, t, a, 1, taps // a, wide), strides)
            offset = (i - i0) * filters * out_line + (begin * n + at) * size
            strides = (filters * out_line, wide * size, 0, filters // b * out_line, out_line, size)
            part = _Matrices(offset, (count, t, 1, b, filters // b, wide), strides)
            plan.append((slice(first * c, first * c + taps), seen, part))
    return plan


def _parts(length: int, most: int) -> list[tuple[int, int]]:
    """Cut range(length) into the fewest nearly equal parts of at most `most`."""
    count = -(-length // most)
    edges = [length * i // count for i in range(count + 1)] if count else []
    return list(pairwise(edges))


def _pieces(length: int, most: int) -> int:
    """Into how many equal pieces of at most `most` to cut the rows of a product; 1 if they would be tiny."""
    return next((length // size for size in range(min(length, most), 7, -1) if length % size == 0), 1) if SMALL else 1


def _cut(columns: int, area: int) -> list[tuple[int, int, int]]:
    """Cut `columns` so that products of `area` times their width are small, if it can be done.

    Returns begin, how many and width: of equal ones, and of a rest.
    """
    wide = SMALL_PRODUCT // max(area, 1) // SMALL_COLUMNS * SMALL_COLUMNS if SMALL else 0
    wide = wide or max(columns, 1)
    cuts = [(0, columns // wide, wide), (columns - columns % wide, 1, columns % wide)]
    return [cut for cut in cuts if cut[1] and cut[2]]
