"""Axes of images: where the channels are."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

__all__ = ["channels_first"]

FEW = 4  # channels at most, where the axes alone must tell: grey, grey and alpha, RGB, RGBA


def channels_first(
    caller: str, images: npt.NDArray[Any], layout: str | None = None, known: bool = True
) -> npt.NDArray[Any]:
    """Return images as (N, C, H, W), a view.

    Parameters
    ----------
    caller : str
        Who asks: for the errors.
    images : ndarray, shape (N, H, W) of one channel, or (N, C, H, W), or (N, H, W, C)
    layout : {"NCHW", "NHWC"}, optional
        Of images with four axes. By default (N, C, H, W); what looks like (N, H, W, C), by a last axis of at most four
        and a longer second one, is refused.
    known : bool
        Whether the caller takes a `layout`, which that error then names.

    Raises
    ------
    ValueError
        If images have not three or four axes, or are ambiguous, or `layout` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> channels_first("as_input", np.zeros((5, 8, 9))).shape
    (5, 1, 8, 9)
    >>> channels_first("as_input", np.zeros((5, 8, 9, 3)), "NHWC").shape
    (5, 3, 8, 9)
    """
    if layout not in (None, "NCHW", "NHWC"):
        raise ValueError(f"{caller}: layout is {layout!r}; it must be 'NCHW' or 'NHWC'")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        words = "(N, H, W) or (N, C, H, W); pass image[None] for one image"
        raise ValueError(f"{caller}: images have shape {images.shape}; expected {words}")
    if layout is None and images.shape[3] <= FEW < images.shape[1]:
        words = "channels seem to be last; pass images.transpose(0, 3, 1, 2)"
        if known:
            words += ", or layout='NHWC'"
        raise ValueError(f"{caller}: images have shape {images.shape}; {words}")
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" else images
