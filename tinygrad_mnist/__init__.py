"""Reverse-mode automatic differentiation in NumPy, and a convolutional network trained with it.

Every op is a function here (``tg.exp``, ``tg.conv2d``) and the common ones are methods of `Tensor`, too. Gradients of
every order are derived from the vector-Jacobian products that stand beside the ops.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import data, nn, optim
from . import train as training
from ._version import __version__
from .conv import *
from .debug.anomaly import *
from .debug.config import *
from .debug.graph import *
from .debug.profiler import *
from .functional import *
from .kernels import compiled as native
from .ops import *
from .storage import checkpoint
from .tensor import *
from .train import runs, schedules
from .train import shards as parallel

if TYPE_CHECKING:
    from . import testing as testing


def __getattr__(name: str) -> _Any:  # what training does not need is imported when it is asked for: 15 of 60 ms
    if name == "testing":
        return _import_module(f"{__name__}.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "testing"})
