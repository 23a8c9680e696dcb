"""Why a classifier answers as it does: gradients by the pixels, occlusion, feature maps, what it would need to see."""

from __future__ import annotations

from .feature_maps import FeatureMap, feature_maps
from .maximization import ascend
from .occlusion import occlusion
from .saliency import saliency

__all__ = ["FeatureMap", "ascend", "feature_maps", "occlusion", "saliency"]
