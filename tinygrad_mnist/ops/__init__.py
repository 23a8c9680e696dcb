"""The ops, a family in each file. Each op is complete in one place: forward, rules, documentation, method."""

from typing import TYPE_CHECKING

from ..record import add, astype, broadcast_to, sum_to
from . import (
    assignment,
    average,
    conv,
    elementwise,
    indexing,
    linalg,
    logic,
    losses,
    pool,
    powers,
    protocols,
    random,
    reduction,
    shape,
    windows,
)
from .average import *
from .conv import *
from .elementwise import *
from .indexing import *
from .linalg import *
from .logic import *
from .losses import *
from .pool import *
from .powers import *
from .random import *
from .reduction import *
from .shape import *
from .windows import *

FAMILIES = (
    average,
    conv,
    elementwise,
    indexing,
    linalg,
    logic,
    losses,
    pool,
    powers,
    random,
    reduction,
    shape,
    windows,
)

if TYPE_CHECKING:

    class OpMethods(  # what the families attach to Tensor
        assignment.AssignmentMethods,
        elementwise.ElementwiseMethods,
        indexing.IndexingMethods,
        linalg.LinalgMethods,
        logic.LogicMethods,
        losses.LossMethods,
        powers.PowerMethods,
        protocols.ProtocolMethods,
        reduction.ReductionMethods,
        shape.ShapeMethods,
    ): ...

else:  # type checkers take what is imported above
    __all__ = ["add", "astype", "broadcast_to", "sum_to"]  # those that the engine needs itself
    __all__ += [name for family in FAMILIES for name in family.__all__]
    protocols.register({name: globals()[name] for name in __all__})
