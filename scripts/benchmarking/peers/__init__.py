"""The 21-layer network and its training step in several frameworks, each written as its own documentation does.

All compute the same: uint8 images (N, 28, 28) and integer labels (N,) as input; He initialization; dropout of hidden
units and logits, scaled at inference (inverted dropout times 1 - p, in training and inference); AdaGrad with learning
rate 0.01 (Keras adds epsilon inside the root). Every framework also has one convolution in `benchmarking.convolutions`,
where shapes are compared. Some can also be trained by a recipe (`Peer.by_recipe`): without dropout, with Muon and
AdamW, label smoothing, averaged weights, and a first convolution whose filters are given and stay.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib import metadata

from .autograd import Autograd
from .base import CHAIN_LENGTH, ROOT, Peer
from .jax import Jax
from .layered import Layered
from .mygrad import MyGrad
from .ours import Ours, OursInNumPy, PlainLoop, Stack
from .pytorch import PyTorch, PyTorchBfloat16, PyTorchChannelsLast
from .tensorflow import TensorFlow
from .tinygrad import Tinygrad

__all__ = ["CHAIN_LENGTH", "PEERS", "ROOT", "Layered", "Ours", "Peer", "Stack", "version"]

PEERS: dict[str, type[Peer]] = {
    "tinygrad_mnist": Ours,
    "tinygrad_mnist-loop": PlainLoop,
    "tinygrad_mnist-numpy": OursInNumPy,
    "pytorch": PyTorch,
    "pytorch-channels-last": PyTorchChannelsLast,
    "pytorch-bfloat16": PyTorchBfloat16,
    "tensorflow": TensorFlow,
    "jax": Jax,
    "autograd": Autograd,
    "mygrad": MyGrad,
    "tinygrad": Tinygrad,
    "layered-numpy": Layered,
}


def version(name: str) -> str | None:
    """Return the version of a peer's framework, or None if it is not installed, without importing it."""
    package = PEERS[name].package
    if issubclass(PEERS[name], Ours):
        sys.path.insert(0, str(ROOT))
        return str(importlib.import_module(package).__version__)
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return metadata.version(metadata.packages_distributions().get(package, [package])[0])
    except metadata.PackageNotFoundError:  # a folder on the path
        return "of unknown version"
