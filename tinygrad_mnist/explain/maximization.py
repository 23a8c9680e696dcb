"""What a classifier would need to see for an answer: gradient ascent on the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ascend"]


def ascend(model: Any, images: Any, target: Any, *, steps: int = 1, step_size: float = 0.05) -> npt.NDArray[np.float32]:
    """Move images a few steps along the gradient of the log-probability of a class; floats in [0, 1]."""
    raise NotImplementedError
