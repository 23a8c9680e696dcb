"""Sums of products over named axes: einsum, tensordot, dot, outer, trace."""

from __future__ import annotations

from ..tensor import attach

__all__: list[str] = []


@attach
class ContractionMethods:
    """Methods of `Tensor` that are defined here."""
