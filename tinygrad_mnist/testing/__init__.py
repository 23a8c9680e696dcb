"""Check gradients, those of your own ops too.

`check_gradients`, `adjoint_check`, and Hypothesis strategies for their inputs; the manual is in README.md here.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from .adjoint import *
from .gradients import *

if TYPE_CHECKING:
    from .program import *
    from .strategies import *


def __getattr__(name: str) -> _Any:  # strategies are imported when they are asked for: they need Hypothesis
    for module in () if name.startswith("__") else ("strategies", "program"):
        found = _import_module(f"{__name__}.{module}")
        if name in found.__all__:
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
