"""Sorting and picking along an axis: sort, argsort, topk, argmin, take, take_along_axis, one_hot."""

from __future__ import annotations

from ..tensor import attach

__all__: list[str] = []


@attach
class SortingMethods:
    """Methods of `Tensor` that are defined here."""
