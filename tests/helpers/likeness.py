"""How alike two images of digits are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def alike(one: npt.NDArray[Any], two: npt.NDArray[Any]) -> float:
    """The greatest correlation of two images, one of them shifted by a pixel at most."""
    shifted = [np.roll(two, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return max(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for other in shifted)
