"""Average pooling, a linear op, and its adjoint: they are each other's derivatives."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..kernels import Geometry, Pair, Size, pair
from ..record import as_tensor, primitive
from ..tensor import Operand, Tensor
from .pool import check_pooling
from .reduction import mean
from .shape import concatenate

__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "global_avg_pool"]


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


def adaptive_avg_pool2d(x: Operand, output_size: Pair) -> Tensor:
    """Mean of windows that are laid out so that there are `output_size` of them, as in PyTorch.

    Window i of OH covers the rows from ``i * H // OH`` to ``ceil((i + 1) * H / OH)``: where OH does not divide H, some
    overlap. Columns likewise.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    output_size : int or (height, width)
        Of any size, also larger than the image.

    Returns
    -------
    Tensor, shape (N, C, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 2))
    Tensor([[[[1., 3.]]]], dtype=float64)
    """
    x = as_tensor(x)
    size = pair("adaptive_avg_pool2d", "output_size", output_size, 1)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"adaptive_avg_pool2d: x has shape {x.shape}; it must be (N, C, H, W) with at least one pixel")
    if not (x.shape[2] % size[0] or x.shape[3] % size[1]):
        return avg_pool2d(x, (x.shape[2] // size[0], x.shape[3] // size[1]))
    for axis, count in enumerate(size, 2):
        length = x.shape[axis]
        before = (slice(None),) * axis
        means = []
        for i in range(count):
            window = slice(i * length // count, -(-(i + 1) * length // count))
            means.append(mean(x[(*before, window)], axis, keepdims=True))
        x = concatenate(means, axis)
    return x


def global_avg_pool(x: Operand) -> Tensor:
    """Mean of each channel of an image, over its height and width: (N, C, H, W) -> (N, C).

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool(np.arange(8.0).reshape(1, 2, 2, 2))
    Tensor([[1.5, 5.5]], dtype=float64)
    """
    x = as_tensor(x)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"global_avg_pool: x has shape {x.shape}; it must be (N, C, H, W) with at least one pixel")
    return mean(x, (2, 3))
