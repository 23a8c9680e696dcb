"""Converters of what softmax is made of."""

from __future__ import annotations

from collections.abc import Sequence

from ...ops import scores
from ...ops.reduction import Axis
from .formulas import Term, exp, formula, select, where

__all__: list[str] = []


def _axes(axis: Axis) -> Sequence[int] | None:
    return (axis,) if isinstance(axis, int) else axis


def _heavy(shifted: Term, axis: Axis) -> Term:
    """Whether an exponential outweighs all others along an axis."""
    e = exp(shifted)
    return 2 * e > e.reduce("ReduceSum", _axes(axis))


@formula(scores._shift)
def _shift(x: Term, top: Term, axis: Axis) -> Term:
    return x - top


@formula(scores._balance)
def _balance(g: Term, shifted: Term, axis: Axis) -> Term:
    heavy = _heavy(shifted, axis)
    others = where(heavy, 0, g).reduce("ReduceSum", _axes(axis))
    return where(heavy, -others, g)


@formula(scores._spread)
def _spread(h: Term, shifted: Term, axis: Axis) -> Term:
    heavy = _heavy(shifted, axis)
    return where(heavy, 0, h - select(h, heavy).reduce("ReduceSum", _axes(axis)))
