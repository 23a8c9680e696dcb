"""What the kernels are, in NumPy: convolution by its three partial derivatives, pooling, ReLU, selection.

    T(x, w, g) = sum over n, f, i, j, c, k, l of
                 g[n, f, i, j] * w[f, c, k, l] * x[n, c, i * stride + k - padding, j * stride + l - padding]

with k and l times the dilation; with groups, c runs over the channels of the filter's group (`phases.py`).
`conv_output` is dT/dg, `conv_input` dT/dx, `conv_weight` dT/dw. The rules that make them derivatives of each other are
in ops/conv.py.

Arrays are (N, C, H, W) by name and (H, C, W, N) in memory; any other order is accepted and copied. Then im2col is a
matter of strides. What column l of the kernel sees of an image row is a matrix of C rows and OW*N columns, beginning l
* N numbers on. KH rows of the image below each other are a matrix of KH*C rows, and the next output row sees the same,
C rows on. So a convolution is KW stacks of products that read the image in place, added up: nothing is copied. With
strides or few channels, im2col copies the columns, but not the rows, of a block that fits into the cache; the gradient
by the image adds up such a block where it was copied from (`products.Windows`). Blocks are dealt to threads.

The sum is over pixels inside the image: padding takes no part in it, nor do the rows and columns that a stride leaves
out, so that 0 * infinity does not arise there. Halves are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from itertools import product
from typing import Any

import numpy as np

from . import phases, products
from .geometry import UNDIVIDED, Geometry, Size
from .machine import one_blas_thread_of_numpy
from .products import Array
from .threads import deal, pieces_for_threads


# The three partial derivatives of a convolution -----------------------------------------------------------------------
def halves_in_float32(kernel: Callable[..., Array]) -> Callable[..., Array]:
    """Compute float16 in float32, as PyTorch does: sums would overflow from 65,504 on, and lose digits before."""

    @wraps(kernel)
    def wide(*arguments: Any) -> Array:
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        if np.result_type(*arrays) != np.float16:
            return kernel(*arguments)
        single = [a.astype(np.float32) if isinstance(a, np.ndarray) else a for a in arguments]
        return kernel(*single).astype(np.float16)

    return wide


@one_blas_thread_of_numpy()
@halves_in_float32
def conv_output(x: Array, w: Array, bias: Array | None, geometry: Geometry) -> Array:
    """dT/dg, the bias added: (N, C, H, W), (F, C / groups, KH, KW), (F,) -> (N, F, OH, OW)."""
    if geometry[2:4] != UNDIVIDED:
        return phases.conv_output(conv_output, x, w, bias, geometry)
    return _correlate(x, w, bias, geometry, geometry.output_size(x.shape, w.shape[2:]))


@one_blas_thread_of_numpy()
@halves_in_float32
def conv_input(g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    """dT/dx: (N, F, OH, OW) -> (N, C, H, W). Without strides it is a convolution of g with the flipped kernel."""
    if geometry[2:4] != UNDIVIDED:
        return phases.conv_input(conv_input, g, w, geometry, size)
    if products.lowers(w.shape[1], geometry):
        return _correlate_transposed(g, w, geometry, size)
    return _correlate(*adjoint_operands(g, w, geometry.padding), size)


def adjoint_operands(g: Array, w: Array, padding: Size) -> tuple[Array, Array, None, Geometry]:
    """Return the images, weights, bias and geometry of the convolution that dT/dx is where the stride is 1."""
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    before = w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]  # negative: cut off
    return g, flipped, None, Geometry((1, 1), before)


@one_blas_thread_of_numpy()
@halves_in_float32
def conv_weight(x: Array, g: Array, geometry: Geometry, size: Size) -> Array:
    """dT/dw: (N, C, H, W), (N, F, OH, OW) -> (F, C / groups, KH, KW)."""
    if geometry[2:4] != UNDIVIDED:
        return phases.conv_weight(conv_weight, x, g, geometry, size)
    lowered = products.lowers(x.shape[1], geometry)
    out = _weights(x, g, geometry, size, lowered)
    return _weights(x, g, geometry, size, False) if lowered and not np.isfinite(out).all() else out


def _correlate(x: Array, w: Array, bias: Array | None, geometry: Geometry, size: Size) -> Array:
    """Sum over c, k, l of w[f, c, k, l] * x[n, c, i * stride + k - before, j * stride + l - before].

    Outside the image x is 0.
    """
    n, f, (oh, ow) = len(x), len(w), size
    lowered = products.lowers(x.shape[1], geometry) and bool(np.isfinite(w).all())
    dtype = np.result_type(x, w) if bias is None else np.result_type(x, w, bias)
    windows = products.Windows(x, w.shape[2:], geometry, ow, lowered, dtype)
    # (F, C, KH, KW) -> (1, F, KH*KW*C), or (KW, F, KH*C)
    filters = w.transpose(0, 2, 3, 1) if lowered else w.transpose(3, 0, 2, 1)
    filters = np.ascontiguousarray(filters, dtype).reshape(len(windows), f, windows.taps)
    out = np.empty((oh, f, ow, n), dtype)

    def compute(rows: Size) -> None:
        block = out[slice(*rows)]
        result = block
        for number, column in enumerate(windows.columns[: len(windows)]):
            result = np.empty_like(block) if number == 1 else result
            for taps, seen, part in windows.matrices(number, rows, f):
                weights = filters[number, :, taps].reshape(*part.shape[3:5], seen.shape[4])
                np.matmul(weights, seen, out=part.of(result))
            begin, end = (0, ow) if lowered else column[:2]
            if number:
                block[:, :, begin:end] += result[:, :, begin:end]
            else:
                block[:, :, :begin] = block[:, :, end:] = 0
        if bias is not None:
            np.add(block, np.repeat(bias, ow * n).reshape(f, ow, n), out=block)  # twice as fast as broadcasting it

    row_bytes = max(f * ow * n * dtype.itemsize, windows.row_bytes)
    deal(compute, windows.blocks(oh, row_bytes, w.size * ow * n, pieces_for_threads()))
    return out.transpose(3, 1, 0, 2)  # (OH, F, OW, N) -> (N, F, OH, OW)


def _correlate_transposed(g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    """Sum over f, i, j of w[f, c, y + padding - i * stride, x + padding - j * stride] * g[n, f, i, j].

    Rows of the image that are a stride apart meet the same rows of the kernel. Each sees a few rows of g, which lie
    below each other: their product with the weights is what all columns of the kernel add to that row, C rows each.
    """
    n, (f, c, _, kw), (h, width), ow = len(g), w.shape, size, g.shape[3]
    (sh, sw), (top, left), dtype = *geometry[:2], np.result_type(g, w)
    columns = products.inside(width, kw, sw, left, ow)
    g = np.ascontiguousarray(g.transpose(2, 1, 3, 0), dtype).transpose(3, 1, 0, 2)
    out, pieces = np.empty((h, c, width, n), dtype), []
    for phase in range(min(sh, h)):
        flipped = w[:, :, (phase + top) % sh :: sh][:, :, ::-1]
        taps = flipped.shape[2]
        if not taps:
            out[phase::sh] = 0
            continue
        before = taps - 1 - (phase + top) // sh
        windows = products.Windows(g, (taps, 1), Geometry((1, 1), (before, 0)), ow, False, dtype)
        filters = np.ascontiguousarray(flipped.transpose(3, 1, 2, 0), dtype)  # (F, C, taps, KW) -> (KW*C, taps*F)
        part, filters = out[phase::sh], filters.reshape(kw * c, taps * f)
        row_bytes = kw * c * ow * n * dtype.itemsize
        blocks = windows.blocks(len(part), row_bytes, flipped.size * ow * n, -(-pieces_for_threads() // sh))
        pieces += [(windows, filters, part[slice(*rows)], rows) for rows in blocks]

    def compute(piece: tuple[products.Windows, Array, Array, Size]) -> None:
        windows, filters, block, rows = piece
        result = np.empty((len(block), kw, c, ow, n), dtype)
        for taps, seen, part in windows.matrices(0, rows, kw * c):
            np.matmul(filters[:, taps].reshape(*part.shape[3:5], seen.shape[4]), seen, out=part.of(result))
        block[...] = 0
        for k, (begin, end, start) in enumerate(columns):
            if begin < end:
                block[:, :, start::sw][:, :, : end - begin] += result[:, k, :, begin:end]

    deal(compute, pieces)
    return out.transpose(3, 1, 0, 2)


def _weights(x: Array, g: Array, geometry: Geometry, size: Size, lowered: bool) -> Array:
    c, (f, oh, ow), (kh, kw) = x.shape[1], g.shape[1:], size
    dtype = np.result_type(x, g)
    windows = products.Windows(x, size, geometry, ow, lowered, dtype)
    # (N, F, OH, OW) -> (OH, F, OW, N), nearly always as it lies
    gradient = np.ascontiguousarray(g.transpose(2, 1, 3, 0), dtype)
    # groups of rows with a total each, unless adding it up took as long as its products
    row_products = min(windows.taps * f, products.BLOCK_PRODUCTS // products.GROUP_PRODUCTS) * ow * len(x)
    groups = windows.blocks(oh, 0, row_products, -(-products.GROUPS // len(windows)))
    total = np.zeros((len(groups), len(windows), windows.taps, f), dtype)
    row_bytes = max(windows.taps * f * dtype.itemsize * products.cuts(ow * len(x)), windows.row_bytes)

    def compute(piece: tuple[int, int]) -> None:
        (start, stop), part = groups[piece[0]], total[piece]
        for i0, i1 in products.parts(stop - start, max(products.BLOCK_BYTES // max(row_bytes, 1), 1)):
            rows = start + i0, start + i1
            for taps, seen, of_them in windows.matrices(piece[1], rows, f, True):
                # x @ g.T is twice as fast as g @ x.T; (rows, T, A, 1, taps / A, F) -> (taps, F)
                terms = seen @ of_them.of(gradient[slice(*rows)]).swapaxes(-1, -2)
                part[taps] += np.add.reduce(terms, axis=(0, 1)).reshape(taps.stop - taps.start, f)

    deal(compute, [*product(range(len(groups)), range(len(windows)))])
    out: Array = np.add.reduce(total)
    if lowered:  # (1, KH*KW*C, F)
        return out.reshape(kh, kw, c, f).transpose(3, 2, 0, 1)
    return out.reshape(kw, kh, c, f).transpose(3, 2, 1, 0)  # (KW, KH*C, F)


# Max-pooling ----------------------------------------------------------------------------------------------------------
def max_pool(x: Array, kernel: Size, geometry: Geometry) -> Array:
    """Maximum of every window: (N, C, H, W) -> (N, C, OH, OW). Padding counts as minus infinity."""
    first, *others = _slots(pad2d(x, geometry.padding, -np.inf), kernel, geometry)
    out = np.maximum(first, others[0] if others else first)
    for slot in others[1:]:
        np.maximum(out, slot, out=out)
    return out


def max_pool_scatter(g: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Array:
    """Put each element of `g` where `x` first has the maximum `top` of its window; where windows overlap, add up."""
    (ph, pw), (sh, sw), (h, w) = geometry.padding, geometry.stride, x.shape[2:]
    size, overlapping = (h + 2 * ph, w + 2 * pw), sh < kernel[0] or sw < kernel[1]
    covered = (g.shape[2] * sh, g.shape[3] * sw) == size and geometry.stride == kernel
    out = np.empty_like(x, g.dtype, shape=(*x.shape[:2], *size))
    if not covered:
        out[...] = 0
    for hit, part in zip(_first(x, top, kernel, geometry), _slots(out, kernel, geometry), strict=True):
        if overlapping:
            part += select(g, hit)
        else:
            part[...] = select(g, hit)
    return out[:, :, ph : ph + h, pw : pw + w]


def max_pool_gather(v: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Array:
    """Read `v` where `x` first has the maximum `top` of its window: the adjoint of `max_pool_scatter`."""
    out = np.zeros_like(top, v.dtype)
    slots = _slots(pad2d(v, geometry.padding, 0), kernel, geometry)
    for hit, slot in zip(_first(x, top, kernel, geometry), slots, strict=True):
        np.copyto(out, slot, where=hit)
    return out


def _first(x: Array, top: Array, kernel: Size, geometry: Geometry) -> Iterator[Array]:
    """Yield for the first, second … elements of all windows, row by row, whether they are the first maximum `top`.

    In windows with NaN, whether they are the last NaN, as in PyTorch. Padding never is.
    """
    *keys, _ = _slots(pad2d(x, geometry.padding, np.nan), kernel, geometry)
    left, last = np.ones_like(top, bool), None
    if np.isnan(top).any():
        last = np.full_like(top, -1, np.intp)
        for number, nan in enumerate(_slots(pad2d(np.isnan(x), geometry.padding, 0), kernel, geometry)):
            last[nan] = number
    for number, key in enumerate(keys):
        hit = key == top
        if last is not None:
            hit |= last == number
        hit &= left
        left ^= hit  # what is left for later elements
        yield hit
    yield left


def _slots(x: Array, kernel: Size, geometry: Geometry) -> list[Array]:
    """Return the first, second … elements of all windows, row by row, as views of a padded `x`."""
    sh, sw = geometry.stride
    oh, ow = Geometry(geometry.stride).output_size(x.shape, kernel)
    ends = (oh - 1) * sh + 1, (ow - 1) * sw + 1
    return [x[:, :, i : i + ends[0] : sh, j : j + ends[1] : sw] for i in range(kernel[0]) for j in range(kernel[1])]


def pad2d(x: Array, padding: Size, value: float) -> Array:
    """Surround images (N, C, H, W) with `value`, in the memory order of `x`, which np.pad would not keep."""
    (ph, pw), (n, c, h, w) = padding, x.shape
    if not (ph or pw):
        return x
    out = np.empty_like(x, shape=(n, c, h + 2 * ph, w + 2 * pw))
    out[...] = value
    out[:, :, ph : ph + h, pw : pw + w] = x
    return out


# Average pooling ------------------------------------------------------------------------------------------------------
@halves_in_float32
def average_pool(x: Array, kernel: Size, geometry: Geometry) -> Array:
    """Sum of every window over its size: (N, C, H, W) -> (N, C, OH, OW). Padding counts as zeros.

    Rows are added up first, then columns: fewer additions, and the rounding errors of short sums.
    """
    x = pad2d(x if x.dtype.kind == "f" else x.astype(np.float64), geometry.padding, 0)
    for size, step in _separated(kernel, geometry.stride):
        first, *others = _slots(x, size, step)
        x = first + others[0] if others else first
        for slot in others[1:]:
            x += slot
    out: Array = x / x.dtype.type(kernel[0] * kernel[1])
    return out


@halves_in_float32
def average_pool_gradient(g: Array, kernel: Size, geometry: Geometry, size: Size) -> Array:
    """Share each element among the pixels of its window, `average_pool`'s adjoint: (N, C, OH, OW) -> (N, C, H, W)."""
    (ph, pw), (h, w) = geometry.padding, size
    out: Array = g / g.dtype.type(kernel[0] * kernel[1])
    for axis, (extent, step) in enumerate(_separated(kernel, geometry.stride)):
        share, shape = out, list(out.shape)
        shape[2 + axis] = (h + 2 * ph, w + 2 * pw)[axis]
        out = np.empty_like(share, shape=shape)
        out[...] = 0
        for part in _slots(out, extent, step):
            part += share
    return out[:, :, ph : ph + h, pw : pw + w]


def _separated(kernel: Size, stride: Size) -> tuple[tuple[Size, Geometry], tuple[Size, Geometry]]:
    """Return size and step of windows of rows, and of columns, which one after the other are those of `kernel`."""
    return ((kernel[0], 1), Geometry((stride[0], 1))), ((1, kernel[1]), Geometry((1, stride[1])))


# ReLU and selection ---------------------------------------------------------------------------------------------------
BITS = {np.dtype(f"f{n}"): np.dtype(f"i{n}") for n in (2, 4, 8)}  # integers as large as floats, for their bits


def relu(x: Any, out: Any = None) -> Any:
    """``np.maximum(x, 0)``; NumPy vectorises it between arrays only: with a slab of zeros 0.2, not 0.5 ms (5 MB)."""
    zero = x.dtype.type(0)
    if x.size < 8192:
        return np.maximum(x, zero, out=out)
    outermost = max((axis for axis in range(x.ndim) if x.shape[axis] > 1), key=lambda axis: abs(x.strides[axis]))
    slab = x[(slice(None),) * outermost + (slice(0, 1),)]
    return np.maximum(x, np.zeros_like(slab) if slab.size >= 512 else zero, out=out)


def relu_gradient(g: Array, x: Array, out: Any = None) -> Any:
    """``g``, and 0 where ``x`` is 0 or negative; where ``x`` is NaN it is ``g``, as in PyTorch."""
    return select(g, ~np.less_equal(x, 0), out)


def select(g: Array, mask: Any, out: Any = None) -> Any:
    """``g`` where the mask holds, else 0, also where ``g`` is infinite or NaN.

    The bits of ``g``, as integers, are multiplied by 0 or 1: as fast as ``g * mask``, a tenth of the time of np.where.
    """
    mask, bits = np.asarray(mask, np.bool_), BITS.get(g.dtype)
    if bits is None:
        return np.where(mask, g, g.dtype.type(0))
    return np.multiply(g.view(bits), mask, out=None if out is None else out.view(bits)).view(g.dtype)
