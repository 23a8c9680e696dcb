"""Arrays in, arrays out: where the time goes. This is the one place that chooses who computes.

`reference` is NumPy: it defines what each function is. `compiled` is C, for float32 and for what it has plans for;
everything else goes to `reference`. Both agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from . import compiled, normalization, reference, scaling, smooth
from .determinant import determinant_gradient
from .geometry import Geometry, Pair, Size, make_geometry, pair, shortest
from .machine import keep_freed_memory
from .products import Array
from .recurrence import product_of_others, recurrence
from .scaling import power_by_base, power_by_exponent, quotient_sum, times_exp, times_sech2, times_sigmoids
from .smooth import erf, times_gaussian
from .threads import LARGE, dealt, elementwise, matmul, reduce_sum

__all__ = [
    "Array",
    "Geometry",
    "Pair",
    "Size",
    "add_up",
    "average",
    "dealt",
    "determinant_gradient",
    "erf",
    "make_geometry",
    "matmul",
    "pair",
    "power_by_base",
    "power_by_exponent",
    "product_of_others",
    "quotient_sum",
    "recurrence",
    "shortest",
    "times_exp",
    "times_gaussian",
    "times_sech2",
    "times_sigmoids",
]


def _backend(*arrays: Array) -> ModuleType:
    """Return the module that computes: `compiled` if it has kernels for these arrays."""
    keep_freed_memory()  # images are as large as what glibc returns to the system, and gets back page by page
    return compiled if compiled.supports(*arrays) else reference


SMALL = 1 << 14  # numbers: below, a call of C costs more than it saves
SHORT = 16  # numbers of a group that lie side by side: with fewer, C is not faster


def conv_output(x: Array, w: Array, bias: Array | None, geometry: Geometry) -> Any:
    """(N, C, H, W), (F, C, KH, KW), (F,) -> (N, F, OH, OW): dT/dg of the form in reference.py, plus the bias."""
    return _backend(x, w, *([] if bias is None else [bias])).conv_output(x, w, bias, geometry)


def conv_input(g: Array, w: Array, geometry: Geometry, size: Size) -> Any:
    """(N, F, OH, OW), (F, C, KH, KW) -> (N, C, H, W), where `size` is (H, W): dT/dx."""
    return _backend(g, w).conv_input(g, w, geometry, size)


def conv_weight(x: Array, g: Array, geometry: Geometry, size: Size) -> Any:
    """(N, C, H, W), (N, F, OH, OW) -> (F, C, KH, KW), where `size` is (KH, KW): dT/dw."""
    return _backend(x, g).conv_weight(x, g, geometry, size)


def max_pool(x: Array, kernel: Size, geometry: Geometry) -> Any:
    """(N, C, H, W) -> (N, C, OH, OW): the maximum of every window."""
    return _backend(x).max_pool(x, kernel, geometry)


def max_pool_scatter(g: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Any:
    """Put each element of `g` where `x` first has the maximum `top` of its window: (N, C, OH, OW) -> (N, C, H, W)."""
    return _backend(g, x, top).max_pool_scatter(g, x, top, kernel, geometry)


def max_pool_gather(v: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Any:
    """Read `v` where `x` first has the maximum `top` of its window: (N, C, H, W) -> (N, C, OH, OW)."""
    return reference.max_pool_gather(v, x, top, kernel, geometry)


def average_pool(x: Array, kernel: Size, geometry: Geometry) -> Any:
    """(N, C, H, W) -> (N, C, OH, OW): the mean of every window; padding counts as zeros."""
    return _backend(x).average_pool(x, kernel, geometry)


def average_pool_gradient(g: Array, kernel: Size, geometry: Geometry, size: Size) -> Any:
    """Share each element of `g` among the pixels of its window, (N, C, OH, OW) -> (N, C, H, W), for `size` (H, W)."""
    return _backend(g).average_pool_gradient(g, kernel, geometry, size)


def moments(x: Array, axes: tuple[int, ...]) -> Any:
    """Mean and variance of each group of numbers along `axes`, in one array: a wider dtype, `axes` with length 1."""
    groups = _groups(x, axes)
    return compiled.moments(x, axes, groups) if groups else normalization.moments(x, axes)


def gradient_sums(g: Array, x: Array, axes: tuple[int, ...], center: Any) -> Any:
    """The sum of ``g``, and of ``g * (x - center)``, of each group."""
    groups = _groups(x, axes) if compiled.supports(g) else None
    if groups:
        return compiled.gradient_sums(g, x, axes, groups, center)
    return normalization.gradient_sums(g, x, axes, center)


def affine(
    x: Array, center: Any, scale: Any, shift: Any, axes: tuple[int, ...], g: Array | None = None, factor: Any = 1
) -> Any:
    """``(x - center) * scale + shift``, and ``g * factor`` added to it if there is ``g``: numbers for each group."""
    groups = _groups(x, axes) if g is None or compiled.supports(g) else None
    if groups:
        return compiled.affine(x, center, scale, shift, axes, groups, g, factor)
    return normalization.affine(x, center, scale, shift, axes, g, factor)


def _groups(x: Array, axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return how groups lie in memory, if there are kernels for it."""
    keep_freed_memory()
    found = normalization.groups_in_memory(x, axes) if compiled.supports(x) and x.flags.aligned else None
    return found if found and found[2] >= SHORT else None


def relu(x: Array) -> Any:
    """``max(x, 0)``, of any shape."""
    if x.size >= SMALL and compiled.supports(x):
        return compiled.relu(x)
    return reference.relu(x) if x.size < LARGE else elementwise(reference.relu, x, dtype=x.dtype)


def relu_gradient(g: Array, x: Array) -> Any:
    """``g``, and 0 where ``x`` is 0 or negative; of any shape."""
    if compiled.supports(g, x):
        return compiled.relu_gradient(g, x)
    return reference.relu_gradient(g, x) if g.size < LARGE else _select(reference.relu_gradient, g, x)


def select(g: Array, mask: Any) -> Any:
    """``g`` where the mask holds, else exactly 0, whatever ``g`` is there; of any shape."""
    return reference.select(g, mask) if g.size < LARGE else _select(reference.select, g, mask)


def _select(function: Callable[..., Any], g: Array, other: Any) -> Any:
    return elementwise(function, g, other, dtype=g.dtype) if g.dtype in reference.BITS else function(g, other)


def activation(kind: str, x: Array, g: Array | None = None) -> Any:
    """One of `smooth.ACTIVATIONS`, or ``g`` times its derivative."""
    if compiled.supports(x, *([] if g is None else [g])):
        return compiled.activation(kind, x, g)
    return smooth.activation(kind, x, g)


def logaddexp(x: Any, y: Any) -> Any:
    """``log(exp(x) + exp(y))``."""
    if isinstance(y, float) and y == 0:
        return activation("softplus", x)
    with np.errstate(invalid="ignore"):  # of NaN it would warn
        return np.logaddexp(x, y)


def times_sigmoid(g: Array, x: Array, y: Any) -> Any:
    """``g / (1 + exp(y - x))``."""
    if isinstance(y, float) and y == 0 and g.shape == x.shape:
        return activation("softplus", x, g)
    return smooth.times_sigmoid(g, x, y)


def add_up(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """``np.sum``; half precision is added up in single precision, as in PyTorch."""
    if x.size < SMALL or x.dtype.char not in "fd":
        return scaling.add_up(x, axis, keepdims)
    if axis == (0, 2, 3) and x.ndim == 4 and compiled.supports(x):  # the gradient of a bias
        out = compiled.channel_sums(x)
        return out.reshape(1, -1, 1, 1) if keepdims else out
    return scaling.add_up(x, axis, keepdims) if x.size < LARGE else reduce_sum(x, axis, keepdims)


def average(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """``np.mean``."""
    if x.size < SMALL or x.dtype.char not in "fd":
        return np.mean(x, axis=axis, keepdims=keepdims)
    if axis in ((2, 3), (-2, -1)) and x.ndim == 4 and compiled.supports(x) and compiled.in_order(x):
        out = compiled.average_pool(x, (x.shape[2], x.shape[3]), Geometry())
        return out if keepdims else out.reshape(x.shape[:2])
    total = add_up(x, axis, keepdims)
    return total / x.dtype.type(x.size // total.size)
