"""Optimizers: SGD, AdaGrad, Adam, AdamW, Muon."""

from . import methods, muon
from .methods import *
from .muon import *
from .optimizer import Optimizer as Optimizer

__all__ = [*methods.__all__, *muon.__all__]
