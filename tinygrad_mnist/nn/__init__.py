"""Layers as plain callables, initialization, and the state of a model."""

from typing import TYPE_CHECKING

from . import activations, buffer, convolution, initialization, layers, normalization, state
from .activations import *
from .buffer import *
from .convolution import *
from .initialization import *
from .layers import *
from .normalization import *
from .state import *

if not TYPE_CHECKING:  # type checkers take what is imported above
    __all__ = [*activations.__all__, *buffer.__all__, *convolution.__all__, *initialization.__all__, *layers.__all__]
    __all__ += [*normalization.__all__, *state.__all__]

    def __dir__() -> list[str]:
        return sorted(__all__)
