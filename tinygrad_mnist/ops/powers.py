"""Powers, and their derivatives over the whole range of exponents."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..record import primitive, unbroadcast
from ..tensor import Tensor, attach
from .elementwise import log, where
from .logic import equal, logical_and
from .operators import both_ways, in_place, in_rules, in_single

__all__ = ["power"]


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
def _base_gradient(g: Any, x: Any, y: Any, /) -> Any:
    """``g * y * x**(y - 1)``, and 0 where ``y`` is 0."""
    return kernels.power_by_base(g, x, y)


@primitive
def _exponent_gradient(g: Any, x: Any, y: Any, /) -> Any:
    """``g * x**y * log(x)``, and 0 where ``x`` is 0."""
    return kernels.power_by_exponent(g, x, y)


_power_by_base = in_rules(_base_gradient)
_power_by_exponent = in_rules(_exponent_gradient)


def _one_less(y: Any) -> Any:
    """``y - 1``, and 0 where y is 0: the power is constant there."""
    return where(y == 0, 1.0, y) - 1 if isinstance(y, Tensor) else y - 1 if y else y


def _lower_power(x: Any, y: Any) -> Tensor:
    """``x ** (y - 1)``; where x and y are both 0, the base is replaced by 1, so that 0 * 0 ** -1 is 0."""
    return power(where(logical_and(equal(x, 0), equal(y, 0)), 1.0, x), y - 1)


power.defvjp(
    lambda g, out, x, y: unbroadcast(_power_by_base(g, x, y), x),
    lambda g, out, x, y: unbroadcast(_power_by_exponent(g, x, y), y),
)
_base_gradient.defvjp(
    lambda h, out, g, x, y: _power_by_base(h, x, y),
    in_single(lambda h, out, g, x, y: unbroadcast(_power_by_base(h * g * y, x, _one_less(y)), x)),
    in_single(
        lambda h, out, g, x, y: unbroadcast(h * g * _lower_power(x, y) + _power_by_exponent(h * g * y, x, y - 1), y)
    ),
)
_exponent_gradient.defvjp(
    lambda h, out, g, x, y: _power_by_exponent(h, x, y),
    in_single(
        lambda h, out, g, x, y: unbroadcast(h * g * _lower_power(x, y) + _power_by_exponent(h * g * y, x, y - 1), x)
    ),
    in_single(
        lambda h, out, g, x, y: unbroadcast(_power_by_exponent(h * g * log(where(equal(x, 0), 1.0, x)), x, y), y)
    ),
)


@attach
class PowerMethods:
    """Methods of `Tensor` that are defined here."""

    __pow__, __rpow__ = both_ways(power)
    __ipow__ = in_place(power)
