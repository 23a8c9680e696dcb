"""Reverse-mode automatic differentiation in NumPy, and a convolutional network trained with it.

Every op is a function here (``tg.exp``, ``tg.conv2d``) and the common ones are methods of `Tensor`, too. Gradients of
every order are derived from the vector-Jacobian products that stand beside the ops.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import backward, ops, record, tensor, train
from . import data as data
from . import func as func
from . import nn as nn
from . import optim as optim
from ._version import __version__ as __version__
from .backward import *
from .debug.anomaly import AnomalyError as AnomalyError
from .debug.anomaly import detect_anomaly as detect_anomaly
from .debug.config import show_config as show_config
from .debug.graph import to_dot as to_dot
from .debug.profiler import Profile as Profile
from .kernels import compiled
from .ops import *
from .ops import linalg as linalg
from .record import *
from .storage import checkpoint as checkpoint
from .tensor import *
from .train import runs as runs
from .train import schedules as schedules
from .train import shards

native = compiled
parallel = shards
training = train

if TYPE_CHECKING:  # type checkers take what is imported
    from . import testing as testing
else:
    __all__ = ["AnomalyError", "Profile", "checkpoint", "data", "detect_anomaly", "func", "linalg", "nn", "optim"]
    __all__ += ["parallel", "runs", "schedules", "show_config", "testing", "to_dot", "training"]
    __all__ += [*tensor.__all__, *record.__all__, *backward.__all__, *ops.__all__]

    def __getattr__(name: str) -> Any:
        if name == "testing":  # imported when it is asked for: 15 of 60 ms
            return import_module(f"{__name__}.testing")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
