"""How much an answer suffers when a part of the image is covered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["occlusion"]


def occlusion(
    model: Any, images: Any, target: Any = None, *, size: int = 7, stride: int = 2
) -> npt.NDArray[np.float32]:
    """Fall of the probability of a class where a square patch around a pixel is covered by 0; (N, H, W)."""
    raise NotImplementedError
