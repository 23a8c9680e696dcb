"""Matrix products."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..arguments import defers
from ..record import as_tensor, primitive, unbroadcast
from ..tensor import Operand, Tensor, attach
from .shape import expand_dims, squeeze, swapaxes

__all__ = ["matmul"]


@primitive
def _matmul(x: Any, y: Any, /) -> Any:
    return kernels.matmul(x, y)


_matmul.defvjp(
    lambda g, out, x, y: unbroadcast(_matmul(g, swapaxes(y, -1, -2)), x),
    lambda g, out, x, y: unbroadcast(_matmul(swapaxes(x, -1, -2), g), y),
)


def matmul(x: Operand, y: Operand) -> Tensor:
    """Matrix product of vectors, matrices or (broadcast) stacks of matrices, by the rules of ``numpy.matmul``.

    Examples
    --------
    >>> matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0])
    Tensor([3., 7.], dtype=float64)
    """
    x, y = as_tensor(x), as_tensor(y)
    if not (x.ndim and y.ndim and x.shape[-1] == y.shape[-2:][0]):
        raise ValueError(
            f"matmul: cannot multiply shapes {x.shape} and {y.shape}: the last axis of the first must be as long as "
            "the second-to-last (or only) axis of the second; transpose or reshape one of them"
        )
    out = _matmul(x if x.ndim > 1 else expand_dims(x, 0), y if y.ndim > 1 else expand_dims(y, 1))
    if x.ndim == 1:
        out = squeeze(out, -1 if y.ndim == 1 else -2)
    return squeeze(out, -1) if y.ndim == 1 else out


@attach
class ProductMethods:
    """Methods of `Tensor` that are defined here."""

    matmul = matmul

    def __matmul__(self: Any, other: Any) -> Tensor:
        return NotImplemented if type(other) is not Tensor and defers(other) else matmul(self, other)

    def __rmatmul__(self: Any, other: Any) -> Tensor:
        return NotImplemented if defers(other) else matmul(other, self)
