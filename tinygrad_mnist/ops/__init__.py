"""The ops, a family in each file. Each op is complete in one place: forward, rules, documentation, method."""

from typing import TYPE_CHECKING

from ..record import add, astype, broadcast_to, sum_to
from . import (
    activations,
    arrangement,
    assignment,
    average,
    contraction,
    conv,
    creation,
    elementwise,
    functions,
    indexing,
    linalg,
    logic,
    losses,
    normalization,
    pool,
    powers,
    products,
    protocols,
    random,
    reduction,
    regression,
    scores,
    shape,
    sorting,
    statistics,
    transposed,
    windows,
)
from .activations import *
from .arrangement import *
from .average import *
from .contraction import *
from .conv import *
from .creation import *
from .elementwise import *
from .functions import *
from .indexing import *
from .logic import *
from .losses import *
from .normalization import *
from .pool import *
from .powers import *
from .products import *
from .random import *
from .reduction import *
from .regression import *
from .scores import *
from .shape import *
from .sorting import *
from .statistics import *
from .transposed import *
from .windows import *

FAMILIES = (  # linalg is apart: its ops are tg.linalg.norm and so on
    activations,
    arrangement,
    average,
    contraction,
    conv,
    creation,
    elementwise,
    functions,
    indexing,
    logic,
    losses,
    normalization,
    pool,
    powers,
    products,
    random,
    reduction,
    regression,
    scores,
    shape,
    sorting,
    statistics,
    transposed,
    windows,
)

if TYPE_CHECKING:

    class OpMethods(  # what the families attach to Tensor
        arrangement.ArrangementMethods,
        assignment.AssignmentMethods,
        contraction.ContractionMethods,
        elementwise.ElementwiseMethods,
        functions.FunctionMethods,
        indexing.IndexingMethods,
        logic.LogicMethods,
        powers.PowerMethods,
        products.ProductMethods,
        protocols.ProtocolMethods,
        reduction.ReductionMethods,
        scores.ScoreMethods,
        shape.ShapeMethods,
        sorting.SortingMethods,
        statistics.StatisticsMethods,
    ): ...

else:  # type checkers take what is imported above
    __all__ = ["add", "astype", "broadcast_to", "sum_to"]  # those that the engine needs itself
    __all__ += [name for family in FAMILIES for name in family.__all__]
    protocols.register(
        {name: globals()[name] for name in __all__ if name not in creation.__all__},
        {name: getattr(linalg, name) for name in linalg.__all__},
    )
