"""Property-test gradients, those of your own ops too: `check_gradients`, `adjoint_check`, and Hypothesis strategies for their inputs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .gradients import *

if TYPE_CHECKING:
    from .strategies import *


def __getattr__(name: str) -> Any:  # strategies are looked for when they are asked for, because the core imports without Hypothesis
    if name.startswith("__"):
        raise AttributeError(name)
    strategies = import_module(f"{__name__}.strategies")
    if name not in strategies.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(strategies, name)
