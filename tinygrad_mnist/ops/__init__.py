"""The ops, a family in each file. Each op is complete in one place: forward, rules, documentation, method."""

from typing import TYPE_CHECKING

from ..record import add, astype, broadcast_to, sum_to
from . import assignment, conv, elementwise, indexing, linalg, logic, losses, pool, random, reduction, shape, windows
from .conv import *
from .elementwise import *
from .indexing import *
from .linalg import *
from .logic import *
from .losses import *
from .pool import *
from .random import *
from .reduction import *
from .shape import *
from .windows import *

FAMILIES = (conv, elementwise, indexing, linalg, logic, losses, pool, random, reduction, shape, windows)

if TYPE_CHECKING:  # they take what is imported above, and these methods of Tensor

    class OpMethods(
        assignment.AssignmentMethods,
        elementwise.ElementwiseMethods,
        indexing.IndexingMethods,
        linalg.LinalgMethods,
        logic.LogicMethods,
        losses.LossMethods,
        reduction.ReductionMethods,
        shape.ShapeMethods,
    ): ...
else:
    __all__ = ["add", "astype", "broadcast_to", "sum_to"]  # those that the engine needs itself
    __all__ += [name for family in FAMILIES for name in family.__all__]
