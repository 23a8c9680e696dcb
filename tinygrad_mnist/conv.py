"""Convolution and pooling: linear maps whose adjoints are each other's VJPs, and compositions of them.

Tensors are (N, C, H, W) by name. In memory the batch is innermost, (H, C, W, N), so that copies and products run over
long rows. That layout lives in the strides alone: any input is accepted, and elementwise ops keep the order that they
find.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .kernels import compiled as native
from .kernels import reference as contractions
from .kernels.reference import Size, output_size
from .ops import _where_positive, getitem, mean, pad, reshape, sum, transpose
from .tensor import Array, Operand, Tensor, as_tensor, primitive

__all__ = ["avg_pool2d", "col2im", "conv2d", "im2col", "max_pool2d"]

Pair: TypeAlias = int | tuple[int, int]


# The convolution as a trilinear form ----------------------------------------------------------------------------------
# The derivative of each of its three partial derivatives with respect to each of their arguments is another of the
# three. That is all there is to state: derivatives of every order follow. What computes them is in contractions.py.
def _computing(kernel: tuple[int, ...], *arrays: Array) -> Any:
    """Return the module that computes the three for these.

    Native, or contractions, whose functions define what they are.
    """
    return (
        native if kernel != (1, 1) and native.takes(*arrays) else contractions
    )  # a 1 x 1 kernel is one product: BLAS is faster


@primitive
def _conv_output(x: Array, w: Array, *bias: Array, stride: Size, padding: Size, rectify: bool) -> Any:
    return _computing(w.shape[2:], x, w, *bias).output(x, w, bias[0] if bias else None, stride, padding, rectify)


@primitive
def _conv_input(g: Array, w: Array, *, stride: Size, padding: Size, size: Size) -> Any:
    return _computing(w.shape[2:], g, w).input_gradient(g, w, stride, padding, size)


@primitive
def _conv_weight(x: Array, g: Array, *, stride: Size, padding: Size, size: Size) -> Any:
    return _computing(size, x, g).weight_gradient(x, g, stride, padding, size)


@primitive
def _where_rectified(g: Array, y: Array) -> Array:
    """Write ``g`` where ``y`` is positive, else 0, then its sums over each channel: the gradients of ReLU and bias in
    one pass.

    (N, C, H, W), (N, C, H, W) -> (H*C*W*N + C,), in this order
    """
    if native.takes(g, y):
        return native.relu_and_bias_gradient(g, y)
    n, c, h, w = y.shape
    out = np.empty(y.size + c, g.dtype)
    kept = out[: y.size].reshape(h, c, w, n).transpose(3, 1, 0, 2)
    np.multiply(g, np.greater(y, 0), out=kept)
    np.sum(kept, axis=(0, 2, 3), out=out[y.size :])
    return out


def _parted(both: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Take apart what ``_where_rectified`` wrote for images of `shape`."""
    n, c, h, w = shape
    images, sums = getitem(both, slice(None, -c)), getitem(both, slice(-c, None))
    return transpose(reshape(images, h, c, w, n), 3, 1, 0, 2), sums


def _through_relu(
    g: Tensor, out: Tensor, *inputs: Tensor, rectify: bool, **geometry: Size
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient before the ReLU, if there is one, and that of the bias, if it is known."""
    return _parted(_where_rectified(g, out), out.shape) if rectify else (g, None)


def _where_rectified_again(h: Tensor, out: Tensor, g: Tensor, y: Tensor) -> Tensor:
    images, sums = _parted(h, y.shape)
    return _where_positive(images + reshape(sums, 1, y.shape[1], 1, 1), y)


_where_rectified.defvjp(_where_rectified_again, None)
_conv_output.defvjp(
    lambda g, out, x, w, *bias, rectify, **geometry: _conv_input(g[0], w, size=x.shape[2:], **geometry),
    lambda g, out, x, w, *bias, rectify, **geometry: _conv_weight(x, g[0], size=w.shape[2:], **geometry),
    lambda g, out, x, w, bias, rectify, **geometry: sum(g[0], (0, 2, 3)) if g[1] is None else g[1],
    shared=_through_relu,
)
_conv_input.defvjp(
    lambda h, out, g, w, size, **geometry: _conv_output(h, w, rectify=False, **geometry),
    lambda h, out, g, w, size, **geometry: _conv_weight(h, g, size=w.shape[2:], **geometry),
)
_conv_weight.defvjp(
    lambda h, out, x, g, size, **geometry: _conv_input(g, h, size=x.shape[2:], **geometry),
    lambda h, out, x, g, size, **geometry: _conv_output(x, h, rectify=False, **geometry),
)


def conv2d(
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    *,
    activation: str | None = None,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as in PyTorch) over a batch of images.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    weight : array_like, shape (F, C, KH, KW)
    bias : array_like, shape (F,), optional
    stride, padding : int or (height, width)
        Step of the window; rows and columns of zeros added on every side.
    activation : "relu", optional
        What `relu` makes of the result, in the same pass over memory.

    Returns
    -------
    Tensor, shape (N, F, OH, OW)
        OH = (H + 2 * padding - KH) // stride + 1, OW likewise.

    Raises
    ------
    ValueError
        If shapes do not fit each other, the kernel is larger than the padded image, or the activation is another one.

    Examples
    --------
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([0.5]))
    Tensor([[[[4.5, 4.5],
              [4.5, 4.5]]]], dtype=float64)
    """
    x, weight = as_tensor(x), as_tensor(weight)
    if weight.ndim != 4 or x.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"conv2d: x of shape {x.shape} does not fit weight of shape {weight.shape}; they must be (N, C, H, W) and "
            "(F, C, KH, KW) "
            "with the same number of channels C (one grey image: x.reshape(1, 1, height, width))"
        )
    if activation not in (None, "relu"):
        raise ValueError(
            f'conv2d: activation is {activation!r}; it must be None or "relu" (apply other functions to the result)'
        )
    strides, paddings = _pair("conv2d", "stride", stride, 1), _pair("conv2d", "padding", padding, 0)
    _checked_size("conv2d", x.shape, weight.shape[2:], strides, paddings)
    if bias is None:
        return _conv_output(x, weight, stride=strides, padding=paddings, rectify=activation is not None)
    bias = as_tensor(bias)
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"conv2d: bias has shape {bias.shape}; for {weight.shape[0]} filters it must be {weight.shape[:1]}"
        )
    return _conv_output(x, weight, bias, stride=strides, padding=paddings, rectify=activation is not None)


def _pair(op: str, name: str, value: Pair, least: int) -> Size:
    if type(value) is int and value >= least:  # nearly always
        return value, value
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < least for v in pair):
        raise ValueError(
            f"{op}: {name} must be an integer of at least {least} or a pair (height, width) of such, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def _checked_size(op: str, shape: tuple[int, ...], kernel: tuple[int, ...], stride: Size, padding: Size) -> Size:
    """Return the size (OH, OW) of the output, or explain why there is none."""
    if len(shape) != 4:
        raise ValueError(
            f"{op}: images have shape {shape}; it must be (N, C, H, W) (one grey image: x.reshape(1, 1, height, width))"
        )
    size = output_size(shape[2:], kernel, stride, padding)
    if min(kernel) < 1 or min(size) < 1:
        raise ValueError(
            f"{op}: a kernel of {kernel[0]} x {kernel[1]} does not fit into images of {shape[2]} x {shape[3]} with "
            f"padding {padding}; "
            "use a smaller kernel or more padding"
        )
    return size


# Windows along one axis, and im2col -----------------------------------------------------------------------------------
def _slot(axis: int, offset: int, count: int, step: int) -> tuple[slice, ...]:
    """Index of the element at `offset` in each of `count` windows along `axis`."""
    return (slice(None),) * axis + (slice(offset, offset + (count - 1) * step + 1, step),)


@primitive
def _unfold(x: Array, *, axis: int, size: int, step: int) -> Array:
    """Lay out windows: (..., L, ...) -> (..., O, ..., size), a view."""
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return windows[(slice(None),) * axis + (slice(None, None, step),)]


@primitive
def _fold(windows: Array, *, axis: int, length: int, step: int) -> Array:
    """Add up overlapping windows: (..., O, ..., size) -> (..., L, ...), the adjoint of ``_unfold``."""
    *shape, size = windows.shape
    count, shape[axis] = shape[axis], length
    out = np.zeros_like(windows[..., 0], shape=shape)
    for offset in range(size):
        out[_slot(axis, offset, count, step)] += windows[..., offset]
    return out


_unfold.defvjp(lambda g, out, x, axis, size, step: _fold(g, axis=axis, length=x.shape[axis], step=step))
_fold.defvjp(lambda g, out, windows, axis, length, step: _unfold(g, axis=axis, size=windows.shape[-1], step=step))


def _windows(op: str, x: Tensor, kernel: Size, stride: Size, padding: Size, value: float = 0.0) -> Tensor:
    """(N, C, H, W) -> (N, C, OH, OW, KH, KW)."""
    _checked_size(op, x.shape, kernel, stride, padding)
    x = _unfold(_framed(x, padding, value), axis=2, size=kernel[0], step=stride[0])
    return _unfold(x, axis=3, size=kernel[1], step=stride[1])


def _framed(x: Tensor, padding: Size, value: float = 0.0) -> Tensor:
    return pad(x, ((0, 0), (0, 0), padding[:1] * 2, padding[1:] * 2), value) if any(padding) else x


def im2col(x: Operand, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Write every receptive field as a row, so that a convolution is one matrix product (Chellapilla et al., 2006).

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)

    Returns
    -------
    Tensor, shape (N * OH * OW, C * KH * KW)

    Examples
    --------
    >>> im2col(np.arange(6.0).reshape(1, 1, 2, 3), (2, 2))
    Tensor([[0., 1., 3., 4.],
            [1., 2., 4., 5.]], dtype=float64)
    """
    x, kernel = as_tensor(x), _pair("im2col", "kernel_size", kernel_size, 1)
    windows = _windows(
        "im2col", x, kernel, _pair("im2col", "stride", stride, 1), _pair("im2col", "padding", padding, 0)
    )
    n, c, oh, ow, kh, kw = windows.shape
    return reshape(transpose(windows, 0, 2, 3, 1, 4, 5), n * oh * ow, c * kh * kw)


def col2im(
    cols: Operand, input_shape: tuple[int, int, int, int], kernel_size: Pair, stride: Pair = 1, padding: Pair = 0
) -> Tensor:
    """Add the rows of an `im2col` matrix back into an image of `input_shape`: the adjoint of `im2col`.

    Parameters
    ----------
    cols : array_like, shape (N * OH * OW, C * KH * KW)
    input_shape : (N, C, H, W)
    kernel_size, stride, padding : int or (height, width)

    Returns
    -------
    Tensor, shape (N, C, H, W)

    Examples
    --------
    >>> col2im(np.ones((2, 4)), (1, 1, 2, 3), (2, 2))
    Tensor([[[[1., 2., 1.],
              [1., 2., 1.]]]], dtype=float64)
    """
    (n, c, h, w), cols = input_shape, as_tensor(cols)
    kernel, steps = _pair("col2im", "kernel_size", kernel_size, 1), _pair("col2im", "stride", stride, 1)
    top, left = _pair("col2im", "padding", padding, 0)
    oh, ow = _checked_size("col2im", input_shape, kernel, steps, (top, left))
    if cols.shape != (n * oh * ow, c * kernel[0] * kernel[1]):
        raise ValueError(
            f"col2im: cols has shape {cols.shape}; for these settings it must be "
            f"{(n * oh * ow, c * kernel[0] * kernel[1])}"
        )
    windows = transpose(reshape(cols, n, oh, ow, c, *kernel), 0, 3, 1, 2, 4, 5)
    rows = _fold(windows, axis=3, length=w + 2 * left, step=steps[1])
    image = _fold(rows, axis=2, length=h + 2 * top, step=steps[0])
    return getitem(image, (slice(None), slice(None), slice(top, top + h), slice(left, left + w)))


# Pooling --------------------------------------------------------------------------------------------------------------
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
    >>> avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    Tensor([[[[1.5]]]], dtype=float64)
    """
    kernel, steps, paddings = _pooling("avg_pool2d", kernel_size, stride, padding)
    return mean(_windows("avg_pool2d", as_tensor(x), kernel, steps, paddings), axis=(-2, -1))


def max_pool2d(x: Operand, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Maximum of every window; the gradient goes to its first maximum, row by row. Padding counts as minus infinity.

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
    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    Tensor([[[[ 5.,  7.],
              [13., 15.]]]], dtype=float64)
    """
    x = as_tensor(x)
    kernel, steps, paddings = _pooling("max_pool2d", kernel_size, stride, padding)
    _checked_size("max_pool2d", x.shape, kernel, steps, paddings)
    if x.dtype.kind != "f":
        raise TypeError(f"max_pool2d: x is {x.dtype}; padding counts as minus infinity, so convert it to floats first")
    if (kernel, steps, paddings) == ((2, 2), (2, 2), (0, 0)) and native.takes(x.data):
        return _max_pool(x)
    x = _framed(x, paddings, -np.inf)
    for axis in (3, 2):  # width first, then height: the first maximum along both is the first one in row-major order
        x = _window_max(x, axis=axis, size=kernel[axis - 2], step=steps[axis - 2])
    return x


def _pooling(op: str, kernel_size: Pair, stride: Pair | None, padding: Pair) -> tuple[Size, Size, Size]:
    kernel, paddings = _pair(op, "kernel_size", kernel_size, 1), _pair(op, "padding", padding, 0)
    if any(2 * p > k for p, k in zip(paddings, kernel, strict=True)):
        raise ValueError(
            f"{op}: padding {padding} is more than half of kernel_size {kernel_size}: some windows would hold padding "
            "alone"
        )
    return kernel, kernel if stride is None else _pair(op, "stride", stride, 1), paddings


@primitive
def _window_max(x: Array, *, axis: int, size: int, step: int) -> Array:
    slots = _slots(x, axis, size, step)
    out = np.maximum(slots[0], slots[min(1, size - 1)])
    for slot in slots[2:]:
        np.maximum(out, slot, out=out)
    return out


@primitive
def _to_first_max(g: Array, x: Array, top: Array, *, axis: int, size: int, step: int) -> Array:
    """Put each element of `g` where `x` first attains the maximum `top` of its window; add up where windows overlap."""
    out = np.empty_like(x, dtype=g.dtype)
    if step != size or g.shape[axis] * size != x.shape[axis]:  # else every element is written exactly once
        out[...] = 0
    overlapping = step < size
    *parts, last = _slots(out, axis, size, step)
    for part, slot in zip(parts, _slots(x, axis, size, step), strict=False):
        hit = np.multiply(slot == top, g, out=None if overlapping else part)
        g = np.subtract(
            g, hit, out=last if part is parts[-1] and not overlapping else None
        )  # what is left for later elements
        if overlapping:
            part += hit
    if overlapping:
        last += g
    elif not parts:
        last[...] = g
    return out


@primitive
def _at_first_max(v: Array, x: Array, top: Array, *, axis: int, size: int, step: int) -> Array:
    """Read `v` where `x` first attains the maximum `top` of its window: the adjoint of ``_to_first_max``."""
    *slots, out = _slots(v, axis, size, step)
    for slot, key in zip(slots[::-1], _slots(x, axis, size, step)[-2::-1], strict=True):
        out = np.where(key == top, slot, out)
    return out


def _slots(x: Array, axis: int, size: int, step: int) -> list[Array]:
    """Return the first, second … elements of all windows, as views."""
    count = (x.shape[axis] - size) // step + 1
    return [x[_slot(axis, offset, count, step)] for offset in range(size)]


_window_max.defvjp(lambda g, out, x, **window: _to_first_max(g, x, out, **window))
_to_first_max.defvjp(lambda h, out, g, x, top, **window: _at_first_max(h, x, top, **window), None, None)
_at_first_max.defvjp(lambda h, out, v, x, top, **window: _to_first_max(h, x, top, **window), None, None)


# Windows of 2 x 2, side by side, in one pass, where there are native kernels
@primitive
def _max_pool(x: Array) -> Array:
    return native.max_pool(x)


@primitive
def _max_pool_gradient(g: Array, x: Array) -> Array:
    return native.max_pool_gradient(g, x)


@primitive
def _at_pooled(v: Array, x: Array) -> Any:
    """Read `v` where `x` has the first maximum of its window: the adjoint of ``_max_pool_gradient``."""
    columns, rows = {"axis": 3, "size": 2, "step": 2}, {"axis": 2, "size": 2, "step": 2}
    wide = _window_max.forward(x, **columns)
    return _at_first_max.forward(
        _at_first_max.forward(v, x, wide, **columns), wide, _window_max.forward(wide, **rows), **rows
    )


_max_pool.defvjp(lambda g, out, x: _max_pool_gradient(g, x))
_max_pool_gradient.defvjp(lambda h, out, g, x: _at_pooled(h, x), None)
_at_pooled.defvjp(lambda h, out, v, x: _max_pool_gradient(h, x), None)
