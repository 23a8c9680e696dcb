"""Ops that rearrange elements: flatten to tile, diagonals and triangles."""

from __future__ import annotations

from ..tensor import attach

__all__: list[str] = []


@attach
class ArrangementMethods:
    """Methods of `Tensor` that are defined here."""
