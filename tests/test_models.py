"""The 21-layer network: its layers, its inputs, and its gradients against a hand-coded implementation; the second example trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.mlp import MLP

from .layered_reference import LayeredNet
