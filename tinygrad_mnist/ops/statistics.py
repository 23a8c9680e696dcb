"""Statistics and products along axes: var, std, prod, cumsum, cumprod, median."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import kernels
from ..arguments import describe
from ..record import as_tensor, broadcast_to, primitive
from ..tensor import Array, Operand, Tensor, attach, wrap
from ..validation import real
from .elementwise import select, sqrt, where
from .indexing import getitem
from .logic import not_equal
from .operators import in_single
from .reduction import Axis, _kept, _normalized, max, mean, min, sum
from .shape import pad, reshape, swapaxes, transpose
from .sorting import _take_along_axis

__all__ = ["cumprod", "cumsum", "median", "prod", "std", "var"]


def _in_single(function: Callable[..., Any], x: Array, **how: Any) -> Any:
    """Compute half precision in single precision."""
    if x.dtype == np.float16:
        return function(x.astype(np.float32), **how).astype(np.float16)
    return function(x, **how)


# Spread ---------------------------------------------------------------------------------------------------------------
@primitive
def _centered(x: Any, /, *, axis: Axis) -> Any:
    """``x`` minus its mean: linear, and its own adjoint."""
    with np.errstate(over="ignore", invalid="ignore"):
        center = kernels.average(x, axis, keepdims=True)
    if not np.isfinite(center).all():  # perhaps it is the sum alone that overflows
        count = x.size // center.size
        center = np.sum(x / count, axis=axis, keepdims=True)
    return x - center


_centered.defvjp(lambda g, out, x, axis: _centered(g, axis=axis))


def _degrees(op: str, x: Array | Tensor, axis: Axis, ddof: float, correction: float | None) -> float:
    """Return the divisor of the sum of squares: the number of elements minus `ddof`, which has two names."""
    ddof = real(op, "ddof", ddof, least=0)
    if correction is not None:
        if ddof:
            raise ValueError(f"{op}: pass ddof or correction, not both: they are two names of one number")
        ddof = real(op, "correction", correction, least=0)
    count = math.prod([x.shape[i] for i in _normalized(axis, x.ndim)])
    if count <= ddof:
        raise ValueError(
            f"over axis {axis} there are {count} elements, and with ddof={ddof:g} nothing remains to divide by; "
            "give it more elements, or a smaller ddof"
        )
    return count - ddof


@primitive
def var(
    x: Any, /, axis: Axis = None, ddof: float = 0, keepdims: bool = False, *, correction: float | None = None
) -> Any:
    """Variance over the given axes (None: all): the mean of the squared distances from the mean.

    Parameters
    ----------
    x : array_like
        Integers are computed in float64, float16 in float32.
    axis : int, sequence of int or None
    ddof : float
        The squares are divided by the number of elements minus this: 0, as in NumPy; 1 (PyTorch's default) estimates
        the variance of what the elements are a sample of.
    keepdims : bool
        Keep the reduced axes, with length 1.
    correction : float, optional
        PyTorch's name of `ddof`.

    Raises
    ------
    ValueError
        If `ddof` leaves nothing to divide by. NumPy warns, and returns NaN or infinity.

    Examples
    --------
    >>> var([[1.0, 3.0], [2.0, 6.0]], axis=1)
    Tensor([1., 4.], dtype=float64)
    >>> var([1.0, 3.0], ddof=1)
    Tensor(2., dtype=float64)
    """
    _degrees("var", x, axis, ddof, correction)
    used = ddof if correction is None else correction
    return _in_single(np.var, x, axis=axis, ddof=used, keepdims=keepdims)


@primitive
def std(
    x: Any, /, axis: Axis = None, ddof: float = 0, keepdims: bool = False, *, correction: float | None = None
) -> Any:
    """Standard deviation over the given axes (None: all), the square root of `var`, whose parameters it has.

    Where all elements are equal, the gradient is 0, as in PyTorch.

    Examples
    --------
    >>> std([[1.0, 3.0], [2.0, 6.0]], axis=1)
    Tensor([1., 2.], dtype=float64)
    >>> x = Tensor([3.0, 3.0], requires_grad=True)
    >>> std(x).backward()
    >>> x.grad
    Tensor([0., 0.], dtype=float64)
    """
    _degrees("std", x, axis, ddof, correction)
    used = ddof if correction is None else correction
    return _in_single(np.std, x, axis=axis, ddof=used, keepdims=keepdims)


@in_single
def _var_rule(g: Tensor, out: Tensor, x: Tensor, axis: Axis, keepdims: bool, **divisor: Any) -> Tensor:
    factor = 2 / _degrees("var", x, axis, **divisor)
    return reshape(g, _kept(x.shape, axis)) * (_centered(x, axis=axis) * factor)


@primitive
def _near_one(low: Any, high: Any, /) -> Any:
    """Return powers of 2 that bring numbers between `low` and `high` near 1 in size."""
    _, exponent = np.frexp(np.maximum(-low, high))
    limit = np.finfo(low.dtype).maxexp - 2
    return np.ldexp(low.dtype.type(1), np.clip(-exponent, -limit, limit))


_near_one.defvjp(None, None)


@in_single
def _std_rule(g: Tensor, out: Tensor, x: Tensor, axis: Axis, keepdims: bool, **divisor: Any) -> Tensor:
    """``g * d / sqrt(degrees * sum(d**2))``, of distances ``d`` from the mean.

    They are scaled, so that no square overflows or underflows; a common factor cancels, so it counts as a constant.
    Rounding may give equal elements a mean that differs from them: whether they are equal decides.
    """
    low = min(x, axis, True)
    high = max(x, axis, True)
    distance = _centered(x * _near_one(low, high), axis=axis)
    spread = not_equal(low, high)
    total = sum(distance * distance, axis, True)
    squares = where(spread, total, 1.0)
    root = sqrt(squares * _degrees("std", x, axis, **divisor))
    part = select(reshape(g, spread.shape), spread) / root
    return select(part * distance, broadcast_to(spread, x.shape))  # again, for the gradient of the gradient


var.defvjp(_var_rule)
std.defvjp(_std_rule)


# Rows: the axes of a reduction as the last axis -----------------------------------------------------------------------
def _as_rows(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    others = [i for i in range(x.ndim) if i not in axes]
    shape = [x.shape[i] for i in others]
    length = math.prod(x.shape[i] for i in axes)
    moved = transpose(x, (*others, *axes)) if axes else x
    return reshape(moved, (*shape, length))


def _from_rows(rows: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    others = [i for i in range(len(shape)) if i not in axes]
    order = (*others, *axes)
    moved = reshape(rows, tuple(shape[i] for i in order))
    if not order:
        return moved
    back = np.argsort(order)
    return transpose(moved, tuple(back.tolist()))


def _shifted(t: Tensor, first: float) -> Tensor:
    """Move the elements one place along the last axis, away from the beginning."""
    all_but_last = getitem(t, (..., slice(None, -1)))
    widths = [(0, 0)] * (t.ndim - 1) + [(1, 0)]
    return pad(all_but_last, widths, first)


def _flipped(t: Tensor) -> Tensor:
    return getitem(t, (..., slice(None, None, -1)))


# Recurrences and products ---------------------------------------------------------------------------------------------
@primitive
def _recurrence(b: Any, a: Any, /, *, reverse: bool) -> Any:
    """``y[i] = b[i] + a[i] * y[i - 1]`` along the last axis, or its adjoint: ``y[i] = b[i] + a[i + 1] * y[i + 1]``."""
    return kernels.recurrence(b, a, reverse)


@in_single
def _recurrence_by_factor(g: Tensor, out: Tensor, b: Tensor, a: Tensor, reverse: bool) -> Tensor:
    """The factor at ``i`` lies between the elements ``i - 1`` and ``i``."""
    adjoint = _recurrence(g, a, reverse=not reverse)
    onward, back = (adjoint, out) if reverse else (out, adjoint)
    return _shifted(onward, 0.0) * back


_recurrence.defvjp(
    lambda g, out, b, a, reverse: _recurrence(g, a, reverse=not reverse),
    _recurrence_by_factor,
)


@primitive
def cumsum(x: Any, /, axis: int | None = None) -> Any:
    """Sums of the elements up to each one, along an axis (None: of all elements, in row-major order).

    float16 is added up in float32.

    Examples
    --------
    >>> cumsum([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([[1., 3.],
            [3., 7.]], dtype=float64)
    """
    return _in_single(np.cumsum, x, axis=axis)


@primitive
def cumprod(x: Any, /, axis: int | None = None) -> Any:
    """Products of the elements up to each one, along an axis (None: of all elements, in row-major order).

    Derivatives of every order are right where elements are 0: nothing is divided. A gradient is a sum of products;
    where one of these, or a product of elements before it, overflows or underflows on the way, the gradient does, too.

    Examples
    --------
    >>> cumprod([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([[ 1.,  2.],
            [ 3., 12.]], dtype=float64)
    """
    return _in_single(np.cumprod, x, axis=axis)


def _cumsum_rule(g: Tensor, out: Tensor, x: Tensor, axis: int | None) -> Tensor:
    place = -1 if axis is None else axis
    sums = _flipped(cumsum(_flipped(swapaxes(g, place, -1)), -1))
    return reshape(swapaxes(sums, place, -1), x.shape)


@in_single
def _cumprod_rule(g: Tensor, out: Tensor, x: Tensor, axis: int | None) -> Tensor:
    if not x.size:
        return reshape(g, x.shape)
    place = -1 if axis is None else axis
    rows = swapaxes(g, place, -1)
    factors = swapaxes(reshape(x, out.shape), place, -1)
    products = swapaxes(out, place, -1)
    gradient = _shifted(products, 1.0) * _recurrence(rows, factors, reverse=True)
    return reshape(swapaxes(gradient, place, -1), x.shape)


cumsum.defvjp(_cumsum_rule)
cumprod.defvjp(_cumprod_rule)


@primitive
def prod(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Product over the given axes (None: all).

    Derivatives of every order are right where elements are 0: nothing is divided. The first neither overflows nor
    underflows on the way.

    Examples
    --------
    >>> prod([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([3., 8.], dtype=float64)
    >>> x = Tensor([0.0, 2.0, 3.0], requires_grad=True)
    >>> prod(x).backward()
    >>> x.grad
    Tensor([6., 0., 0.], dtype=float64)
    """
    return _in_single(np.prod, x, axis=axis, keepdims=keepdims)


@primitive
def _product_of_others(g: Any, x: Any, /) -> Any:
    """``g`` times the product of all other elements along the last axis: (..., 1), (..., n) -> (..., n)."""
    return kernels.product_of_others(g, x)


def _others_by_factor(h: Tensor, out: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """Return ``g`` times, for each element, the sum of ``h[i]`` times the product of all but it and ``i``.

    Two recurrences add up what stands before the element, and what stands behind it.
    """
    if not x.size:
        return x
    left = _shifted(cumprod(x, -1), 1.0)
    right = _flipped(_shifted(cumprod(_flipped(x), -1), 1.0))
    before = _recurrence(_shifted(h * left, 0.0), _shifted(x, 0.0), reverse=False)
    behind = _recurrence(_flipped(_shifted(_flipped(h * right), 0.0)), x, reverse=True)
    return g * (before * right + left * behind)


def _others_by_cotangent(h: Tensor, out: Tensor, g: Tensor, x: Tensor) -> Tensor:
    ones = wrap(np.ones_like(g.data))
    return sum(h * _product_of_others(ones, x), -1, True)


_product_of_others.defvjp(in_single(_others_by_cotangent), in_single(_others_by_factor))


def _prod_rule(g: Tensor, out: Tensor, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = _normalized(axis, x.ndim)
    cotangent = _as_rows(reshape(g, _kept(x.shape, axis)), axes)
    gradient = _product_of_others(cotangent, _as_rows(x, axes))
    return _from_rows(gradient, x.shape, axes)


prod.defvjp(_prod_rule)


# Median ---------------------------------------------------------------------------------------------------------------
@primitive
def _middle(rows: Any, /) -> Any:
    """Find the middle elements along the last axis, one or (of an even count) two, or the first NaN."""
    count = rows.shape[-1]
    order = np.argsort(rows, axis=-1, kind="stable")
    middle = order[..., (count - 1) // 2 : count // 2 + 1]
    missing = np.isnan(rows)
    if not missing.any():
        return middle.copy()  # a view would keep all positions
    first = np.argmax(missing, axis=-1, keepdims=True)
    return np.where(missing.any(axis=-1, keepdims=True), first, middle)


_middle.defvjp(None)


def median(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Middle element over the given axes (None: all), or the mean of the two middle ones; NaN if there is a NaN.

    The gradient goes to the middle elements; of equal ones, to those that a stable sort puts in the middle. Where there
    are NaNs, it goes to the first of them.

    Examples
    --------
    >>> median([[1.0, 9.0, 2.0], [6.0, 5.0, 7.0]], axis=1)
    Tensor([2., 6.], dtype=float64)
    >>> x = Tensor([4.0, 1.0, 2.0, 9.0], requires_grad=True)
    >>> median(x).backward()
    >>> x.grad
    Tensor([0.5, 0. , 0.5, 0. ], dtype=float64)
    """
    x = as_tensor(x)
    try:
        axes = _normalized(axis, x.ndim)
    except (TypeError, ValueError) as error:
        raise type(error)(f"median({describe(x)}): {error}") from error
    rows = _as_rows(x, axes)
    if not rows.shape[-1]:
        raise ValueError(f"median({describe(x)}): axis {axis} is empty; give it at least one element")
    out = mean(_take_along_axis(rows, _middle(rows), axis=-1), -1)
    return reshape(out, _kept(x.shape, axis)) if keepdims else out


@attach
class StatisticsMethods:
    """Methods of `Tensor` that are defined here."""

    var = var
    std = std
    prod = prod
    cumsum = cumsum
    cumprod = cumprod
