"""Reverse-mode automatic differentiation in NumPy, and a convolutional network trained with it.

Every op is a function here (``tg.exp``, ``tg.conv2d``) and the common ones are methods of `Tensor`, too. Gradients of
every order are derived from the vector-Jacobian products that stand beside the ops.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import backward, ops, record, tensor
from ._version import __version__ as __version__
from .backward import *
from .debug.anomaly import AnomalyError as AnomalyError
from .debug.anomaly import detect_anomaly as detect_anomaly
from .debug.config import show_config as show_config
from .debug.graph import graph as graph
from .debug.graph import to_dot as to_dot
from .debug.profiler import Profile as Profile
from .debug.summary import summary as summary
from .kernels import compiled
from .ops import *
from .ops import linalg as linalg
from .record import *
from .tensor import *

native = compiled

if TYPE_CHECKING:  # type checkers take what is imported
    from . import data as data
    from . import explain as explain
    from . import export as export
    from . import func as func
    from . import nn as nn
    from . import optim as optim
    from . import testing as testing
    from . import train as training
    from .storage import checkpoint as checkpoint
    from .train import runs as runs
    from .train import schedules as schedules
    from .train import shards as parallel
else:
    LATER = {  # imported when they are asked for: two thirds of the time that all of it takes
        "checkpoint": "storage.checkpoint",
        "data": "data",
        "explain": "explain",
        "export": "export",
        "func": "func",
        "nn": "nn",
        "optim": "optim",
        "parallel": "train.shards",
        "runs": "train.runs",
        "schedules": "train.schedules",
        "testing": "testing",
        "training": "train",
    }
    __all__ = ["AnomalyError", "Profile", "detect_anomaly", "graph", "linalg", "show_config", "summary", "to_dot"]
    __all__ += [*LATER]
    __all__ += [*tensor.__all__, *record.__all__, *backward.__all__, *ops.__all__]

    def __getattr__(name: str) -> Any:
        if name in LATER:
            globals()[name] = import_module(f"{__name__}.{LATER[name]}")
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
