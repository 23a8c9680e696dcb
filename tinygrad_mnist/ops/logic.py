"""Logic, bits and whole numbers: results are booleans, integers, or floats that change in steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import defers
from ..record import Primitive, primitive, unbroadcast
from ..tensor import Tensor, attach
from .elementwise import _of_ufunc, _operator, _reflected, where
from .reduction import Axis

__all__ = [
    "all",
    "any",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "floor_divide",
    "invert",
    "logical_not",
    "logical_or",
    "logical_xor",
    "positive",
    "remainder",
    "round",
]


# Logic and bits, without a gradient -----------------------------------------------------------------------------------
@_of_ufunc(np.bitwise_and)
def bitwise_and(x: Any, y: Any, /) -> Any:
    """``x & y``: the bits that both have; of booleans, whether both are true.

    Examples
    --------
    >>> bitwise_and([True, True], [False, True])
    Tensor([False,  True], dtype=bool)
    """


@_of_ufunc(np.bitwise_or)
def bitwise_or(x: Any, y: Any, /) -> Any:
    """``x | y``: the bits that either has; of booleans, whether one is true.

    Examples
    --------
    >>> bitwise_or([1, 2], 4)
    Tensor([5, 6], dtype=int64)
    """


@_of_ufunc(np.bitwise_xor)
def bitwise_xor(x: Any, y: Any, /) -> Any:
    """``x ^ y``: the bits that one has and the other has not; of booleans, whether they differ.

    Examples
    --------
    >>> bitwise_xor([True, True], [False, True])
    Tensor([ True, False], dtype=bool)
    """


@_of_ufunc(np.invert)
def invert(x: Any, /) -> Any:
    """``~x``: every bit the other way round; of booleans, whether it is false.

    Examples
    --------
    >>> invert([True, False])
    Tensor([False,  True], dtype=bool)
    """


@_of_ufunc(np.logical_or)
def logical_or(x: Any, y: Any, /) -> Any:
    """Whether one is true (not zero).

    Examples
    --------
    >>> logical_or([1.0, 0.0], [0.0, 0.0])
    Tensor([ True, False], dtype=bool)
    """


@_of_ufunc(np.logical_xor)
def logical_xor(x: Any, y: Any, /) -> Any:
    """Whether one is true (not zero) and the other is not.

    Examples
    --------
    >>> logical_xor([1.0, 0.0], [2.0, 3.0])
    Tensor([False,  True], dtype=bool)
    """


@_of_ufunc(np.logical_not)
def logical_not(x: Any, /) -> Any:
    """Whether it is false (zero).

    Examples
    --------
    >>> logical_not([1.0, 0.0])
    Tensor([False,  True], dtype=bool)
    """


@primitive
def all(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether all elements over the given axes (None: all axes) are true (not zero).

    Examples
    --------
    >>> all([[True, False], [True, True]], axis=1)
    Tensor([False,  True], dtype=bool)
    """
    return np.all(x, axis=axis, keepdims=keepdims)  # type: ignore[arg-type]  # an op gets tuples, no lists


@primitive
def any(x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether some element over the given axes (None: all axes) is true (not zero).

    Examples
    --------
    >>> any([[True, False], [False, False]], axis=1)
    Tensor([ True, False], dtype=bool)
    """
    return np.any(x, axis=axis, keepdims=keepdims)  # type: ignore[arg-type]  # as in all


for _binary in (bitwise_and, bitwise_or, bitwise_xor, logical_or, logical_xor):
    _binary.defvjp(None, None)
for _unary in (invert, logical_not, all, any):
    _unary.defvjp(None)


# Whole numbers --------------------------------------------------------------------------------------------------------
@_of_ufunc(np.positive)
def positive(x: Any, /) -> Any:
    """``+x``.

    Examples
    --------
    >>> positive([1.0, -2.0])
    Tensor([ 1., -2.], dtype=float64)
    """


@_of_ufunc(np.floor_divide)
def floor_divide(x: Any, y: Any, /) -> Any:
    """``x // y``, the quotient rounded down; its derivatives are 0.

    Examples
    --------
    >>> floor_divide([7.0, -7.0], 2)
    Tensor([ 3., -4.], dtype=float64)
    """


@_of_ufunc(np.remainder)
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


def _nothing(g: Tensor, x: Tensor) -> Tensor:
    """Return zeros of the shape of `x` that were made from `g`, so that they can be differentiated."""
    return unbroadcast(where(False, g, 0), x)


positive.defvjp(lambda g, out, x: g)
floor_divide.defvjp(lambda g, out, x, y: _nothing(g, x), lambda g, out, x, y: _nothing(g, y))
remainder.defvjp(lambda g, out, x, y: unbroadcast(g, x), lambda g, out, x, y: unbroadcast(-g * floor_divide(x, y), y))
round.defvjp(lambda g, out, x, decimals: _nothing(g, x))


# Methods of Tensor ----------------------------------------------------------------------------------------------------
def _either_way(op: Primitive[[Any, Any]]) -> tuple[Callable[[Any, Any], Tensor], Callable[[Any, Any], Tensor]]:
    return _operator(op), _reflected(op)


@attach
class LogicMethods:
    """Methods of `Tensor` that are defined here."""

    __and__, __rand__ = _either_way(bitwise_and)
    __or__, __ror__ = _either_way(bitwise_or)
    __xor__, __rxor__ = _either_way(bitwise_xor)
    __floordiv__, __rfloordiv__ = _either_way(floor_divide)
    __mod__, __rmod__ = _either_way(remainder)
    __invert__ = invert
    __pos__ = positive
    all = all
    any = any
    round = round

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return NotImplemented if defers(other) else (floor_divide(self, other), remainder(self, other))

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return NotImplemented if defers(other) else (floor_divide(other, self), remainder(other, self))

    def __round__(self, decimals: int | None = None) -> Tensor:
        return round(self, decimals or 0)

    def __bool__(self: Any) -> bool:
        if self.size != 1:
            raise ValueError(
                f"a Tensor of shape {self.shape} has {self.size} values, which are not true or false together; use "
                ".any() or .all()"
            )
        return bool(self.item())

    def __contains__(self, value: Any) -> bool:
        """Whether some element equals `value`, as in NumPy."""
        found = self == value
        return bool(any(found)) if isinstance(found, Tensor) else False

    def __index__(self: Any) -> int:
        """Return the only value, an integer, where Python wants one: ``names[t.argmax()]``, ``range(t)``."""
        if self.size != 1 or self.dtype.kind not in "biu":
            raise TypeError(
                f"a Tensor of {self.dtype} and shape {self.shape} is no position; only an integer one with a single "
                "value is: use int(...), or .astype(int) for arrays of positions"
            )
        return int(self.item())
