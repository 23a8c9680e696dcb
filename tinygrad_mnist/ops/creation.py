"""New Tensors: zeros, ones, full, arange, eye, and their likes."""

from __future__ import annotations

__all__: list[str] = []
