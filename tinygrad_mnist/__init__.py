"""Reverse-mode automatic differentiation in NumPy, and a convolutional network trained with it.

Every op is a function here (``tg.exp``, ``tg.conv2d``) and the common ones are methods of `Tensor`, too. Gradients of
every order are derived from the vector-Jacobian products that stand beside the ops.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import checkpoint as checkpoint
from . import data as data
from . import nn as nn
from . import optim as optim
from . import parallel as parallel
from . import runs as runs
from . import schedules as schedules
from . import training as training
from .anomaly import *
from .conv import *
from .functional import *
from .graphs import *
from .native import *
from .ops import *
from .profiling import *
from .tensor import *

if TYPE_CHECKING:
    from . import testing as testing

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:  # what training does not need is imported when it is asked for: 15 of 60 ms
    if name == "testing":
        return _import_module(f"{__name__}.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "testing"})
