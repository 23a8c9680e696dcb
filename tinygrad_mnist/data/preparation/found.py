"""One digit, or a part of one, in a picture."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from .normalization import half_widths
from .paper import Mask

__all__ = ["Found"]


@dataclass
class Found:
    """One digit: its box in the picture and its ink there."""

    top: int
    left: int
    bottom: int  # exclusive
    right: int  # exclusive
    mask: Mask
    touching: bool = False

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def size(self) -> int:
        return max(self.height, self.width)

    @functools.cached_property
    def half_widths(self) -> tuple[float, float]:
        """Half the usual and half the greatest width of its strokes, in pixels."""
        step = max(1, self.size // 100)  # some of the pixels tell
        usual, greatest = half_widths(self.mask[::step, ::step])
        return usual * step, greatest * step
