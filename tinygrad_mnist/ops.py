"""Primitive operations, each with its vector-Jacobian products (VJPs) beside it, and short compositions of them.

A rule reads ``g, out, *inputs``: the gradient of the output, the output, the inputs. It is written in Tensor
operations, so every rule is itself differentiable. Broadcasting is undone by `sum_to`, the adjoint of `broadcast_to`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .kernels import compiled as native
from .tensor import Array, Operand, Primitive, Rule, Tensor, as_tensor, astype, primitive

__all__ = [
    "abs",
    "add",
    "argmax",
    "astype",
    "broadcast_to",
    "clip",
    "concatenate",
    "cos",
    "divide",
    "equal",
    "exp",
    "expand_dims",
    "getitem",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "log",
    "logical_and",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "pad",
    "power",
    "relu",
    "reshape",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "sum_to",
    "swapaxes",
    "tanh",
    "transpose",
    "where",
]

Axis: TypeAlias = int | tuple[int, ...] | None


def _elementwise(name: str, function: Callable[..., Any], doc: str, example: str, *rules: Rule) -> Primitive:
    """Make a primitive of a NumPy function that works element by element, with broadcasting."""
    op = primitive(function)
    op.__name__ = op.__qualname__ = name
    call, result = example.split(" -> ")
    op.__doc__ = f"{doc}\n\nElementwise, with broadcasting.\n\nExamples\n--------\n>>> {name}{call}\nTensor({result})\n"
    op.defvjp(*rules)
    return op


def _sum_like(g: Tensor, x: Tensor) -> Tensor:
    """Sum `g` over the axes along which `x` was broadcast; nearly always there are none."""
    return g if g.data.shape == x.data.shape else sum_to(g, x.shape)


# Arithmetic -----------------------------------------------------------------------------------------------------------
add: Primitive = _elementwise(
    "add",
    np.add,
    "``x + y``.",
    "([1.0, 2.0], 3.0) -> [4., 5.], dtype=float64",
    lambda g, out, x, y: _sum_like(g, x),
    lambda g, out, x, y: _sum_like(g, y),
)
subtract: Primitive = _elementwise(
    "subtract",
    np.subtract,
    "``x - y``.",
    "([1.0, 2.0], 3.0) -> [-2., -1.], dtype=float64",
    lambda g, out, x, y: _sum_like(g, x),
    lambda g, out, x, y: _sum_like(-g, y),
)
multiply: Primitive = _elementwise(
    "multiply",
    np.multiply,
    "``x * y``.",
    "([1.0, 2.0], 3.0) -> [3., 6.], dtype=float64",
    lambda g, out, x, y: _sum_like(g * y, x),
    lambda g, out, x, y: _sum_like(g * x, y),
)
divide: Primitive = _elementwise(
    "divide",
    np.divide,
    "``x / y``.",
    "([1.0, 2.0], 4.0) -> [0.25, 0.5 ], dtype=float64",
    lambda g, out, x, y: _sum_like(g / y, x),
    lambda g, out, x, y: _sum_like(-g * x / (y * y), y),
)
negative: Primitive = _elementwise(
    "negative", np.negative, "``-x``.", "([1.0, 2.0]) -> [-1., -2.], dtype=float64", lambda g, out, x: -g
)


def _power_base(g: Tensor, out: Tensor, x: Tensor, y: Any) -> Tensor:
    if isinstance(y, Tensor):  # 0 * 0 ** -1 is 0 here: where x and y are both 0, the base is replaced by 1
        return _sum_like(g * y * where(logical_and(x == 0, y == 0), 1.0, x) ** (y - 1), x)
    return g * y * x ** (y - 1) if y != 0 else g * np.zeros_like(x.data)


power: Primitive = _elementwise(
    "power",
    lambda x, y: x**y,
    "``x ** y``; the gradient with respect to ``y`` is 0 where ``x`` is 0.",
    "([1.0, 2.0], 3) -> [1., 8.], dtype=float64",
    _power_base,
    lambda g, out, x, y: _sum_like(g * out * log(where(x == 0, 1.0, x)), y),
)


# Functions of one variable --------------------------------------------------------------------------------------------
def _stable_sigmoid(x: Array) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(np.greater_equal(x, 0), 1, small) / (1 + small)


def _positive_part(x: Array) -> Any:
    """Compute ``np.maximum(x, 0)``, which NumPy vectorises between arrays only.

    With a slab of zeros in 0.2 instead of 0.5 ms (5 MB).
    """
    zero = x.dtype.type(0)
    if x.size < 8192:
        return np.maximum(x, zero)
    outermost = builtins.max(
        (axis for axis in range(x.ndim) if x.shape[axis] > 1), key=lambda axis: builtins.abs(x.strides[axis])
    )
    slab = x[(slice(None),) * outermost + (slice(0, 1),)]
    return np.maximum(x, np.zeros_like(slab) if slab.size >= 512 else zero)


@primitive
def _where_positive(g: Array, x: Array) -> Any:
    """``g`` where ``x`` is positive, else 0."""
    return native.relu_gradient(g, x) if native.takes(g, x) else g * np.greater(x, 0)


_where_positive.defvjp(lambda h, out, g, x: _where_positive(h, x), None)
exp: Primitive = _elementwise(
    "exp", np.exp, "e to the power of ``x``.", "([0.0]) -> [1.], dtype=float64", lambda g, out, x: g * out
)
log: Primitive = _elementwise(
    "log", np.log, "Natural logarithm.", "([1.0]) -> [0.], dtype=float64", lambda g, out, x: g / x
)
sqrt: Primitive = _elementwise(
    "sqrt", np.sqrt, "Square root.", "([9.0]) -> [3.], dtype=float64", lambda g, out, x: g / (2 * out)
)
sin: Primitive = _elementwise(
    "sin", np.sin, "Sine of radians.", "([0.0]) -> [0.], dtype=float64", lambda g, out, x: g * cos(x)
)
cos: Primitive = _elementwise(
    "cos", np.cos, "Cosine of radians.", "([0.0]) -> [1.], dtype=float64", lambda g, out, x: -g * sin(x)
)
tanh: Primitive = _elementwise(
    "tanh", np.tanh, "Hyperbolic tangent.", "([0.0]) -> [0.], dtype=float64", lambda g, out, x: g * (1 - out * out)
)
sigmoid: Primitive = _elementwise(
    "sigmoid",
    _stable_sigmoid,
    "``1 / (1 + exp(-x))``, without overflow at either end.",
    "([0.0, 1e4]) -> [0.5, 1. ], dtype=float64",
    lambda g, out, x: g * out * (1 - out),
)
abs: Primitive = _elementwise(
    "abs",
    np.abs,
    "Absolute value; its derivative at 0 is 0.",
    "([-2.0]) -> [2.], dtype=float64",
    lambda g, out, x: g * sign(x),
)
sign: Primitive = _elementwise(
    "sign",
    np.sign,
    "-1, 0 or 1; its derivative is 0.",
    "([-2.0]) -> [-1.], dtype=float64",
    lambda g, out, x: g * np.zeros_like(x.data),
)
relu: Primitive = _elementwise(
    "relu",
    _positive_part,
    "``max(x, 0)``; its derivative at 0 is 0.",
    "([-1.0, 2.0]) -> [0., 2.], dtype=float64",
    lambda g, out, x: _where_positive(g, x),
)


# Comparisons and choices ----------------------------------------------------------------------------------------------
def _comparison(ufunc: np.ufunc, result: str) -> Primitive:
    name, doc = ufunc.__name__, f"NumPy's ``{ufunc.__name__}``, without a gradient."
    return _elementwise(name, ufunc, doc, f"([1, 2], [2, 2]) -> {result}, dtype=bool", None, None)


greater: Primitive = _comparison(np.greater, "[False, False]")
greater_equal: Primitive = _comparison(np.greater_equal, "[False,  True]")
less: Primitive = _comparison(np.less, "[ True, False]")
less_equal: Primitive = _comparison(np.less_equal, "[ True,  True]")
equal: Primitive = _comparison(np.equal, "[False,  True]")
not_equal: Primitive = _comparison(np.not_equal, "[ True, False]")
logical_and: Primitive = _comparison(np.logical_and, "[ True,  True]")
maximum: Primitive = _elementwise(
    "maximum",
    np.maximum,
    "The larger; where both are equal, ``x`` gets the gradient.",
    "([1.0, 5.0], 3.0) -> [3., 5.], dtype=float64",
    lambda g, out, x, y: _sum_like(g * greater_equal(x, y), x),
    lambda g, out, x, y: _sum_like(g * less(x, y), y),
)
minimum: Primitive = _elementwise(
    "minimum",
    np.minimum,
    "The smaller; where both are equal, ``x`` gets the gradient.",
    "([1.0, 5.0], 3.0) -> [1., 3.], dtype=float64",
    lambda g, out, x, y: _sum_like(g * less_equal(x, y), x),
    lambda g, out, x, y: _sum_like(g * greater(x, y), y),
)
where: Primitive = _elementwise(
    "where",
    np.where,
    "``x`` where the condition holds, ``y`` elsewhere.",
    "([True, False], [1.0, 2.0], 0.0) -> [1., 0.], dtype=float64",
    None,
    lambda g, out, condition, x, y: _sum_like(where(condition, g, 0), x),
    lambda g, out, condition, x, y: _sum_like(where(condition, 0, g), y),
)


def clip(x: Operand, low: Operand | None = None, high: Operand | None = None) -> Tensor:
    """Limit ``x`` to the interval [low, high] (None: no limit); at the limits the gradient passes, outside it is 0.

    Examples
    --------
    >>> clip([-1.0, 0.5, 7.0], 0, 1)
    Tensor([0. , 0.5, 1. ], dtype=float64)
    """
    x = x if low is None else maximum(x, low)
    return as_tensor(x if high is None else minimum(x, high))


# Reductions -----------------------------------------------------------------------------------------------------------
def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, ndim)


def _kept(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Return `shape` with the reduced axes kept at length 1."""
    axes = _axes(axis, len(shape))
    return tuple([1 if i in axes else length for i, length in enumerate(shape)])


@primitive
def sum(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over the given axes (None: all).

    Examples
    --------
    >>> sum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([4., 6.], dtype=float64)
    """
    return np.sum(x, axis=axis, keepdims=keepdims)


@primitive
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over the given axes (None: all); an error if there is nothing to average.

    Examples
    --------
    >>> mean([[1.0, 2.0], [3.0, 4.0]], axis=1, keepdims=True)
    Tensor([[1.5],
            [3.5]], dtype=float64)
    """
    if not all(x.shape[i] for i in _axes(axis, x.ndim)):
        raise ValueError(f"axis {axis} is empty, and the mean of nothing is undefined; give it at least one element")
    return np.mean(x, axis=axis, keepdims=keepdims)


def _spread(g: Tensor, out: Tensor, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    return broadcast_to(reshape(g, _kept(x.shape, axis)), x.shape)


sum.defvjp(_spread)
mean.defvjp(
    lambda g, out, x, axis, keepdims: _spread(g / (x.size // builtins.max(out.size, 1) or 1), out, x, axis, keepdims)
)


@primitive
def _first_extreme(x: Array, *, axis: Axis, arg: Callable[..., Array]) -> Array:
    """Mark with 1 the first element, row-major over the reduced axes, that `arg` (``np.argmax`` or ``np.argmin``)
    finds.
    """
    axes = sorted(_axes(axis, x.ndim))
    last = range(-len(axes), 0)
    moved = np.moveaxis(x, axes, last)
    flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], math.prod(moved.shape[x.ndim - len(axes) :]))
    marks = np.zeros_like(flat)
    np.put_along_axis(marks, arg(flat, axis=-1, keepdims=True), 1, axis=-1)
    return np.moveaxis(marks.reshape(moved.shape), last, axes)


_first_extreme.defvjp(None)


@primitive
def max(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest element over the given axes (None: all); the gradient goes to the first of equal ones.

    Examples
    --------
    >>> max([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([2., 4.], dtype=float64)
    """
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive
def min(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Smallest element over the given axes (None: all); the gradient goes to the first of equal ones.

    Examples
    --------
    >>> min([[1.0, 2.0], [3.0, 4.0]], axis=(0, 1))
    Tensor(1., dtype=float64)
    """
    return np.min(x, axis=axis, keepdims=keepdims)


max.defvjp(
    lambda g, out, x, axis, keepdims: reshape(g, _kept(x.shape, axis)) * _first_extreme(x, axis=axis, arg=np.argmax)
)
min.defvjp(
    lambda g, out, x, axis, keepdims: reshape(g, _kept(x.shape, axis)) * _first_extreme(x, axis=axis, arg=np.argmin)
)


@primitive
def argmax(x: Array, *, axis: int | None = None) -> Any:
    """Position of the (first) largest element, as integers without a gradient.

    Examples
    --------
    >>> argmax([[1.0, 2.0], [4.0, 3.0]], axis=1)
    Tensor([1, 0], dtype=int64)
    """
    return np.argmax(x, axis=axis)


argmax.defvjp(None)


# Shapes ---------------------------------------------------------------------------------------------------------------
@primitive
def _broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(x, shape)


@primitive
def _sum_to(x: Array, *, shape: tuple[int, ...]) -> Any:
    new = x.ndim - len(shape)
    stretched = tuple(i for i in range(x.ndim) if i < new or x.shape[i] != shape[i - new])
    return np.sum(x, axis=stretched).reshape(shape)


_broadcast_to.defvjp(lambda g, out, x, shape: sum_to(g, x.shape))
_sum_to.defvjp(lambda g, out, x, shape: broadcast_to(g, x.shape))


def broadcast_to(x: Operand, shape: Sequence[int]) -> Tensor:
    """Repeat ``x`` along new or length-1 axes up to `shape`, by NumPy's broadcasting rules (a read-only view).

    Examples
    --------
    >>> broadcast_to([1.0, 2.0], (2, 2))
    Tensor([[1., 2.],
            [1., 2.]], dtype=float64)
    """
    x, shape = as_tensor(x), tuple(shape)
    return x if x.shape == shape else _broadcast_to(x, shape=shape)


def sum_to(x: Operand, shape: Sequence[int]) -> Tensor:
    """Sum ``x`` down to `shape`, over the axes that broadcasting from `shape` repeated: the adjoint of `broadcast_to`.

    Examples
    --------
    >>> sum_to([[1.0, 2.0], [3.0, 4.0]], (2, 1))
    Tensor([[3.],
            [7.]], dtype=float64)
    """
    x, shape = as_tensor(x), tuple(shape)
    if x.shape == shape:
        return x
    if len(shape) > x.ndim or any(s not in (1, length) for s, length in zip(shape[::-1], x.shape[::-1], strict=False)):
        raise ValueError(f"sum_to: shape {shape} does not broadcast to {x.shape}")
    return _sum_to(x, shape=shape)


@primitive
def _reshape(x: Array, *, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> Array:
    out = np.reshape(x, shape)
    return out if order is None else np.ascontiguousarray(out.transpose(order)).transpose(np.argsort(order))


def _memory_order(x: Array) -> tuple[int, ...] | None:
    """Return the axes from the outermost in memory to the innermost; None if that is their usual order."""
    return (
        None if x.flags.c_contiguous else tuple(sorted(range(x.ndim), key=lambda axis: -builtins.abs(x.strides[axis])))
    )


# The gradient gets the memory order of x: mixed orders would make every step behind it slow (a flatten behind a
# max-pool: 1 % of the time).
_reshape.defvjp(lambda g, out, x, shape, order: _reshape(g, shape=x.shape, order=_memory_order(x.data)))


def reshape(x: Operand, *shape: Any) -> Tensor:
    """Arrange the elements, in row-major order, in another shape, given as one tuple or as numbers; one length may be
    -1.

    Examples
    --------
    >>> reshape([1.0, 2.0, 3.0, 4.0], 2, -1)
    Tensor([[1., 2.],
            [3., 4.]], dtype=float64)
    """
    return _reshape(x, shape=_unpacked(shape))


@primitive
def _transpose(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.transpose(x, axes)


_transpose.defvjp(lambda g, out, x, axes: _transpose(g, axes=tuple(np.argsort(np.mod(axes, x.ndim)))))


def transpose(x: Operand, *axes: Any) -> Tensor:
    """Permute the axes, given as one tuple or as numbers; without them, reverse their order.

    Examples
    --------
    >>> transpose([[1.0, 2.0], [3.0, 4.0]])
    Tensor([[1., 3.],
            [2., 4.]], dtype=float64)
    """
    x = as_tensor(x)
    return _transpose(x, axes=_unpacked(axes) or tuple(range(x.ndim))[::-1])


@primitive
def swapaxes(x: Array, *, axis1: int, axis2: int) -> Array:
    """Exchange two axes.

    Examples
    --------
    >>> swapaxes(np.ones((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    return np.swapaxes(x, axis1, axis2)


@primitive
def expand_dims(x: Array, *, axis: int | tuple[int, ...]) -> Array:
    """Insert axes of length 1 at the given positions of the result.

    Examples
    --------
    >>> expand_dims([1.0, 2.0], (0, 2)).shape
    (1, 2, 1)
    """
    return np.expand_dims(x, axis)


@primitive
def squeeze(x: Array, *, axis: Axis = None) -> Array:
    """Remove the given axes of length 1 (None: all such).

    Examples
    --------
    >>> squeeze([[[1.0], [2.0]]]).shape
    (2,)
    """
    return np.squeeze(x, axis)


swapaxes.defvjp(lambda g, out, x, axis1, axis2: swapaxes(g, axis1, axis2))
expand_dims.defvjp(lambda g, out, x, axis: _reshape(g, shape=x.shape))
squeeze.defvjp(lambda g, out, x, axis: _reshape(g, shape=x.shape))


# Matrix product -------------------------------------------------------------------------------------------------------
@primitive
def _matmul(x: Array, y: Array) -> Any:
    return np.matmul(x, y)


_matmul.defvjp(
    lambda g, out, x, y: _sum_like(_matmul(g, swapaxes(y, -1, -2)), x),
    lambda g, out, x, y: _sum_like(_matmul(swapaxes(x, -1, -2), g), y),
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
            "the second-to-last "
            "(or only) axis of the second; transpose or reshape one of them"
        )
    out = _matmul(x if x.ndim > 1 else expand_dims(x, 0), y if y.ndim > 1 else expand_dims(y, 1))
    if x.ndim == 1:
        out = squeeze(out, -1 if y.ndim == 1 else -2)
    return squeeze(out, -1) if y.ndim == 1 else out


# Indexing and joining -------------------------------------------------------------------------------------------------
@primitive
def _getitem(x: Array, *, index: Any) -> Any:
    return x[index]


@primitive
def _put_at(x: Array, *, index: Any, shape: tuple[int, ...]) -> Array:
    """Add ``x`` into zeros of `shape` at `index`, repeated positions adding up: the adjoint of ``_getitem``."""
    out = np.zeros(shape, x.dtype)
    if any(isinstance(part, np.ndarray) and part.dtype != np.bool_ for part in index):
        np.add.at(out, index, x)
    else:
        out[index] = x
    return out


_getitem.defvjp(lambda g, out, x, index: _put_at(g, index=index, shape=x.shape))
_put_at.defvjp(lambda g, out, x, index, shape: _getitem(g, index=index))


def getitem(x: Operand, index: Any) -> Tensor:
    """``x[index]`` with slices, integers, None, ``...``, integer arrays (repeats add up in the gradient) and boolean
    masks.

    Examples
    --------
    >>> getitem([10.0, 20.0, 30.0], [0, 0, 2])
    Tensor([10., 10., 30.], dtype=float64)
    """
    return _getitem(x, index=tuple(map(_index_part, index if isinstance(index, tuple) else (index,))))


def _index_part(part: Any) -> Any:
    """Copy index arrays, so that the gradient uses the same ones; lists and inner tuples are arrays, too."""
    if not isinstance(part, (Tensor, np.ndarray, list, tuple)):
        return part
    array = np.array(part)
    return array if array.size or isinstance(part, (Tensor, np.ndarray)) else array.astype(np.intp)


@primitive
def _pad(x: Array, *, pad_width: tuple[tuple[int, int], ...], value: float) -> Array:
    shape = tuple(before + length + after for length, (before, after) in zip(x.shape, pad_width, strict=True))
    out = np.empty_like(x, shape=shape)  # in the memory order of x, which np.pad would not keep
    out[...] = value
    out[_inner(pad_width, x.shape)] = x
    return out


def _inner(pad_width: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(before, before + length) for length, (before, _) in zip(shape, pad_width, strict=True))


_pad.defvjp(lambda g, out, x, pad_width, value: _getitem(g, index=_inner(pad_width, x.shape)))


def pad(x: Operand, pad_width: Any, value: float = 0.0) -> Tensor:
    """Surround ``x`` with `value`.

    Parameters
    ----------
    x : array_like
    pad_width : int or sequence of (before, after)
        How many elements to add at both ends of every axis, or for each axis on its own, as in ``numpy.pad``.
    value : float

    Examples
    --------
    >>> pad([1.0, 2.0], ((1, 0),), 9.0)
    Tensor([9., 1., 2.], dtype=float64)
    """
    x, widths = as_tensor(x), np.asarray(pad_width)
    if (
        widths.dtype.kind not in "iu"
        or (widths < 0).any()
        or widths.shape not in ((), (1,), (2,), (1, 2), (x.ndim, 1), (x.ndim, 2))
    ):
        raise ValueError(
            f"pad: pad_width {pad_width!r} does not fit shape {x.shape}; pass (before, after), both at least 0, for "
            "each axis"
        )
    return _pad(
        x,
        pad_width=tuple((int(before), int(after)) for before, after in np.broadcast_to(widths, (x.ndim, 2))),
        value=value,
    )


@primitive
def _concatenate(*xs: Array, axis: int) -> Array:
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis is {axis!r}; it must be an integer (flatten with reshape(-1))")
    return np.concatenate(xs, axis)


def _piece(position: int, g: Tensor, out: Tensor, *xs: Tensor, axis: int) -> Tensor:
    start = builtins.sum(x.shape[axis] for x in xs[:position])
    index = (slice(None),) * (axis % out.ndim) + (slice(start, start + xs[position].shape[axis]),)
    return _getitem(g, index=index)


@primitive
def _stack(*xs: Array, axis: int) -> Array:
    return np.stack(xs, axis)


_concatenate.defvjp_each(_piece)
_stack.defvjp_each(
    lambda position, g, out, *xs, axis: _getitem(g, index=(slice(None),) * (axis % out.ndim) + (position,))
)


def concatenate(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Join Tensors along an existing axis; the other axes must agree.

    Examples
    --------
    >>> concatenate([[1.0, 2.0], [3.0]])
    Tensor([1., 2., 3.], dtype=float64)
    """
    return _concatenate(*tensors, axis=axis)


def stack(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Join Tensors of one shape along a new axis.

    Examples
    --------
    >>> stack([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([[1., 3.],
            [2., 4.]], dtype=float64)
    """
    return _stack(*tensors, axis=axis)


def _unpacked(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the numbers of ``f(2, 3)``, ``f((2, 3))`` or ``f([2, 3])`` as one tuple."""
    return tuple(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], (tuple, list)) else numbers


def _reflected(op: Callable[[Operand, Operand], Tensor]) -> Callable[[Tensor, Operand], Tensor]:
    return lambda self, other: op(other, self)


Tensor.attach(
    __add__=add.as_operator(),
    __sub__=subtract.as_operator(),
    __mul__=multiply.as_operator(),
    __truediv__=divide.as_operator(),
    __pow__=power.as_operator(),
    __matmul__=matmul,
    __neg__=negative,
    __abs__=abs,
    __radd__=_reflected(add),
    __rsub__=_reflected(subtract),
    __rmul__=_reflected(multiply),
    __rtruediv__=_reflected(divide),
    __rpow__=_reflected(power),
    __rmatmul__=_reflected(matmul),
    __getitem__=getitem,
    __eq__=equal,
    __ne__=not_equal,
    __lt__=less,
    __le__=less_equal,
    __gt__=greater,
    __ge__=greater_equal,
    abs=abs,
    exp=exp,
    log=log,
    sqrt=sqrt,
    tanh=tanh,
    sigmoid=sigmoid,
    relu=relu,
    clip=clip,
    matmul=matmul,
    sum=sum,
    mean=mean,
    max=max,
    min=min,
    argmax=argmax,
    reshape=reshape,
    transpose=transpose,
    swapaxes=swapaxes,
    astype=astype,
    broadcast_to=broadcast_to,
    T=property(transpose),
)
