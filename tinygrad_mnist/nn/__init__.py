"""Layers as plain callables, initialization, and the state of a model."""

from typing import TYPE_CHECKING

from . import buffer, initialization, layers, state
from .buffer import *
from .initialization import *
from .layers import *
from .state import *

if not TYPE_CHECKING:  # type checkers take what is imported above
    __all__ = [*buffer.__all__, *initialization.__all__, *layers.__all__, *state.__all__]

    def __dir__() -> list[str]:
        return sorted(__all__)
