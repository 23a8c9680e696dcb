"""Elementwise functions of one or two variables beside those of elementwise.py: log1p to isinf."""

from __future__ import annotations

from ..tensor import attach

__all__: list[str] = []


@attach
class FunctionMethods:
    """Methods of `Tensor` that are defined here."""
