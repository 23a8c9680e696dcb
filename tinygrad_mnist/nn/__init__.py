"""Layers as plain callables, initialization, and the parameters of a model."""

from typing import TYPE_CHECKING

from ..walk import parameters as parameters
from . import initialization, layers, state
from .initialization import *
from .layers import *
from .state import *

if not TYPE_CHECKING:  # type checkers take what is imported above
    __all__ = ["parameters", *initialization.__all__, *layers.__all__, *state.__all__]

    def __dir__() -> list[str]:
        return sorted(__all__)
