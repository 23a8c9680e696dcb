"""Check gradients, those of your own ops too.

`check_gradients`, `check_model`, `adjoint_check`, and Hypothesis strategies for their inputs; the manual is in
README.md here.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import adjoint as _adjoint
from . import gradients as _gradients
from . import models as _models
from .adjoint import *
from .gradients import *
from .models import *

if TYPE_CHECKING:
    from .program import *
    from .strategies import *

_STRATEGIES = [
    "arrays",
    "axes",
    "broadcastable_shapes",
    "conv_geometries",
    "indices",
    "matmul_operands",
    "permutations",
]
_PROGRAMS = ["Program", "programs"]


def __getattr__(name: str) -> _Any:  # strategies are imported when they are asked for: they need Hypothesis
    if name not in _STRATEGIES + _PROGRAMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{'strategies' if name in _STRATEGIES else 'program'}"), name)


def __dir__() -> list[str]:
    return sorted([*_adjoint.__all__, *_gradients.__all__, *_models.__all__, *_STRATEGIES, *_PROGRAMS])
