"""Convolutions of other kinds: conv1d, conv_transpose2d."""

from __future__ import annotations

__all__: list[str] = []
