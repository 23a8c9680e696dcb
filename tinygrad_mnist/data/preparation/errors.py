"""What is raised for pictures."""

from __future__ import annotations

__all__ = ["ImageError", "NoDigitError"]


class ImageError(ValueError):
    """A picture cannot be read or is not accepted; the message names it, the reason and the remedy."""


class NoDigitError(ImageError):
    """There is no digit in a picture; the message says what there is."""
