"""Elementwise ops, with broadcasting: arithmetic, functions of one variable and choices."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..arguments import defers
from ..record import add, as_tensor, primitive, unbroadcast
from ..tensor import Operand, Tensor, attach
from .logic import greater, greater_equal, less, less_equal
from .operators import both_ways, in_place, in_rules, in_single, of_ufunc

__all__ = [
    "abs",
    "clip",
    "cos",
    "divide",
    "exp",
    "floor_divide",
    "log",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "positive",
    "relu",
    "remainder",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "subtract",
    "tanh",
    "where",
]


# Selection, for rules: ``g * mask`` is NaN where ``g`` is infinite and not passed on ----------------------------------
@primitive
def _select(g: Any, mask: Any, /) -> Any:
    """``g`` where the mask holds, else exactly 0."""
    return kernels.select(g, mask)


@primitive
def _omit(g: Any, mask: Any, /) -> Any:
    """``g``, and exactly 0 where the mask holds."""
    return kernels.select(g, np.logical_not(mask))


select, omit = in_rules(_select), in_rules(_omit)
_select.defvjp(lambda h, out, g, mask: unbroadcast(select(h, mask), g), None)
_omit.defvjp(lambda h, out, g, mask: unbroadcast(omit(h, mask), g), None)


# Arithmetic -----------------------------------------------------------------------------------------------------------
@of_ufunc(np.subtract)
def subtract(x: Any, y: Any, /) -> Any:
    """``x - y``.

    Examples
    --------
    >>> subtract([1.0, 2.0], 3.0)
    Tensor([-2., -1.], dtype=float64)
    """


@of_ufunc(np.multiply)
def multiply(x: Any, y: Any, /) -> Any:
    """``x * y``.

    Examples
    --------
    >>> multiply([1.0, 2.0], 3.0)
    Tensor([3., 6.], dtype=float64)
    """


@of_ufunc(np.divide)
def divide(x: Any, y: Any, /) -> Any:
    """``x / y``.

    Examples
    --------
    >>> divide([1.0, 2.0], 4.0)
    Tensor([0.25, 0.5 ], dtype=float64)
    """


@of_ufunc(np.negative)
def negative(x: Any, /) -> Any:
    """``-x``.

    Examples
    --------
    >>> negative([1.0, 2.0])
    Tensor([-1., -2.], dtype=float64)
    """


@of_ufunc(np.positive)
def positive(x: Any, /) -> Any:
    """``+x``.

    Examples
    --------
    >>> positive([1.0, -2.0])
    Tensor([ 1., -2.], dtype=float64)
    """


@of_ufunc(np.floor_divide)
def floor_divide(x: Any, y: Any, /) -> Any:
    """``x // y``, the quotient rounded down; its derivatives are 0.

    Examples
    --------
    >>> floor_divide([7.0, -7.0], 2)
    Tensor([ 3., -4.], dtype=float64)
    """


@of_ufunc(np.remainder)
def remainder(x: Any, y: Any, /) -> Any:
    """``x % y``, that is ``x - y * (x // y)``, with the sign of ``y``.

    Examples
    --------
    >>> remainder([7.0, -7.0], 4)
    Tensor([3., 1.], dtype=float64)
    """


@primitive
def round(x: Any, /, decimals: int = 0) -> Any:
    """Round to so many decimals, halves to the even neighbour; the derivative is 0.

    Examples
    --------
    >>> round([0.5, 1.26], 1)
    Tensor([0.5, 1.3], dtype=float64)
    """
    return np.round(x, decimals)


@primitive
def _quotients(g: Any, x: Any, y: Any, /, *, n: int, shape: tuple[int, ...]) -> Any:
    """``g * x / y`` (n is 1), its (n - 1)-th derivative by y, or ``g * x`` (n is 0), summed down to `shape`."""
    return kernels.quotient_sum(g, x, y, n, shape)


_quotient_sum = in_rules(_quotients)


def _product(g: Tensor, x: Any, to: Tensor) -> Tensor:
    return g * x if g._array.shape == to._array.shape else _quotient_sum(g, x, 1.0, n=0, shape=to.shape)


def _quotient(g: Tensor, y: Any, to: Tensor) -> Tensor:
    return g / y if g._array.shape == to._array.shape else _quotient_sum(g, 1.0, y, n=1, shape=to.shape)


@primitive
def _remainder_gradient(g: Any, x: Any, y: Any, /) -> Any:
    """``-g * floor(x / y)``, also where the quotient overflows; exactly 0 where it is 0."""
    quotient = np.floor_divide(x, y)
    gradient = kernels.select(-g * quotient, np.not_equal(quotient, 0))
    excess = x - np.remainder(x, y)
    overflow = np.isinf(quotient) & np.isfinite(excess)
    if not overflow.any():
        return gradient
    exact = kernels.quotient_sum(np.where(overflow, -g, 0), excess, np.where(overflow, y, 1), 1, g.shape)
    return np.where(overflow, exact, gradient)


_by_divisor = in_rules(_remainder_gradient)


subtract.defvjp(lambda g, out, x, y: unbroadcast(g, x), lambda g, out, x, y: unbroadcast(-g, y))
multiply.defvjp(lambda g, out, x, y: _product(g, y, x), lambda g, out, x, y: _product(g, x, y))
divide.defvjp(
    lambda g, out, x, y: _quotient(g, y, x),
    lambda g, out, x, y: _quotient_sum(g, x, y, n=2, shape=y.data.shape),
)
_quotients.defvjp(
    lambda h, out, g, x, y, n, shape: _quotient_sum(h, x, y, n=n, shape=g.shape),
    lambda h, out, g, x, y, n, shape: _quotient_sum(h, g, y, n=n, shape=x.shape),
    in_single(lambda h, out, g, x, y, n, shape: _quotient_sum(h * g, x, y, n=n + 1, shape=y.shape)),
)
negative.defvjp(lambda g, out, x: -g)
positive.defvjp(lambda g, out, x: g)
floor_divide.defvjp(
    lambda g, out, x, y: unbroadcast(select(g, False), x), lambda g, out, x, y: unbroadcast(select(g, False), y)
)
remainder.defvjp(lambda g, out, x, y: unbroadcast(g, x), lambda g, out, x, y: unbroadcast(_by_divisor(g, x, y), y))
_remainder_gradient.defvjp(
    lambda h, out, g, x, y: _by_divisor(h, x, y),
    lambda h, out, g, x, y: unbroadcast(select(h, False), x),
    lambda h, out, g, x, y: unbroadcast(select(h, False), y),
)
round.defvjp(lambda g, out, x, decimals: select(g, False))


# Functions of one variable --------------------------------------------------------------------------------------------
@of_ufunc(kernels.dealt(np.exp))
def exp(x: Any, /) -> Any:
    """e to the power of ``x``.

    Examples
    --------
    >>> exp([0.0])
    Tensor([1.], dtype=float64)
    """


@of_ufunc(kernels.dealt(np.log))
def log(x: Any, /) -> Any:
    """Natural logarithm.

    Examples
    --------
    >>> log([1.0])
    Tensor([0.], dtype=float64)
    """


@of_ufunc(np.sqrt)
def sqrt(x: Any, /) -> Any:
    """Square root.

    Examples
    --------
    >>> sqrt([9.0])
    Tensor([3.], dtype=float64)
    """


@of_ufunc(kernels.dealt(np.sin))
def sin(x: Any, /) -> Any:
    """Sine of radians.

    Examples
    --------
    >>> sin([0.0])
    Tensor([0.], dtype=float64)
    """


@of_ufunc(kernels.dealt(np.cos))
def cos(x: Any, /) -> Any:
    """Cosine of radians.

    Examples
    --------
    >>> cos([0.0])
    Tensor([1.], dtype=float64)
    """


@of_ufunc(kernels.dealt(np.tanh))
def tanh(x: Any, /) -> Any:
    """Hyperbolic tangent.

    Examples
    --------
    >>> tanh([0.0])
    Tensor([0.], dtype=float64)
    """


@primitive
def sigmoid(x: Any, /) -> Any:
    """``1 / (1 + exp(-x))``, without overflow at either end.

    Examples
    --------
    >>> sigmoid([0.0, 1e4])
    Tensor([0.5, 1. ], dtype=float64)
    """
    small = np.exp(-np.abs(x))
    return np.maximum(small, np.greater_equal(x, 0)) / (1 + small)  # 1 or small: faster than np.where


@of_ufunc(np.abs)
def abs(x: Any, /) -> Any:
    """Absolute value; its derivative at 0 (and at NaN) is 0.

    Examples
    --------
    >>> abs([-2.0])
    Tensor([2.], dtype=float64)
    """


@of_ufunc(np.sign)
def sign(x: Any, /) -> Any:
    """-1, 0 or 1; its derivative is 0.

    Examples
    --------
    >>> sign([-2.0])
    Tensor([-1.], dtype=float64)
    """


@primitive
def relu(x: Any, /) -> Any:
    """``max(x, 0)``; its derivative at 0 is 0.

    Examples
    --------
    >>> relu([-1.0, 2.0])
    Tensor([0., 2.], dtype=float64)
    """
    return kernels.relu(x)


@primitive
def _signed(g: Any, x: Any, /) -> Any:
    """``g`` times the sign of ``x``, and 0 where ``x`` is 0 or NaN."""
    return kernels.select(g * np.copysign(1, x), np.abs(x) > 0)


@primitive
def _relu_gradient(g: Any, x: Any, /) -> Any:
    """``g``, and 0 where ``x`` is 0 or negative."""
    return kernels.relu_gradient(g, x)


@primitive
def _exp_gradient(g: Any, x: Any, e: Any, /) -> Any:
    """``g * exp(x)``, where ``e`` is ``exp(x)``."""
    return kernels.times_exp(g, x, e)


@primitive
def _tanh_gradient(g: Any, x: Any, /) -> Any:
    """``g / cosh(x)**2``."""
    return kernels.times_sech2(g, x)


@primitive
def _sigmoid_gradient(g: Any, x: Any, /) -> Any:
    """``g * sigmoid(x) * sigmoid(-x)``."""
    return kernels.times_sigmoids(g, x)


_times_exp = in_rules(_exp_gradient)
_times_sech2 = in_rules(_tanh_gradient)
_times_sigmoids = in_rules(_sigmoid_gradient)
exp.defvjp(lambda g, out, x: _times_exp(g, x, out))
_exp_gradient.defvjp(
    lambda h, out, g, x, e: _times_exp(h, x, e), in_single(lambda h, out, g, x, e: _times_exp(h * g, x, e)), None
)
log.defvjp(lambda g, out, x: g / x)
sqrt.defvjp(lambda g, out, x: g / (2 * out))
sin.defvjp(lambda g, out, x: g * cos(x))
cos.defvjp(lambda g, out, x: -g * sin(x))
tanh.defvjp(lambda g, out, x: _times_sech2(g, x))
_tanh_gradient.defvjp(
    lambda h, out, g, x: _times_sech2(h, x), in_single(lambda h, out, g, x: _times_sech2(-2 * h * g * tanh(x), x))
)
sigmoid.defvjp(lambda g, out, x: _times_sigmoids(g, x))
_sigmoid_gradient.defvjp(
    lambda h, out, g, x: _times_sigmoids(h, x), in_single(lambda h, out, g, x: _times_sigmoids(-h * g * tanh(x / 2), x))
)
_with_sign = in_rules(_signed)
abs.defvjp(lambda g, out, x: _with_sign(g, x))
_signed.defvjp(lambda h, out, g, x: _with_sign(h, x), None)
sign.defvjp(lambda g, out, x: select(g, False))
_where_positive = in_rules(_relu_gradient)
relu.defvjp(lambda g, out, x: _where_positive(g, x))
_relu_gradient.defvjp(lambda h, out, g, x: _where_positive(h, x), None)


# Choices ------------------------------------------------------------------------------------------------------------
@of_ufunc(np.maximum)
def maximum(x: Any, y: Any, /) -> Any:
    """The larger; where both are equal, ``x`` gets the gradient; where one is NaN, both do, as in PyTorch.

    Examples
    --------
    >>> maximum([1.0, 5.0], 3.0)
    Tensor([3., 5.], dtype=float64)
    """


@of_ufunc(np.minimum)
def minimum(x: Any, y: Any, /) -> Any:
    """The smaller; where both are equal, ``x`` gets the gradient; where one is NaN, both do, as in PyTorch.

    Examples
    --------
    >>> minimum([1.0, 5.0], 3.0)
    Tensor([1., 3.], dtype=float64)
    """


@of_ufunc(np.maximum)
def _at_least(x: Any, low: Any, /) -> Any:
    """``maximum`` for `clip`: where one is NaN, neither gets a gradient."""


@of_ufunc(np.minimum)
def _at_most(x: Any, high: Any, /) -> Any:
    """``minimum`` for `clip`: where one is NaN, neither gets a gradient."""


@primitive
def where(condition: Any, x: Any, y: Any, /) -> Any:
    """``x`` where the condition holds, ``y`` elsewhere.

    Examples
    --------
    >>> where([True, False], [1.0, 2.0], 0.0)
    Tensor([1., 0.], dtype=float64)
    """
    return np.where(condition, x, y)


maximum.defvjp(
    lambda g, out, x, y: unbroadcast(omit(g, less(x, y)), x),
    lambda g, out, x, y: unbroadcast(omit(g, greater_equal(x, y)), y),
)
minimum.defvjp(
    lambda g, out, x, y: unbroadcast(omit(g, greater(x, y)), x),
    lambda g, out, x, y: unbroadcast(omit(g, less_equal(x, y)), y),
)
_at_least.defvjp(
    lambda g, out, x, low: unbroadcast(select(g, greater_equal(x, low)), x),
    lambda g, out, x, low: unbroadcast(select(g, less(x, low)), low),
)
_at_most.defvjp(
    lambda g, out, x, high: unbroadcast(select(g, less_equal(x, high)), x),
    lambda g, out, x, high: unbroadcast(select(g, greater(x, high)), high),
)
where.defvjp(
    None,
    lambda g, out, condition, x, y: unbroadcast(select(g, condition), x),
    lambda g, out, condition, x, y: unbroadcast(omit(g, condition), y),
)


def clip(x: Operand, low: Operand | None = None, high: Operand | None = None) -> Tensor:
    """Limit ``x`` to the interval [low, high] (None: no limit); at the limits the gradient passes, outside it is 0.

    Where a number is NaN, there is no gradient, as in PyTorch.

    Examples
    --------
    >>> clip([-1.0, 0.5, 7.0], 0, 1)
    Tensor([0. , 0.5, 1. ], dtype=float64)
    """
    x = x if low is None else _at_least(x, low)
    return as_tensor(x if high is None else _at_most(x, high))


# Methods of Tensor ----------------------------------------------------------------------------------------------------
@attach
class ElementwiseMethods:
    """Methods of `Tensor` that are defined here."""

    __add__, __radd__ = both_ways(add)
    __sub__, __rsub__ = both_ways(subtract)
    __mul__, __rmul__ = both_ways(multiply)
    __truediv__, __rtruediv__ = both_ways(divide)
    __floordiv__, __rfloordiv__ = both_ways(floor_divide)
    __mod__, __rmod__ = both_ways(remainder)
    __iadd__, __isub__, __imul__, __itruediv__ = map(in_place, (add, subtract, multiply, divide))
    __ifloordiv__, __imod__ = map(in_place, (floor_divide, remainder))
    __neg__ = negative
    __pos__ = positive
    abs = abs
    exp = exp
    log = log
    sqrt = sqrt
    tanh = tanh
    sigmoid = sigmoid
    relu = relu
    clip = clip
    round = round

    def __abs__(self) -> Tensor:
        return abs(self)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return NotImplemented if defers(other) else (floor_divide(self, other), remainder(self, other))

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return NotImplemented if defers(other) else (floor_divide(other, self), remainder(other, self))

    def __round__(self, decimals: int | None = None) -> Tensor:
        return round(self, decimals or 0)
