"""Normalization of activations: batch, layer and group."""

from __future__ import annotations

__all__: list[str] = []
