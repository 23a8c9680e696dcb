"""The compiled kernels (native.c): what reference.py computes, 2 x 2 max-pooling and ReLU's gradient, for
float32.

They are optional. What they do not take, or everything where there is no compiled library, is computed by NumPy, in the
functions that define what it is. The library knows nothing of Python and is called without holding the interpreter.

Both compute the same up to rounding, but a pixel that is not finite, or beyond 1e37, can make its neighbours NaN or
infinite in a native convolution with a kernel of three columns.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from .reference import Array, Size, output_size, spread

VARIABLE = "TINYGRAD_MNIST_NATIVE"
LEVELS = ("baseline", "avx2", "avx512")  # as numbered in native.c


def _load() -> tuple[Any, int, str]:
    """Open the library; returns it, the level of instructions to use, and why."""
    wish = os.environ.get(VARIABLE, "") or "1"
    if wish == "0":
        return None, 0, f"switched off by {VARIABLE}=0"
    named = wish if wish not in ("1", *LEVELS) else None
    if named is not None and not Path(named).is_file():
        raise ValueError(
            f"{VARIABLE} is {wish!r}; it must be 0 (off), 1, one of {', '.join(LEVELS)}, or the path of a compiled "
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
        for name, pointers in (
            ("convolve", 5),
            ("weight_gradient", 4),
            ("max_pool", 3),
            ("max_pool_gradient", 4),
            ("relu_gradient", 5),
        ):
            getattr(library, name).argtypes = [ctypes.c_int, *[ctypes.c_void_p] * pointers]
        library.compiler.restype, library.geometry_size.restype = ctypes.c_char_p, ctypes.c_size_t
        if library.geometry_size() != ctypes.sizeof(_geometry((0,) * 4, (0,) * 4, (0,) * 4, (0, 0), (0, 0), (0, 0))):
            raise AttributeError("its structures differ")
    except OSError as error:
        return None, 0, f"the compiled library cannot be loaded: {error}"
    except AttributeError as error:
        return None, 0, f"{path} is of another version ({error}); install again"
    level = library.highest_level()
    if wish in LEVELS:
        if LEVELS.index(wish) > level:
            raise ValueError(f"{VARIABLE} is {wish!r}, but this processor has no more than {LEVELS[level]!r}")
        return library, LEVELS.index(wish), f"chosen by {VARIABLE}={wish}"
    return library, level, "the best that this processor has"


def takes(*arrays: Array) -> bool:
    """Whether there are kernels for these: all of them float32, none of them empty."""
    return LIBRARY is not None and all(a.dtype == np.float32 and a.size for a in arrays)


def described() -> str:
    """Tell which kernels are used, and why."""
    if LIBRARY is None:
        return f"off ({REASON}); NumPy computes everything"
    return f"{LEVELS[LEVEL]} ({REASON}), compiled by {LIBRARY.compiler().decode()}"


def output(x: Array, w: Array, bias: Array | None, stride: Size, padding: Size, rectify: bool = False) -> Array:
    """See `reference.output`."""
    return _convolve(x, w, bias, stride, padding, output_size(x.shape[2:], w.shape[2:], stride, padding), rectify)


def input_gradient(g: Array, w: Array, stride: Size, padding: Size, size: Size) -> Array:
    """See `reference.input_gradient`."""
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return _convolve(
        spread(g, stride), flipped, None, (1, 1), (w.shape[2] - 1 - padding[0], w.shape[3] - 1 - padding[1]), size
    )


def weight_gradient(x: Array, g: Array, stride: Size, padding: Size, size: Size) -> Array:
    """See `reference.weight_gradient`."""
    out = np.empty((g.shape[1], x.shape[1], *size), np.float32)
    geometry = _geometry(x.shape, out.shape, out.strides, stride, padding, (g.shape[2], g.shape[3]))
    image, gradient = _laid_out(x), _laid_out(g)
    _check(LIBRARY.weight_gradient(LEVEL, geometry, _address(image), _address(gradient), _address(out)))
    return out


def _convolve(
    x: Array, w: Array, bias: Array | None, stride: Size, padding: Size, size: Size, rectify: bool = False
) -> Array:
    w = w if w.flags.aligned else w.copy()
    bias = None if bias is None else np.require(bias, requirements=("C", "A"))
    out = np.empty((size[0], len(w), size[1], len(x)), np.float32)
    geometry = _geometry(x.shape, w.shape, w.strides, stride, padding, size, rectify)
    image = _laid_out(x)
    add = None if bias is None else _address(bias)
    _check(LIBRARY.convolve(LEVEL, geometry, _address(image), _address(w), add, _address(out)))
    return out.transpose(3, 1, 0, 2)  # (OH, F, OW, N) -> (N, F, OH, OW)


def max_pool(x: Array) -> Array:
    """Maximum of each window of 2 x 2, side by side: (N, C, H, W) -> (N, C, H // 2, W // 2)."""
    n, c, h, w = x.shape
    out, image = np.empty((h // 2, c, w // 2, n), np.float32), _laid_out(x)
    LIBRARY.max_pool(LEVEL, _sizes(h, c, w, n), _address(image), _address(out))
    return out.transpose(3, 1, 0, 2)


def max_pool_gradient(g: Array, x: Array) -> Array:
    """Put each element of `g` where `x` has the first maximum of its window.

    (N, C, H // 2, W // 2), (N, C, H, W) -> (N, C, H, W).
    """
    n, c, h, w = x.shape
    out, image, gradient = np.empty((h, c, w, n), np.float32), _laid_out(x), _laid_out(g)
    LIBRARY.max_pool_gradient(LEVEL, _sizes(h, c, w, n), _address(gradient), _address(image), _address(out))
    return out.transpose(3, 1, 0, 2)


def relu_gradient(g: Array, y: Array) -> Array:
    """``g`` where ``y`` is positive, else 0; of any shape, in the memory order of `y`."""
    out = np.empty_like(y)
    if not (g.strides == y.strides == out.strides and g.flags.aligned and y.flags.aligned):
        g, y, out = np.array(g, order="C"), np.array(y, order="C"), np.empty(y.shape, np.float32)
    LIBRARY.relu_gradient(LEVEL, _sizes(1, 1, y.size), _address(g), _address(y), _address(out), None)
    return out


def relu_and_bias_gradient(g: Array, y: Array) -> Array:
    """Write ``g`` where ``y`` is positive, else 0, (H, C, W, N) in memory, and then its sums over each channel, into
    one array.

    (N, C, H, W), (N, C, H, W) -> (H*C*W*N + C,)
    """
    n, c, h, w = y.shape
    out, gradient, image = np.empty(y.size + c, np.float32), _laid_out(g), _laid_out(y)
    LIBRARY.relu_gradient(
        LEVEL, _sizes(h, c, w * n), _address(gradient), _address(image), _address(out), _address(out[y.size :])
    )
    return out


def _laid_out(x: Array) -> Array:
    """(N, C, H, W) -> (H, C, W, N), contiguous: nearly always as it lies."""
    image = np.ascontiguousarray(x.transpose(2, 1, 3, 0))
    return image if image.flags.aligned else image.copy()


_Memory = ctypes.c_char * 1


def _address(x: Array) -> Any:
    """Return where the memory of `x` begins, as ctypes takes it."""
    if x.flags.writeable and x.flags.c_contiguous:
        return _Memory.from_buffer(x)  # type: ignore[arg-type]  # NumPy's types do not call an array a buffer; a quarter of the time of:
    return x.ctypes.data


@lru_cache(maxsize=1024)
def _geometry(
    x: tuple[int, ...],
    w: tuple[int, ...],
    strides: tuple[int, ...],
    stride: Size,
    padding: Size,
    size: Size,
    rectify: bool = False,
) -> ctypes.Array[ctypes.c_ssize_t]:
    """Fill in the struct of that name; the shapes are those of images, weights and output, `strides` the weights'."""
    return _sizes(*x, w[0], *w[2:], *stride, *padding, *size, *(step // 4 for step in strides), rectify)


@lru_cache(maxsize=1024)
def _sizes(*sizes: int) -> ctypes.Array[ctypes.c_ssize_t]:
    return (ctypes.c_ssize_t * len(sizes))(*sizes)


def _check(status: int) -> None:
    if status:
        raise MemoryError(
            "native kernels: not enough memory for the work space; use smaller batches, or TINYGRAD_MNIST_NATIVE=0"
        )


LIBRARY, LEVEL, REASON = _load()
