"""Arrays in, arrays out: where the time goes. This is the one place that chooses who computes.

`reference` is NumPy: it defines what each function is. `compiled` is C, for float32 and for what it has plans for;
everything else goes to `reference`. Both agree to rounding.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from . import compiled, reference, scaling
from .geometry import Geometry, Pair, Size, make_geometry, pair, shortest
from .products import Array
from .scaling import power_by_base, power_by_exponent, quotient_sum, times_exp, times_sech2, times_sigmoids

__all__ = [
    "Array",
    "Geometry",
    "Pair",
    "Size",
    "add_up",
    "make_geometry",
    "pair",
    "power_by_base",
    "power_by_exponent",
    "quotient_sum",
    "shortest",
    "times_exp",
    "times_sech2",
    "times_sigmoids",
]


def _backend(plan: bool, *arrays: Array) -> ModuleType:
    """Return the module that computes: `compiled` if it has a plan for this, and kernels for these arrays."""
    return compiled if plan and compiled.supports(*arrays) else reference


FEW = 8  # images: less fill no vector, and what is done for each costs more than in NumPy
LARGE = 1 << 14  # numbers: below, a call of C costs more than it saves


def conv_output(x: Array, w: Array, bias: Array | None, geometry: Geometry) -> Any:
    """(N, C, H, W), (F, C, KH, KW), (F,) -> (N, F, OH, OW): dT/dg of the form in reference.py, plus the bias."""
    return _backend(True, x, w, *([] if bias is None else [bias])).conv_output(x, w, bias, geometry)


def conv_input(g: Array, w: Array, geometry: Geometry, size: Size) -> Any:
    """(N, F, OH, OW), (F, C, KH, KW) -> (N, C, H, W), where `size` is (H, W): dT/dx."""
    return _backend(True, g, w).conv_input(g, w, geometry, size)


def conv_weight(x: Array, g: Array, geometry: Geometry, size: Size) -> Any:
    """(N, C, H, W), (N, F, OH, OW) -> (F, C, KH, KW), where `size` is (KH, KW): dT/dw."""
    return _backend(True, x, g).conv_weight(x, g, geometry, size)


def max_pool(x: Array, kernel: Size, geometry: Geometry) -> Any:
    """(N, C, H, W) -> (N, C, OH, OW): the maximum of every window."""
    return _backend(len(x) >= FEW, x).max_pool(x, kernel, geometry)


def max_pool_scatter(g: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Any:
    """Put each element of `g` where `x` first has the maximum `top` of its window: (N, C, OH, OW) -> (N, C, H, W)."""
    return _backend(len(x) >= FEW, g, x, top).max_pool_scatter(g, x, top, kernel, geometry)


def max_pool_gather(v: Array, x: Array, top: Array, kernel: Size, geometry: Geometry) -> Any:
    """Read `v` where `x` first has the maximum `top` of its window: (N, C, H, W) -> (N, C, OH, OW)."""
    return reference.max_pool_gather(v, x, top, kernel, geometry)


def relu(x: Array) -> Any:
    """``max(x, 0)``, of any shape."""
    return _backend(x.size >= LARGE, x).relu(x)


def relu_gradient(g: Array, x: Array) -> Any:
    """``g``, and 0 where ``x`` is 0 or negative; of any shape."""
    return _backend(True, g, x).relu_gradient(g, x)


def add_up(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum over axes, as `scaling.add_up`."""
    if axis == (0, 2, 3) and x.ndim == 4 and x.size >= LARGE and compiled.supports(x):  # the gradient of a bias
        out = compiled.channel_sums(x)
        return out.reshape(1, -1, 1, 1) if keepdims else out
    return scaling.add_up(x, axis, keepdims)


def select(g: Array, mask: Any) -> Any:
    """``g`` where the mask holds, else exactly 0, whatever ``g`` is there; of any shape."""
    return reference.select(g, mask)
