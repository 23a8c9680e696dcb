"""Average pooling, a linear op, and its adjoint: they are each other's derivatives."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..kernels import Geometry, Pair, Size
from ..record import as_tensor, primitive
from ..tensor import Operand, Tensor
from .pool import check_pooling

__all__ = ["avg_pool2d"]


@primitive
def _avg_pool(x: Any, /, *, kernel: Size, geometry: Geometry) -> Any:
    """(N, C, H, W) -> (N, C, OH, OW)."""
    return kernels.average_pool(x, kernel, geometry)


@primitive
def _avg_pool_gradient(g: Any, /, *, kernel: Size, geometry: Geometry, size: Size) -> Any:
    """(N, C, OH, OW) -> (N, C, H, W), where ``size`` is (H, W)."""
    return kernels.average_pool_gradient(g, kernel, geometry, size)


_avg_pool.defvjp(lambda g, out, x, **window: _avg_pool_gradient(g, size=(x.shape[2], x.shape[3]), **window))
_avg_pool_gradient.defvjp(lambda h, out, g, size, **window: _avg_pool(h, **window))


def avg_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Mean of every window; padding counts as zeros (as in PyTorch).

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)
        Without `stride`, windows lie side by side.

    Returns
    -------
    Tensor, shape (N, C, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    Tensor([[[[1.5]]]], dtype=float64)
    """
    x = as_tensor(x)
    kernel, geometry = check_pooling("avg_pool2d", kernel_size, stride, padding)
    geometry.check("avg_pool2d", x.shape, kernel)
    return _avg_pool(x, kernel=kernel, geometry=geometry)
