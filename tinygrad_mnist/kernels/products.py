"""Convolutions as products of small matrices that lie in the image: how they are cut and planned."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .geometry import Geometry, Size

Array: TypeAlias = npt.NDArray[Any]

BLOCK_BYTES = 3 << 19  # of intermediate results, for the second-level cache: so many output rows at a time
# Where the processor has AVX-512, OpenBLAS multiplies small matrices without packing them first: up to M * N * K = 1e6,
# and M * N = 1200 for products with a transpose. That runs at 105-115 GFLOP/s, large products at 75-95. Elsewhere
# nothing is gained by cutting.
SMALL = bool(getattr(sys.modules.get("numpy._core._multiarray_umath"), "__cpu_features__", {}).get("AVX512F"))
SMALL_PRODUCT, SMALL_GRADIENT, SMALL_COLUMNS = 1_000_000, 1200, 64
BLOCK_PRODUCTS = 1 << 22  # multiplications, 80 us; less work is not cut for threads
GROUPS, GROUP_PRODUCTS = 6, 512  # parts of a weight gradient, for any number of threads, and products for each weight
FEW_CHANNELS = 8  # fewer make flat products: 1.3 instead of 0.5 ms for conv1, 125 images


class Windows:
    """Images as a convolution reads them: as one or several stacks of matrices in (H, C, W, N).

    Without strides, each column of the kernel reads the image in place, some columns further on. With strides, or few
    channels, its columns would be scattered or its products small: there the rows that a block of output rows sees are
    copied, for all columns of the kernel below each other: (rows, KW*C, OW, N), with zeros outside of the image.
    If these could meet an infinity, `lowered` must be false: then each column copies what it sees itself.
    """

    def __init__(self, x: Array, kernel: Size, geometry: Geometry, ow: int, lowered: bool, dtype: np.dtype[Any]):
        (self.kh, kw), (self.sh, self.sw), (self.top, left) = kernel, *geometry[:2]
        self.ow, self.lowered, image = ow, lowered, x.transpose(2, 1, 3, 0)
        self.columns = inside(x.shape[3], kw, self.sw, left, ow)
        self.image = image if lowered else np.ascontiguousarray(image, dtype)
        self.dtype = dtype
        self.taps = self.kh * x.shape[1] * (kw if lowered else 1)  # rows of a matrix
        # bytes that are copied for each row of the output
        self.row_bytes = self.sh * kw * x.shape[1] * ow * len(x) * dtype.itemsize if lowered else 0

    def __len__(self) -> int:
        return 1 if self.lowered else len(self.columns)

    def blocks(self, length: int, row_bytes: int, row_products: int, count: int) -> list[Size]:
        """Cut output rows into at least `count` blocks, for threads, whose intermediate results stay in the cache.

        Fewer if they would be little work, or would copy most rows of the image several times.
        """
        shared = self.kh // self.sh if self.lowered else 0
        most = max(-(-length // count), BLOCK_PRODUCTS // max(row_products, 1), shared)
        return parts(length, max(min(BLOCK_BYTES // max(row_bytes, 1), most), 1))

    def matrices(
        self, number: int, rows: Size, filters: int, gradient: bool = False
    ) -> Iterator[tuple[slice, Array, Matrices]]:
        """Yield what some output rows see with the taps of one stack: taps, matrices, and the output's matrices.

        See `plan_products`.
        """
        i0, i1 = rows
        y = max(i0 * self.sh - self.top, 0)
        image, column = self.image[y : max((i1 - 1) * self.sh - self.top + self.kh, y)], self.columns[number]
        if self.lowered:
            image, column = self._lower(image), (0, self.ow, 0)
        elif self.sw > 1:
            begin, end, start = column
            image, column = np.ascontiguousarray(image[:, :, start :: self.sw][:, :, : end - begin]), (begin, end, 0)
        top, size = self.top + y - i0 * self.sh, self.dtype.itemsize
        for taps, seen, part in plan_products(
            image.shape, filters, self.kh, self.sh, top, i1 - i0, self.ow, column, size, gradient
        ):
            yield taps, seen.of(image), part

    def _lower(self, image: Array) -> Array:
        (h, c, _, n), kw = image.shape, len(self.columns)
        lowered = np.empty((h, kw, c, self.ow, n), self.dtype)
        for k, (begin, end, start) in enumerate(self.columns):
            part = lowered[:, k]
            part[:, :, :begin] = part[:, :, end:] = 0
            if begin < end:
                part[:, :, begin:end] = image[:, :, start :: self.sw][:, :, : end - begin]
        return lowered.reshape(h, kw * c, self.ow, n)


def lowers(channels: int, geometry: Geometry) -> bool:
    """Whether images of so many channels are copied for products; see `Windows`."""
    return geometry.stride != (1, 1) or channels < FEW_CHANNELS


@lru_cache(maxsize=1024)
def inside(w: int, kw: int, sw: int, left: int, ow: int) -> list[tuple[int, int, int]]:
    """For each column of the kernel: the output columns for which it is inside the image, and what the first sees.

    The same for rows.
    """
    edges = [[min(max(-((k - left - edge) // sw), 0), ow) for edge in (0, w)] for k in range(kw)]
    return [(begin, max(begin, end), begin * sw + k - left) for k, (begin, end) in enumerate(edges)]


class Matrices(NamedTuple):
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
    count: int,
    ow: int,
    column: tuple[int, int, int],
    size: int,
    gradient: bool,
) -> Sequence[tuple[slice, Matrices, Matrices]]:
    """Plan the products of one column of the kernel with an image (H, C, W, N), for output rows (OH, F, OW, N).

    `size` is that of a number, in bytes. Returns taps, a range of the kernel's KH*C rows, what they see of the image,
    of shape (rows, T, A, 1, taps / A, columns / T), and the output that belongs to it, of shape (rows, T, 1, B, F / B,
    columns / T). A, B and T make the products small.
    """
    (h, c, w, n), (begin, end, start) = shape, column
    line, out_line, plan = w * n * size, ow * n * size, []
    for (first, last), sequence in groupby(range(count), lambda i: (max(0, top - i * sh), min(kh, h + top - i * sh))):
        i, *more = sequence  # output rows that see the same rows of the kernel inside the image
        height, taps = 1 + len(more), max(last - first, 0) * c
        a = _pieces(taps, SMALL_GRADIENT // max(filters, 1)) if gradient else 1
        b = 1 if gradient else _pieces(filters, SMALL_PRODUCT // max(taps * SMALL_COLUMNS, 1))
        area = taps * filters // (a * b)
        for at, t, wide in _cut((end - begin) * n, 0 if gradient and area > SMALL_GRADIENT else area):
            offset = (i * sh - top + first) * c * line + (start * n + at) * size
            strides = (sh * c * line, wide * size, taps // a * line, 0, line, size)
            seen = Matrices(offset, (height, t, a, 1, taps // a, wide), strides)
            offset = i * filters * out_line + (begin * n + at) * size
            strides = (filters * out_line, wide * size, 0, filters // b * out_line, out_line, size)
            part = Matrices(offset, (height, t, 1, b, filters // b, wide), strides)
            plan.append((slice(first * c, first * c + taps), seen, part))
    return plan


@lru_cache(maxsize=1024)
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
