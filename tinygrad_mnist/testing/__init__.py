"""Property-test gradients, those of your own ops too.

`check_gradients`, `adjoint_check`, and Hypothesis strategies for their inputs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .adjoint import *
from .gradients import *

if TYPE_CHECKING:
    from .program import *
    from .strategies import *


def __getattr__(
    name: str,
) -> Any:  # strategies are looked for when they are asked for, because the core imports without Hypothesis
    for module in () if name.startswith("__") else ("strategies", "program"):
        found = import_module(f"{__name__}.{module}")
        if name in found.__all__:
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
