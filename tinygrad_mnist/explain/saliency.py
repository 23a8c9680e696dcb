"""The gradient of a logit by the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..backward import grad
from ..tensor import Tensor

__all__ = ["saliency"]


def saliency(model: Any, images: Any, target: Any = None) -> npt.NDArray[np.float32]:
    """Gradient of a logit (by default the largest) of each image by its pixels, of the shape of the images."""
    x = Tensor(np.asarray(images, np.float32) / np.float32(255), requires_grad=True)
    logits = model(x)
    n = len(x.data)
    chosen = logits.data.argmax(axis=1) if target is None else np.broadcast_to(target, (n,))
    (gradient,) = grad(logits[np.arange(n), chosen].sum(), [x])
    return np.asarray(gradient.data)
