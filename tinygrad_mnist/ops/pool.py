"""Max-pooling, shaped like a convolution: a scatter and a gather that are each other's derivatives."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..kernels import Geometry, Pair, Size, make_geometry, pair
from ..record import as_tensor, primitive
from ..tensor import Operand, Tensor

__all__ = ["max_pool2d"]


@primitive
def _max_pool(x: Any, /, *, kernel: Size, geometry: Geometry) -> Any:
    """(N, C, H, W) -> (N, C, OH, OW)."""
    return kernels.max_pool(x, kernel, geometry)


@primitive
def _max_pool_scatter(g: Any, x: Any, top: Any, /, *, kernel: Size, geometry: Geometry) -> Any:
    """Put each element of ``g`` where ``x`` first has the maximum ``top`` of its window."""
    return kernels.max_pool_scatter(g, x, top, kernel, geometry)


@primitive
def _max_pool_gather(v: Any, x: Any, top: Any, /, *, kernel: Size, geometry: Geometry) -> Any:
    """Read ``v`` where ``x`` first has the maximum ``top`` of its window."""
    return kernels.max_pool_gather(v, x, top, kernel, geometry)


_max_pool.defvjp(lambda g, out, x, **window: _max_pool_scatter(g, x, out, **window))
_max_pool_scatter.defvjp(lambda h, out, g, x, top, **window: _max_pool_gather(h, x, top, **window), None, None)
_max_pool_gather.defvjp(lambda h, out, v, x, top, **window: _max_pool_scatter(h, x, top, **window), None, None)


def check_pooling(op: str, kernel_size: Pair, stride: Pair | None, padding: Pair) -> tuple[Size, Geometry]:
    """Return kernel and geometry of a pooling op; without `stride`, windows lie side by side."""
    kernel = pair(op, "kernel_size", kernel_size, 1)
    geometry = make_geometry(op, kernel if stride is None else stride, padding)
    if any(2 * p > k for p, k in zip(geometry.padding, kernel, strict=True)):
        raise ValueError(
            f"{op}: padding {padding} is more than half of kernel_size {kernel_size}: "
            "some windows would hold padding alone"
        )
    return kernel, geometry


def max_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Maximum of every window; the gradient goes to its first maximum, row by row. Padding counts as minus infinity.

    The maximum of a window with NaN is NaN; the gradient goes to the last one, as in PyTorch.

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
    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    Tensor([[[[ 5.,  7.],
              [13., 15.]]]], dtype=float64)
    """
    x = as_tensor(x)
    kernel, geometry = check_pooling("max_pool2d", kernel_size, stride, padding)
    geometry.check("max_pool2d", x.shape, kernel)
    if x.dtype.kind != "f":
        raise TypeError(f"max_pool2d: x is {x.dtype}; padding counts as minus infinity, so convert it to floats first")
    return _max_pool(x, kernel=kernel, geometry=geometry)
