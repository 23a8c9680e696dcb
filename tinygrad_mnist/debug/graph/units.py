"""Amounts as people read them."""

from __future__ import annotations

__all__ = ["memory", "quantity", "time"]


def quantity(number: float) -> str:
    """Write a count, large ones with a prefix, such as 1.5 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def memory(number: float) -> str:
    """Write a number of bytes, such as 1.5 MiB."""
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} bytes"


def time(seconds: float) -> str:
    """Write a duration, such as 1.5 ms."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
