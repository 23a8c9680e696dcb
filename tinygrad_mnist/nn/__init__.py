"""Layers as plain callables, initialisation, and the parameters of a model."""

from ..walk import parameters
from . import initialization, layers, state
from .initialization import *
from .layers import *
from .state import *

__all__ = ["parameters"]
__all__ += initialization.__all__
__all__ += layers.__all__
__all__ += state.__all__


def __dir__() -> list[str]:
    return sorted(__all__)
