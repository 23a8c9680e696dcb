"""Convolutions as products of small matrices that lie in the image: how they are cut and planned."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .geometry import Size

Array: TypeAlias = npt.NDArray[Any]

BLOCK_BYTES = 3 << 19  # of intermediate results, for the second-level cache: so many output rows at a time
# Where the processor has AVX-512, OpenBLAS multiplies small matrices without packing them first: up to M * N * K = 1e6,
# and M * N = 1200 for products with a transpose. That runs at 105-115 GFLOP/s, large products at 75-95. Elsewhere
# nothing is gained by cutting.
SMALL = bool(getattr(sys.modules.get("numpy._core._multiarray_umath"), "__cpu_features__", {}).get("AVX512F"))
SMALL_PRODUCT, SMALL_GRADIENT, SMALL_COLUMNS = 1_000_000, 1200, 64
FEW_CHANNELS = 8  # fewer make flat products: 1.3 instead of 0.5 ms for conv1, 125 images


def lay_out(
    x: Array, kw: int, sw: int, left: int, ow: int, dtype: np.dtype[Any]
) -> tuple[Array, list[tuple[int, int, int]]]:
    """Lay an image out for products: (N, C, H, W) -> (H, C, W, N), or lowered along the width to (H, KW*C, OW, N).

    Returns it, and for each column of the kernel the output columns for which it is inside the image, and what the
    first of them sees.
    """
    n, c, h, w = x.shape
    image, columns = x.transpose(2, 1, 3, 0), inside(w, kw, sw, left, ow)
    if sw == 1 and c >= FEW_CHANNELS:
        return np.ascontiguousarray(image, dtype), columns
    lowered = np.zeros((h, kw, c, ow, n), dtype)
    for k, (begin, end, start) in enumerate(columns):
        if begin < end:
            lowered[:, k, :, begin:end] = image[:, :, start : start + (end - begin - 1) * sw + 1 : sw]
    return lowered.reshape(h, kw * c, ow, n), [(0, ow, 0)]


@lru_cache(maxsize=1024)
def inside(w: int, kw: int, sw: int, left: int, ow: int) -> list[tuple[int, int, int]]:
    """For each column of the kernel: the output columns for which it is inside the image, and what the first sees.

    The same for rows.
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


@lru_cache(maxsize=4096)  # planned once for all steps, because it holds the GIL
def plan_products(
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
    """Plan the products of one column of the kernel with an image (H, C, W, N), for some output rows (OH, F, OW, N).

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


def parts(length: int, most: int) -> list[tuple[int, int]]:
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


def cuts(columns: int) -> int:
    """Into how many products of a weight gradient most of these `columns` are cut."""
    return columns * SMALL_GRADIENT // SMALL_PRODUCT + 1
