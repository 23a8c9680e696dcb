"""Convolution as a trilinear form, whose three partial derivatives are each other's derivatives.

    T(x, w, g) = sum over n, f, i, j, c, k, l of
                 g[n, f, i, j] * w[f, c, k, l] * x[n, c, i * stride + k - padding, j * stride + l - padding]

The output is dT/dg, the input gradient dT/dx, the weight gradient dT/dw. The derivative of each with respect to each of
its arguments is another of the three: that is all there is to state, and derivatives of every order follow.

Tensors are (N, C, H, W) by name. In memory the batch is innermost, (H, C, W, N), so that copies and products run over
long rows. That layout lives in the strides alone: any input is accepted, and elementwise ops keep the order they find.
"""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..kernels import Geometry, Pair, Size, make_geometry
from ..record import as_tensor, primitive
from ..tensor import Operand, Tensor
from .reduction import sum

__all__ = ["conv2d"]


@primitive
def _conv_output(x: Any, w: Any, bias: Any, /, *, geometry: Geometry) -> Any:
    """dT/dg, and the bias added; the number 0 stands for none."""
    return kernels.conv_output(x, w, None if isinstance(bias, float) else bias, geometry)


@primitive
def _conv_input(g: Any, w: Any, /, *, geometry: Geometry, size: Size) -> Any:
    return kernels.conv_input(g, w, geometry, size)


@primitive
def _conv_weight(x: Any, g: Any, /, *, geometry: Geometry, size: Size) -> Any:
    return kernels.conv_weight(x, g, geometry, size)


_conv_output.defvjp(
    lambda g, out, x, w, bias, geometry: _conv_input(g, w, geometry=geometry, size=x.shape[2:]),
    lambda g, out, x, w, bias, geometry: _conv_weight(x, g, geometry=geometry, size=w.shape[2:]),
    lambda g, out, x, w, bias, geometry: sum(g, (0, 2, 3)),
)
_conv_input.defvjp(
    lambda h, out, g, w, geometry, size: _conv_output(h, w, 0.0, geometry=geometry),
    lambda h, out, g, w, geometry, size: _conv_weight(h, g, geometry=geometry, size=w.shape[2:]),
)
_conv_weight.defvjp(
    lambda h, out, x, g, geometry, size: _conv_input(g, h, geometry=geometry, size=x.shape[2:]),
    lambda h, out, x, g, geometry, size: _conv_output(x, h, 0.0, geometry=geometry),
)


def conv2d(x: Operand, weight: Operand, bias: Operand | None = None, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as in PyTorch) over a batch of images.

    Padding takes no part in the sums: an infinite weight outside the image gives no NaN. float16 is summed in float32.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    weight : array_like, shape (F, C, KH, KW)
    bias : array_like, shape (F,), optional
    stride, padding : int or (height, width)
        Step of the window; rows and columns of zeros added on every side.

    Returns
    -------
    Tensor, shape (N, F, OH, OW)
        OH = (H + 2 * padding - KH) // stride + 1, OW likewise.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or the kernel is larger than the padded image.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([0.5]))
    Tensor([[[[4.5, 4.5],
              [4.5, 4.5]]]], dtype=float64)
    """
    x, weight, geometry = as_tensor(x), as_tensor(weight), make_geometry("conv2d", stride, padding)
    if weight.ndim != 4 or x.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"conv2d: x of shape {x.shape} does not fit weight of shape {weight.shape}; they must be (N, C, H, W) and "
            "(F, C, KH, KW) with the same number of channels C (one grey image: x.reshape(1, 1, height, width))"
        )
    geometry.check("conv2d", x.shape, weight.shape[2:])
    if bias is None:
        return _conv_output(x, weight, 0.0, geometry=geometry)
    bias = as_tensor(bias)
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"conv2d: bias has shape {bias.shape}; for {weight.shape[0]} filters it must be {weight.shape[:1]}"
        )
    return _conv_output(x, weight, bias, geometry=geometry)
