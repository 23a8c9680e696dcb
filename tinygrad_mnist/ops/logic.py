"""Comparisons, logic and bits, whose results carry no gradient; a Tensor as a truth value and as an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import WORDS
from ..tensor import NUMERIC, Tensor, attach, wrap
from .operators import Binary, Operator, both_ways, of_ufunc, operator

__all__ = [
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "invert",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
]


# Comparisons ----------------------------------------------------------------------------------------------------------
@of_ufunc(np.greater)
def greater(x: Any, y: Any, /) -> Any:
    """``x > y``.

    Examples
    --------
    >>> greater([1, 2], [2, 2])
    Tensor([False, False], dtype=bool)
    """


@of_ufunc(np.greater_equal)
def greater_equal(x: Any, y: Any, /) -> Any:
    """``x >= y``.

    Examples
    --------
    >>> greater_equal([1, 2], [2, 2])
    Tensor([False,  True], dtype=bool)
    """


@of_ufunc(np.less)
def less(x: Any, y: Any, /) -> Any:
    """``x < y``.

    Examples
    --------
    >>> less([1, 2], [2, 2])
    Tensor([ True, False], dtype=bool)
    """


@of_ufunc(np.less_equal)
def less_equal(x: Any, y: Any, /) -> Any:
    """``x <= y``.

    Examples
    --------
    >>> less_equal([1, 2], [2, 2])
    Tensor([ True,  True], dtype=bool)
    """


@of_ufunc(np.equal)
def equal(x: Any, y: Any, /) -> Any:
    """``x == y``.

    Examples
    --------
    >>> equal([1, 2], [2, 2])
    Tensor([False,  True], dtype=bool)
    """


@of_ufunc(np.not_equal)
def not_equal(x: Any, y: Any, /) -> Any:
    """``x != y``.

    Examples
    --------
    >>> not_equal([1, 2], [2, 2])
    Tensor([ True, False], dtype=bool)
    """


# Logic and bits -------------------------------------------------------------------------------------------------------
@of_ufunc(np.bitwise_and)
def bitwise_and(x: Any, y: Any, /) -> Any:
    """``x & y``: the bits that both have; of booleans, whether both are true.

    Examples
    --------
    >>> bitwise_and([True, True], [False, True])
    Tensor([False,  True], dtype=bool)
    """


@of_ufunc(np.bitwise_or)
def bitwise_or(x: Any, y: Any, /) -> Any:
    """``x | y``: the bits that either has; of booleans, whether one is true.

    Examples
    --------
    >>> bitwise_or([1, 2], 4)
    Tensor([5, 6], dtype=int64)
    """


@of_ufunc(np.bitwise_xor)
def bitwise_xor(x: Any, y: Any, /) -> Any:
    """``x ^ y``: the bits that one has and the other has not; of booleans, whether they differ.

    Examples
    --------
    >>> bitwise_xor([True, True], [False, True])
    Tensor([ True, False], dtype=bool)
    """


@of_ufunc(np.invert)
def invert(x: Any, /) -> Any:
    """``~x``: every bit the other way round; of booleans, whether it is false.

    Examples
    --------
    >>> invert([True, False])
    Tensor([False,  True], dtype=bool)
    """


@of_ufunc(np.logical_and)
def logical_and(x: Any, y: Any, /) -> Any:
    """Whether both are true.

    Examples
    --------
    >>> logical_and([True, True], [False, True])
    Tensor([False,  True], dtype=bool)
    """


@of_ufunc(np.logical_or)
def logical_or(x: Any, y: Any, /) -> Any:
    """Whether one is true (not zero).

    Examples
    --------
    >>> logical_or([1.0, 0.0], [0.0, 0.0])
    Tensor([ True, False], dtype=bool)
    """


@of_ufunc(np.logical_xor)
def logical_xor(x: Any, y: Any, /) -> Any:
    """Whether one is true (not zero) and the other is not.

    Examples
    --------
    >>> logical_xor([1.0, 0.0], [2.0, 3.0])
    Tensor([False,  True], dtype=bool)
    """


@of_ufunc(np.logical_not)
def logical_not(x: Any, /) -> Any:
    """Whether it is false (zero).

    Examples
    --------
    >>> logical_not([1.0, 0.0])
    Tensor([False,  True], dtype=bool)
    """


for _binary in (bitwise_and, bitwise_or, bitwise_xor, logical_and, logical_or, logical_xor):
    _binary.defvjp(None, None)
for _compare in (equal, greater, greater_equal, less, less_equal, not_equal):
    _compare.defvjp(None, None)
invert.defvjp(None)
logical_not.defvjp(None)


# Methods of Tensor ----------------------------------------------------------------------------------------------------
def _comparison(op: Binary, of_arrays: Callable[[Any, Any], Any]) -> Operator:
    """Make ``==`` or ``!=``, elementwise as in NumPy and PyTorch; a Tensor equals no string, and not None."""
    compare = operator(op)

    def call_op(x: Tensor, y: Any) -> Tensor:
        if isinstance(y, WORDS):
            return NotImplemented  # type: ignore[no-any-return]  # Python's operators know it
        try:
            return compare(x, y)
        except TypeError:
            values = np.asarray(y)
            if values.dtype.kind in NUMERIC:
                raise
            return wrap(np.asarray(of_arrays(x._array, values)))  # text, complex numbers, dates

    return call_op


_equals, _differs = _comparison(equal, lambda x, y: x == y), _comparison(not_equal, lambda x, y: x != y)


@attach
class LogicMethods:
    """Methods of `Tensor` that are defined here."""

    __lt__, __le__ = operator(less), operator(less_equal)
    __gt__, __ge__ = operator(greater), operator(greater_equal)
    __hash__ = object.__hash__
    __and__, __rand__ = both_ways(bitwise_and)
    __or__, __ror__ = both_ways(bitwise_or)
    __xor__, __rxor__ = both_ways(bitwise_xor)
    __invert__ = invert

    def __eq__(self: Any, other: Any) -> Tensor:  # type: ignore[override]  # no bool
        return _equals(self, other)

    def __ne__(self: Any, other: Any) -> Tensor:  # type: ignore[override]  # no bool
        return _differs(self, other)

    def __bool__(self: Any) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth value of a Tensor of shape {self.shape} is ambiguous: it has {self.size} values; use "
                ".any() or .all()"
            )
        return bool(self.item())

    def __contains__(self, value: Any) -> bool:
        """Whether some element equals `value`, as in NumPy."""
        found = self == value
        return bool(found.data.any()) if isinstance(found, Tensor) else False

    def __index__(self: Any) -> int:
        """Return the only value, an integer, where Python wants one: ``names[t.argmax()]``, ``range(t)``."""
        if self.size != 1 or self.dtype.kind not in "biu":
            raise TypeError(
                f"a Tensor of {self.dtype} and shape {self.shape} cannot be used as an index; only a single integer "
                "can: use int(...), or .astype(int) for arrays of indices"
            )
        return int(self.item())
