"""The compiled kernels, c/native.c: what reference.py defines, for float32 and the plans that __init__.py sends here.

They are optional: without a compiled library NumPy computes everything. The library knows nothing of Python and is
called without the GIL. Both compute the same up to rounding, for every input.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from . import phases, reference
from .geometry import UNDIVIDED, Geometry, Size
from .machine import op_threads
from .products import Array
from .threads import LARGE, SLICES, cuts, deal

VARIABLE = "TINYGRAD_MNIST_NATIVE"
LEVELS = ("baseline", "avx2", "avx512")  # as numbered in native.c
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "mish", "softplus")  # as numbered there
SIGNATURES = {  # the level, threads, sizes, and arrays
    "convolve": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 5],
    "weight_gradient": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 4],
    "max_pool": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3],
    "max_pool_gradient": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 5],
    "average_pool": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3],
    "average_pool_gradient": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3],
    "relu_gradient": [ctypes.c_int, *[ctypes.c_ssize_t] * 2, *[ctypes.c_void_p] * 3],
    "channel_sums": [ctypes.c_int, *[ctypes.c_ssize_t] * 4, *[ctypes.c_void_p] * 2],
    "depthwise": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 5],
    "depthwise_gradient": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 4],
    "depthwise_weights": [ctypes.c_int, ctypes.c_ssize_t, *[ctypes.c_void_p] * 4],
    "activation": [ctypes.c_int, *[ctypes.c_ssize_t] * 3, *[ctypes.c_void_p] * 3],
    "moments": [ctypes.c_int, *[ctypes.c_ssize_t] * 4, *[ctypes.c_void_p] * 2],
    "gradient_sums": [ctypes.c_int, *[ctypes.c_ssize_t] * 4, *[ctypes.c_void_p] * 4],
    "affine": [ctypes.c_int, *[ctypes.c_ssize_t] * 4, *[ctypes.c_void_p] * 4],
}


def _load() -> tuple[Any, int, str]:
    """Open the library; returns it, the level of instructions to use, and why."""
    choice = os.environ.get(VARIABLE, "") or "1"
    if choice == "0":
        return None, 0, f"switched off by {VARIABLE}=0"
    named = choice if choice not in ("1", *LEVELS) else None
    if named is not None and not Path(named).is_file():
        raise ValueError(
            f"{VARIABLE} is {choice!r}; it must be 0 (off), 1, one of {', '.join(LEVELS)}, or the path of a compiled "
            "library"
        )
    paths = (
        [Path(__file__).parent / "c" / f"native{suffix}" for suffix in EXTENSION_SUFFIXES]
        if named is None
        else [Path(named)]
    )
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return (
            None,
            0,
            "not compiled: there was no C compiler, or it failed, when this was installed; pip install -v shows why",
        )
    try:
        library = ctypes.CDLL(str(path.resolve()))
        for name, types in SIGNATURES.items():
            getattr(library, name).argtypes = types
        library.compiler.restype, library.geometry_size.restype = ctypes.c_char_p, ctypes.c_size_t
        if library.geometry_size() != ctypes.sizeof(_geometry((0,) * 4, (0,) * 4, (0,) * 4, Geometry(), (0, 0))):
            raise AttributeError("its structures differ")
    except OSError as error:
        return None, 0, f"the compiled library cannot be loaded: {error}"
    except AttributeError as error:
        return None, 0, f"{path} is of another version ({error}); install again"
    level = library.highest_level()
    if choice in LEVELS:
        if LEVELS.index(choice) > level:
            raise ValueError(f"{VARIABLE} is {choice!r}, but this processor has no more than {LEVELS[level]!r}")
        return library, LEVELS.index(choice), f"chosen by {VARIABLE}={choice}"
    return library, level, "the best that this processor has"


def supports(*arrays: Array) -> bool:
    """Whether there are kernels for these arrays: all of them float32, none of them empty."""
    return LIBRARY is not None and all(a.dtype == np.float32 and a.size for a in arrays)


def description() -> str:
    """Tell which kernels are used, and why."""
    if LIBRARY is None:
        return f"off ({REASON}); NumPy computes everything"
    return f"{LEVELS[LEVEL]} ({REASON}), compiled by {LIBRARY.compiler().decode()}"


def conv_output(x: Array, w: Array, bias: Array | None, geometry: Geometry) -> Array:
    """See `reference.conv_output`."""
    if geometry[2:4] != UNDIVIDED:
        if w.shape[1] == 1 < geometry.groups:
            return _depthwise(x, w, bias, geometry)
        return phases.conv_output(conv_output, x, w, bias, geometry)
    out = _empty_images(len(x), len(w), geometry.output_size(x.shape, w.shape[2:]))
    return out if _convolve(x, w, bias, geometry, out) else _silently(reference.conv_output, x, w, bias, geometry)


def conv_input(g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    """See `reference.conv_input`."""
    if geometry[2:4] != UNDIVIDED:
        if w.shape[1] == 1 < geometry.groups:
            return _depthwise_gradient(g, w, geometry, size)
        return phases.conv_input(conv_input, g, w, geometry, size)
    if not np.isfinite(w).all():
        return _silently(reference.conv_input, g, w, geometry, size)
    return _by_phases(g, w, geometry, size)


def _by_phases(g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    """Compute dT/dx of a convolution with strides from convolutions without.

    Rows and columns of x that are a stride apart meet the same weights.
    """
    (sh, sw), (ph, pw) = geometry[:2]
    out = _empty_images(len(g), w.shape[1], size)
    g = _lay_out(g).transpose(3, 1, 0, 2)  # once for all phases
    if sh > w.shape[2] or sw > w.shape[3]:  # there are pixels that meet no weights
        deal(lambda rows: out[:, :, rows].fill(0), cuts(size[0], SLICES if out.size >= LARGE else 1))
    for y in range(min(sh, size[0])):
        for x in range(min(sw, size[1])):
            seen = w[:, :, (y + ph) % sh :: sh, (x + pw) % sw :: sw]
            if seen.size:
                part = out[:, :, y::sh, x::sw]
                _convolve(*reference.adjoint_operands(g, seen, ((y + ph) // sh, (x + pw) // sw)), part)
    return out


def _empty_images(n: int, channels: int, size: Size) -> Array:
    """Return images of shape (N, C, H, W) that are (H, C, W, N) in memory."""
    return np.empty((size[0], channels, size[1], n), np.float32).transpose(3, 1, 0, 2)


def conv_weight(x: Array, g: Array, geometry: Geometry, size: Size) -> Array:
    """See `reference.conv_weight`."""
    if geometry[2:4] != UNDIVIDED:
        if x.shape[1] == geometry.groups > 1:
            return _depthwise_weights(x, g, geometry, size)
        return phases.conv_weight(conv_weight, x, g, geometry, size)
    out = np.empty((g.shape[1], x.shape[1], *size), np.float32)
    sizes = _geometry(x.shape, out.shape, out.strides, geometry, (g.shape[2], g.shape[3]))
    image, gradient = _lay_out(x), _lay_out(g)
    _finite(LIBRARY.weight_gradient(LEVEL, op_threads(), sizes, _address(image), _address(gradient), _address(out)))
    return out


def _depthwise(x: Array, w: Array, bias: Array | None, geometry: Geometry) -> Array:
    """Compute a convolution whose groups have one channel each."""
    size, weights = geometry.output_size(x.shape, w.shape[2:]), np.require(w, requirements=("C", "A"))
    out, image = np.empty((size[0], len(w), size[1], len(x)), np.float32), _lay_out(x)
    bias = None if bias is None else np.require(bias, requirements=("C", "A"))
    add = None if bias is None else _address(bias)
    sizes = _geometry(x.shape, w.shape, w.strides, geometry, size)
    arrays = _address(image), _address(weights), add, _address(out)
    _finite(LIBRARY.depthwise(LEVEL, op_threads(), sizes, *arrays))
    return out.transpose(3, 1, 0, 2)


def _depthwise_gradient(g: Array, w: Array, geometry: Geometry, size: Size) -> Array:
    shape, weights = (len(g), geometry.groups, *size), np.require(w, requirements=("C", "A"))
    out, gradient = np.empty((size[0], geometry.groups, size[1], len(g)), np.float32), _lay_out(g)
    sizes = _geometry(shape, w.shape, w.strides, geometry, (g.shape[2], g.shape[3]))
    arrays = _address(gradient), _address(weights), _address(out)
    _finite(LIBRARY.depthwise_gradient(LEVEL, op_threads(), sizes, *arrays))
    return out.transpose(3, 1, 0, 2)


def _depthwise_weights(x: Array, g: Array, geometry: Geometry, size: Size) -> Array:
    out, image, gradient = np.empty((g.shape[1], 1, *size), np.float32), _lay_out(x), _lay_out(g)
    sizes = _geometry(x.shape, out.shape, out.strides, geometry, (g.shape[2], g.shape[3]))
    arrays = _address(image), _address(gradient), _address(out)
    _finite(LIBRARY.depthwise_weights(LEVEL, op_threads(), sizes, *arrays))
    return out


def _convolve(x: Array, w: Array, bias: Array | None, geometry: Geometry, out: Array) -> bool:
    """Write to `out`, whose images lie side by side in memory.

    Return False if weights are not finite: the lowered images have zeros around them, and infinity * 0 is NaN.
    """
    w = w if w.flags.aligned else w.copy()
    bias = None if bias is None else np.require(bias, requirements=("C", "A"))
    sizes = _geometry(x.shape, w.shape, w.strides, geometry, (out.shape[2], out.shape[3]), out.strides[1:])
    image = _lay_out(x)
    add = None if bias is None else _address(bias)
    return _finite(LIBRARY.convolve(LEVEL, op_threads(), sizes, _address(image), _address(w), add, _address(out)))


def max_pool(x: Array, kernel: Size, geometry: Geometry) -> Array:
    """See `reference.max_pool`."""
    size = geometry.output_size(x.shape, kernel)
    out, image = np.empty((size[0], x.shape[1], size[1], len(x)), np.float32), _lay_out(x)
    LIBRARY.max_pool(LEVEL, op_threads(), _windows(x.shape, kernel, geometry, size), _address(image), _address(out))
    return out.transpose(3, 1, 0, 2)


def max_pool_scatter(g: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Array:
    """See `reference.max_pool_scatter`."""
    n, c, h, w = x.shape
    arrays = [*map(_lay_out, (g, x, top)), np.empty((h, c, w, n), np.float32)]
    sizes = _windows(x.shape, kernel, geometry, (g.shape[2], g.shape[3]))
    LIBRARY.max_pool_gradient(LEVEL, op_threads(), sizes, *map(_address, arrays))
    return arrays[-1].transpose(3, 1, 0, 2)


def average_pool(x: Array, kernel: Size, geometry: Geometry) -> Array:
    """See `reference.average_pool`."""
    size = geometry.output_size(x.shape, kernel)
    out, image = np.empty((size[0], x.shape[1], size[1], len(x)), np.float32), _lay_out(x)
    sizes = _windows(x.shape, kernel, geometry, size)
    _finite(LIBRARY.average_pool(LEVEL, op_threads(), sizes, _address(image), _address(out)))
    return out.transpose(3, 1, 0, 2)


def average_pool_gradient(g: Array, kernel: Size, geometry: Geometry, size: Size) -> Array:
    """See `reference.average_pool_gradient`."""
    n, c, oh, ow = g.shape
    out, gradient = np.empty((size[0], c, size[1], n), np.float32), _lay_out(g)
    sizes = _windows((n, c, *size), kernel, geometry, (oh, ow))
    _finite(LIBRARY.average_pool_gradient(LEVEL, op_threads(), sizes, _address(gradient), _address(out)))
    return out.transpose(3, 1, 0, 2)


def in_order(x: Array) -> bool:
    """Whether images lie in memory as the kernels read them, (H, C, W, N)."""
    return bool(x.transpose(2, 1, 3, 0).flags.c_contiguous)


def relu(x: Array) -> Array:
    """See `reference.relu`; in the memory order of `x`."""
    return relu_gradient(x, x)


def relu_gradient(g: Array, x: Array) -> Array:
    """See `reference.relu_gradient`; in the memory order of `x`."""
    out = np.empty_like(x)
    if not (g.strides == x.strides == out.strides and g.flags.aligned and x.flags.aligned):
        g, x, out = np.array(g, order="C"), np.array(x, order="C"), np.empty(x.shape, np.float32)
    LIBRARY.relu_gradient(LEVEL, op_threads(), x.size, _address(g), _address(x), _address(out))
    return out


def channel_sums(x: Array) -> Array:
    """(N, C, H, W) -> (C,), with sums in double precision now and then."""
    n, c, h, w = x.shape
    image, out = _lay_out(x), np.empty(c, np.float32)
    LIBRARY.channel_sums(LEVEL, op_threads(), h, c, w * n, _address(image), _address(out))
    return out


def moments(x: Array, axes: tuple[int, ...], groups: tuple[int, int, int]) -> Array:
    """See `normalization.moments`; `groups` says how `x` lies in memory."""
    out = np.empty((2, *_kept(x, axes)))
    LIBRARY.moments(LEVEL, op_threads(), *groups, _address(x), _address(out))
    return out


def gradient_sums(g: Array, x: Array, axes: tuple[int, ...], groups: tuple[int, int, int], center: Any) -> Array:
    """See `normalization.gradient_sums`."""
    out, g, centers = np.empty((2, *_kept(x, axes))), _lay_out_as(g, x), np.empty(_kept(x, axes))
    centers[...] = center
    LIBRARY.gradient_sums(LEVEL, op_threads(), *groups, *map(_address, (g, x, centers, out)))
    return out


def affine(
    x: Array,
    center: Any,
    scale: Any,
    shift: Any,
    axes: tuple[int, ...],
    groups: tuple[int, int, int],
    g: Array | None,
    factor: Any,
) -> Array:
    """See `normalization.affine`."""
    out, each = np.empty_like(x), np.empty((4, *_kept(x, axes)))
    each[0], each[1], each[2], each[3] = center, scale, shift, factor
    added = None if g is None else _lay_out_as(g, x)
    gradient = None if added is None else _address(added)
    LIBRARY.affine(LEVEL, op_threads(), *groups, _address(x), gradient, _address(each), _address(out))
    return out


def activation(kind: str, x: Array, g: Array | None = None) -> Array:
    """See `smooth.activation`; in the memory order of `x`."""
    out, number = np.empty_like(x), ACTIVATIONS.index(kind)
    x, g = _lay_out_as(x, out), None if g is None else _lay_out_as(g, out)
    gradient = None if g is None else _address(g)
    LIBRARY.activation(LEVEL, op_threads(), number, x.size, _address(x), gradient, _address(out))
    return out


def _kept(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([1 if axis in axes else length for axis, length in enumerate(x.shape)])


def _lay_out_as(g: Array, x: Array) -> Array:
    """Return `g` in the memory order of `x`: nearly always as it lies."""
    if g.strides == x.strides and g.flags.aligned:
        return g
    same = np.empty_like(x)
    same[...] = g
    return same


def _lay_out(x: Array) -> Array:
    """(N, C, H, W) -> (H, C, W, N), contiguous: nearly always as it lies."""
    image = np.ascontiguousarray(x.transpose(2, 1, 3, 0))
    return image if image.flags.aligned else image.copy()


_Memory = ctypes.c_char * 1


def _address(x: Array) -> Any:
    """Return where the memory of `x` begins, as ctypes takes it."""
    if x.flags.writeable and x.flags.c_contiguous:
        # four times as fast as the other way; NumPy's types do not call an array a buffer
        return _Memory.from_buffer(x)  # type: ignore[arg-type]
    return x.ctypes.data


@lru_cache(maxsize=1024)
def _geometry(
    x: tuple[int, ...],
    w: tuple[int, ...],
    strides: tuple[int, ...],
    geometry: Geometry,
    size: Size,
    out: tuple[int, ...] = (0, 0, 0),
) -> ctypes.Array[ctypes.c_ssize_t]:
    """Fill in the struct of that name.

    The shapes are those of images, weights and output, `strides` those of the weights, and `out` those of the output's
    filters, rows and columns.
    """
    steps = [step // 4 for step in (*strides, *out)]
    return _sizes(*x, w[0], *w[2:], *geometry.stride, *geometry.padding, *size, *steps, *geometry.dilation)


def _windows(x: tuple[int, ...], kernel: Size, geometry: Geometry, size: Size) -> ctypes.Array[ctypes.c_ssize_t]:
    """Fill in the same struct for pooling."""
    return _geometry(x, (x[1], x[1], *kernel), (0,) * 4, geometry, size)


@lru_cache(maxsize=1024)
def _sizes(*sizes: int) -> ctypes.Array[ctypes.c_ssize_t]:
    return (ctypes.c_ssize_t * len(sizes))(*sizes)


@np.errstate(invalid="ignore", over="ignore")
def _silently(function: Callable[..., Array], *arguments: Any) -> Array:
    """Call a function of reference.py without warnings, as there are none in C."""
    return function(*arguments)


def _finite(status: int) -> bool:
    """Tell from what a convolution returned whether its weights are finite."""
    if status == 1:
        raise MemoryError(
            "native kernels: not enough memory for the work space; use smaller batches, or TINYGRAD_MNIST_NATIVE=0"
        )
    return not status


LIBRARY, LEVEL, REASON = _load()
