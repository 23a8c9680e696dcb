"""What the kernels are, in NumPy: convolution by its three partial derivatives, pooling, ReLU, selection.

    T(x, w, g) = sum over n, f, i, j, c, k, l of
                 g[n, f, i, j] * w[f, c, k, l] * x[n, c, i * stride + k - padding, j * stride + l - padding]

`conv_output` is dT/dg, `conv_input` dT/dx, `conv_weight` dT/dw. The rules that make them derivatives of each other are
in ops/conv.py.

Arrays are (N, C, H, W) by name and (H, C, W, N) in memory; any other order is accepted and copied. Then im2col is a
matter of strides. What column l of the kernel sees of an image row is a matrix of C rows and OW*N columns, beginning l
* N numbers on. KH rows of the image below each other are a matrix of KH*C rows, and the next output row sees the same,
C rows on. So a convolution is KW stacks of products that read the image in place, added up: nothing is copied.

The sum is over pixels inside the image: padding takes no part in it, nor do the rows and columns that a stride leaves
out, so that 0 * infinity does not arise there. Halves are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from . import products
from .geometry import Geometry, Size
from .machine import one_blas_thread_of_numpy
from .products import Array
from .threads import deal


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
    """dT/dg, the bias added: (N, C, H, W), (F, C, KH, KW), (F,) -> (N, F, OH, OW)."""
    size = geometry.output_size(x.shape, w.shape[2:])
    if not np.isfinite(w).all():
        out = _zeros(len(x), len(w), size, np.result_type(x, w) if bias is None else np.result_type(x, w, bias))
        for tap, pixels, outputs in _taps(geometry, x.shape, w.shape[2:], size):
            out[outputs] += np.einsum("fc,nchw->nfhw", w[tap], x[pixels], optimize=True)
        return out if bias is None else out + bias[:, None, None]
    return _correlate(x, w, bias, geometry, size)


@one_blas_thread_of_numpy()
@halves_in_float32
def conv_input(g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    """dT/dx, convolutions of g with the flipped kernel: (N, F, OH, OW) -> (N, C, H, W)."""
    if not np.isfinite(w).all():
        out = _zeros(len(g), w.shape[1], size, np.result_type(g, w))
        for tap, pixels, outputs in _taps(geometry, out.shape, w.shape[2:], g.shape[2:]):
            out[pixels] += np.einsum("fc,nfhw->nchw", w[tap], g[outputs], optimize=True)
        return out
    return by_phases(_correlate_adjoint, g, w, geometry, size)


def by_phases(
    adjoint: Callable[[Array, Array, Size, Size], Array], g: Array, w: Array, geometry: Geometry, size: Size
) -> Array:
    """Compute dT/dx of a convolution with strides from convolutions without.

    Rows and columns of x that are a stride apart meet the same weights. ``adjoint(g, w, padding, size)`` is dT/dx for
    stride 1.
    """
    (sh, sw), (ph, pw) = geometry
    if (sh, sw) == (1, 1):
        return adjoint(g, w, (ph, pw), size)
    out = np.zeros((size[0], w.shape[1], size[1], len(g)), np.result_type(g, w)).transpose(3, 1, 0, 2)
    for y in range(min(sh, size[0])):
        for x in range(min(sw, size[1])):
            seen = w[:, :, (y + ph) % sh :: sh, (x + pw) % sw :: sw]
            if seen.size:
                part = out[:, :, y::sh, x::sw]
                part[...] = adjoint(g, seen, ((y + ph) // sh, (x + pw) // sw), part.shape[2:])
    return out


def _correlate_adjoint(g: Array, w: Array, padding: Size, size: Size) -> Array:
    return _correlate(*adjoint_operands(g, w, padding), size)


def adjoint_operands(g: Array, w: Array, padding: Size) -> tuple[Array, Array, None, Geometry]:
    """Return the images, weights, bias and geometry of the convolution that dT/dx is where the stride is 1."""
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    before = w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]  # negative: cut off
    return g, flipped, None, Geometry((1, 1), before)


@one_blas_thread_of_numpy()
@halves_in_float32
def conv_weight(x: Array, g: Array, geometry: Geometry, size: Size) -> Array:
    """dT/dw: (N, C, H, W), (N, F, OH, OW) -> (F, C, KH, KW)."""
    out = _weights(x, g, geometry, size)
    if not np.isfinite(out).all():
        out = np.zeros_like(out)
        for tap, pixels, outputs in _taps(geometry, x.shape, size, g.shape[2:]):
            out[tap] = np.einsum("nfhw,nchw->fc", g[outputs], x[pixels], optimize=True)
    return out


def _weights(x: Array, g: Array, geometry: Geometry, size: Size) -> Array:
    c, (f, oh, ow), (kh, kw), (stride, padding) = x.shape[1], g.shape[1:], size, geometry
    dtype = np.result_type(x, g)
    image, columns = products.lay_out(x, kw, stride[1], padding[1], ow, dtype)
    # (N, F, OH, OW) -> (OH, F, OW, N), nearly always as it lies
    gradient = np.ascontiguousarray(g.transpose(2, 1, 3, 0), dtype)
    total = np.zeros((len(columns), kh * image.shape[1], f), dtype)
    row_bytes = total[0].nbytes * products.cuts(ow * len(x))
    blocks = products.parts(oh, max(products.BLOCK_BYTES // max(row_bytes, 1), 1))

    def compute(number: int) -> None:
        part, column = total[number], columns[number]
        for i0, i1 in blocks:
            rows = stride[0], padding[0], (i0, i1)
            for taps, seen, of_them in products.plan_products(
                image.shape, f, kh, *rows, ow, column, dtype.itemsize, True
            ):
                # x @ g.T is twice as fast as g @ x.T; (rows, T, A, 1, taps / A, F) -> (taps, F)
                product = seen.of(image) @ of_them.of(gradient[i0:i1]).swapaxes(-1, -2)
                part[taps] += np.add.reduce(product, axis=(0, 1)).reshape(taps.stop - taps.start, f)

    deal(compute, range(len(columns)))
    if len(columns) < kw:  # lowered: (1, KH * KW*C, F)
        return total.reshape(kh, kw, c, f).transpose(3, 2, 0, 1)
    return total.reshape(kw, kh, c, f).transpose(3, 2, 1, 0)  # (KW, KH * C, F)


def _zeros(n: int, channels: int, size: Size, dtype: np.dtype[Any]) -> Array:
    return np.zeros((size[0], channels, size[1], n), dtype).transpose(3, 1, 0, 2)


def _taps(geometry: Geometry, shape: tuple[int, ...], kernel: Size, size: Size) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each tap of the kernel, the pixels inside images of `shape` that it meets, and the outputs that see them.

    As indices of weights (F, C, KH, KW), images (N, C, H, W) and outputs (N, F, OH, OW).
    """
    rows, columns = (
        products.inside(shape[2 + axis], kernel[axis], geometry.stride[axis], geometry.padding[axis], size[axis])
        for axis in range(2)
    )
    sh, sw = geometry.stride
    for row, (i0, i1, y) in enumerate(rows):
        for column, (j0, j1, x) in enumerate(columns):
            if i0 < i1 and j0 < j1:
                pixels = slice(y, y + (i1 - i0 - 1) * sh + 1, sh), slice(x, x + (j1 - j0 - 1) * sw + 1, sw)
                yield (..., row, column), (..., *pixels), (..., slice(i0, i1), slice(j0, j1))


def _correlate(x: Array, w: Array, bias: Array | None, geometry: Geometry, size: Size) -> Array:
    """Sum over c, k, l of w[f, c, k, l] * x[n, c, i * stride + k - before, j * stride + l - before].

    Outside the image x is 0.
    """
    n, (f, c, kh, kw), (oh, ow), (stride, before) = len(x), w.shape, size, geometry
    dtype = np.result_type(x, w) if bias is None else np.result_type(x, w, bias)
    image, columns = products.lay_out(x, kw, stride[1], before[1], ow, dtype)
    if len(columns) < kw:  # lowered
        filters = w.transpose(0, 2, 3, 1).reshape(1, f, kh * kw * c)  # (F, C, KH, KW) -> (1, F, KH*KW*C)
    else:
        filters = w.transpose(3, 0, 2, 1).reshape(kw, f, kh * c)  # (F, C, KH, KW) -> (KW, F, KH*C)
    filters = np.ascontiguousarray(filters, dtype)
    out = np.empty((oh, f, ow, n), dtype)
    blocks = products.parts(oh, max(products.BLOCK_BYTES // max(f * ow * n * dtype.itemsize, 1), 1))

    def compute(rows: tuple[int, int]) -> None:
        block = out[slice(*rows)]
        result = block
        for number, column in enumerate(columns):
            result = np.empty_like(block) if number == 1 else result
            for taps, seen, part in products.plan_products(
                image.shape, f, kh, stride[0], before[0], rows, ow, column, dtype.itemsize, False
            ):
                weights = filters[number, :, taps].reshape(*part.shape[3:5], seen.shape[4])
                np.matmul(weights, seen.of(image), out=part.of(result))
            begin, end, _ = column
            if number:
                block[:, :, begin:end] += result[:, :, begin:end]
            else:
                block[:, :, :begin] = block[:, :, end:] = 0
        if bias is not None:
            np.add(block, np.repeat(bias, ow * n).reshape(f, ow, n), out=block)  # twice as fast as broadcasting it

    deal(compute, blocks)
    return out.transpose(3, 1, 0, 2)  # (OH, F, OW, N) -> (N, F, OH, OW)


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
