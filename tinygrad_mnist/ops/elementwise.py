"""Elementwise ops, with broadcasting: arithmetic, functions of one variable, comparisons and choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

from .. import hooks, kernels
from ..record import Primitive, add, mode, primitive, unbroadcast
from ..tensor import Operand, Tensor, as_tensor, attach, wrap

__all__ = [
    "abs",
    "clip",
    "cos",
    "divide",
    "equal",
    "exp",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "log",
    "logical_and",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "relu",
    "sigmoid",
    "sign",
    "sin",
    "sqrt",
    "subtract",
    "tanh",
    "where",
]

P = ParamSpec("P")


def _of_ufunc(ufunc: np.ufunc) -> Callable[[Callable[P, Any]], Primitive[P]]:
    """Make a primitive that calls a NumPy ufunc; the decorated function gives signature and documentation.

    That saves a call for each op, 0.1 of 1.8 µs.
    """

    def decorate(documented: Callable[P, Any]) -> Primitive[P]:
        op = primitive(documented)
        op.forward = ufunc
        return op

    return decorate


# Arithmetic -----------------------------------------------------------------------------------------------------------
@_of_ufunc(np.subtract)
def subtract(x: Any, y: Any, /) -> Any:
    """``x - y``.

    Examples
    --------
    >>> subtract([1.0, 2.0], 3.0)
    Tensor([-2., -1.], dtype=float64)
    """


@_of_ufunc(np.multiply)
def multiply(x: Any, y: Any, /) -> Any:
    """``x * y``.

    Examples
    --------
    >>> multiply([1.0, 2.0], 3.0)
    Tensor([3., 6.], dtype=float64)
    """


@_of_ufunc(np.divide)
def divide(x: Any, y: Any, /) -> Any:
    """``x / y``.

    Examples
    --------
    >>> divide([1.0, 2.0], 4.0)
    Tensor([0.25, 0.5 ], dtype=float64)
    """


@_of_ufunc(np.negative)
def negative(x: Any, /) -> Any:
    """``-x``.

    Examples
    --------
    >>> negative([1.0, 2.0])
    Tensor([-1., -2.], dtype=float64)
    """


@primitive
def _quotient_sum(g: Any, x: Any, y: Any, /, *, n: int, shape: tuple[int, ...]) -> Any:
    """``g * x / y**n``, summed down (or broadcast) to `shape`."""
    return kernels.quotient_sum(g, x, y, n, shape)


def _product(g: Tensor, x: Any, to: Tensor) -> Tensor:
    """``g * x``, with broadcasting from the shape of `to` undone."""
    shape = to.data.shape
    return g * x if g.data.shape == shape else _quotient_sum(g, x, 1.0, n=0, shape=shape)


def _quotient(g: Tensor, x: Any, y: Any) -> Tensor:
    """``g / y``, with broadcasting from the shape of `x` undone."""
    shape = x.data.shape
    return g / y if g.data.shape == shape else _quotient_sum(g, 1.0, y, n=1, shape=shape)


subtract.defvjp(lambda g, out, x, y: unbroadcast(g, x), lambda g, out, x, y: unbroadcast(-g, y))
multiply.defvjp(lambda g, out, x, y: _product(g, y, x), lambda g, out, x, y: _product(g, x, y))
divide.defvjp(
    lambda g, out, x, y: _quotient(g, x, y),
    lambda g, out, x, y: -_quotient_sum(g, x, y, n=2, shape=y.data.shape),
)
_quotient_sum.defvjp(
    lambda h, out, g, x, y, n, shape: _quotient_sum(h, x, y, n=n, shape=g.shape),
    lambda h, out, g, x, y, n, shape: _quotient_sum(h, g, y, n=n, shape=x.shape),
    lambda h, out, g, x, y, n, shape: -n * _quotient_sum(h * g, x, y, n=n + 1, shape=y.shape),
)
negative.defvjp(lambda g, out, x: -g)


# Functions of one variable --------------------------------------------------------------------------------------------
@_of_ufunc(np.exp)
def exp(x: Any, /) -> Any:
    """e to the power of ``x``.

    Examples
    --------
    >>> exp([0.0])
    Tensor([1.], dtype=float64)
    """


@_of_ufunc(np.log)
def log(x: Any, /) -> Any:
    """Natural logarithm.

    Examples
    --------
    >>> log([1.0])
    Tensor([0.], dtype=float64)
    """


@_of_ufunc(np.sqrt)
def sqrt(x: Any, /) -> Any:
    """Square root.

    Examples
    --------
    >>> sqrt([9.0])
    Tensor([3.], dtype=float64)
    """


@_of_ufunc(np.sin)
def sin(x: Any, /) -> Any:
    """Sine of radians.

    Examples
    --------
    >>> sin([0.0])
    Tensor([0.], dtype=float64)
    """


@_of_ufunc(np.cos)
def cos(x: Any, /) -> Any:
    """Cosine of radians.

    Examples
    --------
    >>> cos([0.0])
    Tensor([1.], dtype=float64)
    """


@_of_ufunc(np.tanh)
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
    return np.where(np.greater_equal(x, 0), 1, small) / (1 + small)


@_of_ufunc(np.abs)
def abs(x: Any, /) -> Any:
    """Absolute value; its derivative at 0 is 0.

    Examples
    --------
    >>> abs([-2.0])
    Tensor([2.], dtype=float64)
    """


@_of_ufunc(np.sign)
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
def _where_positive(g: Any, x: Any, /) -> Any:
    """``g`` where ``x`` is positive, else 0."""
    return kernels.relu_gradient(g, x)


@primitive
def _times_exp(g: Any, x: Any, e: Any, /) -> Any:
    """``g * exp(x)``, where ``e`` is ``exp(x)``."""
    return kernels.times_exp(g, x, e)


@primitive
def _times_sech2(g: Any, x: Any, /, *, scale: float) -> Any:
    """``g`` times the derivative of ``scale * tanh(scale * x)``."""
    return kernels.times_sech2(g, x, scale)


exp.defvjp(lambda g, out, x: _times_exp(g, x, out))
_times_exp.defvjp(
    lambda h, out, g, x, e: _times_exp(h, x, e), lambda h, out, g, x, e: _times_exp(h * g, x, e), None
)
log.defvjp(lambda g, out, x: g / x)
sqrt.defvjp(lambda g, out, x: g / (2 * out))
sin.defvjp(lambda g, out, x: g * cos(x))
cos.defvjp(lambda g, out, x: -g * sin(x))
tanh.defvjp(lambda g, out, x: _times_sech2(g, x, scale=1.0))
sigmoid.defvjp(lambda g, out, x: _times_sech2(g, x, scale=0.5))
_times_sech2.defvjp(
    lambda h, out, g, x, scale: _times_sech2(h, x, scale=scale),
    lambda h, out, g, x, scale: _times_sech2(h * tanh(x * scale) * (-2 * scale), x, scale=scale) * g,
)
abs.defvjp(lambda g, out, x: g * sign(x))
sign.defvjp(lambda g, out, x: g * np.zeros_like(x.data))
relu.defvjp(lambda g, out, x: _where_positive(g, x))
_where_positive.defvjp(lambda h, out, g, x: _where_positive(h, x), None)


# Comparisons, without a gradient --------------------------------------------------------------------------------------
@_of_ufunc(np.greater)
def greater(x: Any, y: Any, /) -> Any:
    """``x > y``.

    Examples
    --------
    >>> greater([1, 2], [2, 2])
    Tensor([False, False], dtype=bool)
    """


@_of_ufunc(np.greater_equal)
def greater_equal(x: Any, y: Any, /) -> Any:
    """``x >= y``.

    Examples
    --------
    >>> greater_equal([1, 2], [2, 2])
    Tensor([False,  True], dtype=bool)
    """


@_of_ufunc(np.less)
def less(x: Any, y: Any, /) -> Any:
    """``x < y``.

    Examples
    --------
    >>> less([1, 2], [2, 2])
    Tensor([ True, False], dtype=bool)
    """


@_of_ufunc(np.less_equal)
def less_equal(x: Any, y: Any, /) -> Any:
    """``x <= y``.

    Examples
    --------
    >>> less_equal([1, 2], [2, 2])
    Tensor([ True,  True], dtype=bool)
    """


@_of_ufunc(np.equal)
def equal(x: Any, y: Any, /) -> Any:
    """``x == y``.

    Examples
    --------
    >>> equal([1, 2], [2, 2])
    Tensor([False,  True], dtype=bool)
    """


@_of_ufunc(np.not_equal)
def not_equal(x: Any, y: Any, /) -> Any:
    """``x != y``.

    Examples
    --------
    >>> not_equal([1, 2], [2, 2])
    Tensor([ True, False], dtype=bool)
    """


@_of_ufunc(np.logical_and)
def logical_and(x: Any, y: Any, /) -> Any:
    """Whether both are true.

    Examples
    --------
    >>> logical_and([True, True], [False, True])
    Tensor([False,  True], dtype=bool)
    """


for _comparison in (greater, greater_equal, less, less_equal, equal, not_equal, logical_and):
    _comparison.defvjp(None, None)


# Choices and powers ---------------------------------------------------------------------------------------------------
@_of_ufunc(np.maximum)
def maximum(x: Any, y: Any, /) -> Any:
    """The larger; where both are equal, ``x`` gets the gradient.

    Examples
    --------
    >>> maximum([1.0, 5.0], 3.0)
    Tensor([3., 5.], dtype=float64)
    """


@_of_ufunc(np.minimum)
def minimum(x: Any, y: Any, /) -> Any:
    """The smaller; where both are equal, ``x`` gets the gradient.

    Examples
    --------
    >>> minimum([1.0, 5.0], 3.0)
    Tensor([1., 3.], dtype=float64)
    """


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
    lambda g, out, x, y: unbroadcast(g * greater_equal(x, y), x),
    lambda g, out, x, y: unbroadcast(g * less(x, y), y),
)
minimum.defvjp(
    lambda g, out, x, y: unbroadcast(g * less_equal(x, y), x),
    lambda g, out, x, y: unbroadcast(g * greater(x, y), y),
)
where.defvjp(
    None,
    lambda g, out, condition, x, y: unbroadcast(where(condition, g, 0), x),
    lambda g, out, condition, x, y: unbroadcast(where(condition, 0, g), y),
)


@primitive
def power(x: Any, y: Any, /) -> Any:
    """``x ** y``; the gradient with respect to ``y`` is 0 where ``x`` is 0.

    Examples
    --------
    >>> power([1.0, 2.0], 3)
    Tensor([1., 8.], dtype=float64)
    """
    return x**y


@primitive
def _power_by_base(g: Any, x: Any, y: Any, /) -> Any:
    """``g * y * x**(y - 1)``, and 0 where ``y`` is 0."""
    return kernels.power_by_base(g, x, y)


@primitive
def _power_by_exponent(g: Any, x: Any, y: Any, /) -> Any:
    """``g * x**y * log(x)``, and 0 where ``x`` is 0."""
    return kernels.power_by_exponent(g, x, y)


def _below(x: Any, y: Any) -> Tensor:
    """``x ** (y - 1)``; where x and y are both 0, the base is replaced by 1, so that 0 * 0 ** -1 is 0."""
    return power(where(logical_and(equal(x, 0), equal(y, 0)), 1.0, x), y - 1)


power.defvjp(
    lambda g, out, x, y: unbroadcast(_power_by_base(g, x, y), x),
    lambda g, out, x, y: unbroadcast(_power_by_exponent(g, x, y), y),
)
_power_by_base.defvjp(
    lambda h, out, g, x, y: _power_by_base(h, x, y),
    lambda h, out, g, x, y: unbroadcast(_power_by_base(h * g * y, x, where(equal(y, 0), 1.0, y) - 1), x),
    lambda h, out, g, x, y: unbroadcast(h * g * _below(x, y) + _power_by_exponent(h * g * y, x, y - 1), y),
)
_power_by_exponent.defvjp(
    lambda h, out, g, x, y: _power_by_exponent(h, x, y),
    lambda h, out, g, x, y: unbroadcast(h * g * _below(x, y) + _power_by_exponent(h * g * y, x, y - 1), x),
    lambda h, out, g, x, y: unbroadcast(_power_by_exponent(h * g * log(where(equal(x, 0), 1.0, x)), x, y), y),
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


# Methods of Tensor ----------------------------------------------------------------------------------------------------
def _operator(op: Primitive[[Any, Any]]) -> Callable[[Any, Any], Tensor]:
    """Make an operator of a binary op, with a short cut between Tensors where there is nothing to record.

    Rules are made of operators: with the short cut (1.1 instead of 1.7 µs) a backward pass through small Tensors is a
    fifth faster. Everything else, errors included, is left to the op.
    """
    forward, call = op.forward, op.__call__

    def operator(x: Tensor, y: Any) -> Tensor:
        if type(y) is Tensor and not (mode.recording and (x.requires_grad or y.requires_grad)) and hooks.active is None:
            try:
                return wrap(np.asarray(forward(x.data, y.data)))
            except (ValueError, TypeError):  # the op explains them
                pass
        return call(x, y)

    return operator


def _reflected(op: Primitive[[Any, Any]]) -> Callable[[Any, Any], Tensor]:
    return lambda x, y: op(y, x)


@attach
class ElementwiseMethods:
    """Methods of `Tensor` that are defined here."""

    __add__, __radd__ = _operator(add), _reflected(add)
    __sub__, __rsub__ = _operator(subtract), _reflected(subtract)
    __mul__, __rmul__ = _operator(multiply), _reflected(multiply)
    __truediv__, __rtruediv__ = _operator(divide), _reflected(divide)
    __pow__, __rpow__ = _operator(power), _reflected(power)
    __lt__, __le__, __gt__, __ge__ = less, less_equal, greater, greater_equal
    __hash__ = object.__hash__
    __neg__ = negative
    abs = abs
    exp = exp
    log = log
    sqrt = sqrt
    tanh = tanh
    sigmoid = sigmoid
    relu = relu
    clip = clip

    def __abs__(self) -> Tensor:
        return abs(self)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy and PyTorch
        return equal(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]  # as __eq__
        return not_equal(self, other)
