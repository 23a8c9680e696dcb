"""Optimizers: SGD, AdaGrad, RMSprop, Adam, AdamW, Muon; gradient clipping."""

from . import clipping, methods, muon
from .clipping import *
from .methods import *
from .muon import *
from .optimizer import Optimizer as Optimizer

__all__ = [*clipping.__all__, *methods.__all__, *muon.__all__]
