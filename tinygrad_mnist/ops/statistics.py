"""Statistics and products along axes: var, std, prod, cumsum, cumprod, median."""

from __future__ import annotations

from ..tensor import attach

__all__: list[str] = []


@attach
class StatisticsMethods:
    """Methods of `Tensor` that are defined here."""
