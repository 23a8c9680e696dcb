"""Convolution as a trilinear form, whose three partial derivatives are each other's derivatives.

    T(x, w, g) = sum over n, f, i, j, c, k, l of
                 g[n, f, i, j] * w[f, c, k, l] * x[n, c, i * stride + k - padding, j * stride + l - padding]

with k and l times the dilation in x; with groups, c runs over the channels of the filter's group.

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
from ..validation import integer
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


def conv2d(
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as in PyTorch) over a batch of images.

    Padding takes no part in the sums: an infinite weight outside the image gives no NaN. float16 is summed in float32.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    weight : array_like, shape (F, C // groups, KH, KW)
    bias : array_like, shape (F,), optional
    stride, dilation : int or (height, width)
        Step of the window; how far apart the pixels are that neighbouring weights meet.
    padding : int, (height, width), "same" or "valid"
        Rows and columns of zeros added on every side. "same" keeps the size of the image, where the stride is 1; if it
        takes an odd number of rows or columns, one more is added at the end. "valid" adds none.
    groups : int
        Channels and filters are cut into so many groups; the filters of a group see its channels alone.

    Returns
    -------
    Tensor, shape (N, F, OH, OW)
        OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1, OW likewise.

    Raises
    ------
    ValueError
        If shapes do not fit each other, the kernel is larger than the padded image, or "same" meets a stride.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([0.5]))
    Tensor([[[[4.5, 4.5],
              [4.5, 4.5]]]], dtype=float64)
    """
    x, weight = as_tensor(x), as_tensor(weight)
    groups = check_channels("conv2d", x, weight, groups, ndim=4)
    geometry = make_geometry("conv2d", stride, padding, dilation, groups, weight.shape[2:])
    geometry.check("conv2d", x.shape, weight.shape[2:])
    return _conv_output(x, weight, check_bias("conv2d", bias, weight.shape[0]), geometry=geometry)


def check_channels(op: str, x: Tensor, weight: Tensor, groups: int, ndim: int) -> int:
    """Return the number of groups, if images and weight of so many axes fit each other with it."""
    groups = groups if type(groups) is int and groups > 0 else integer(op, "groups", groups, 1)
    if weight.ndim != ndim or x.ndim != ndim or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        axes, kernel, hint = (
            ("L", "K", "") if ndim == 3 else ("H, W", "KH, KW", "; one grey image: reshape(1, 1, H, W)")
        )
        raise ValueError(
            f"{op}: x of shape {x.shape} does not fit weight of shape {weight.shape}; for groups={groups} they must be "
            f"(N, C, {axes}) and (F, C // groups, {kernel}), and groups a divisor of F{hint}"
        )
    return groups


def check_bias(op: str, bias: Operand | None, filters: int) -> Tensor | float:
    """Return the bias of so many filters, or the number 0 for none."""
    if bias is None:
        return 0.0
    bias = as_tensor(bias)
    if bias.shape != (filters,):
        raise ValueError(f"{op}: bias has shape {bias.shape}; for {filters} filters it must be {(filters,)}")
    return bias
