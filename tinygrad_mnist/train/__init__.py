"""The training loop, shards on threads, evaluation and run folders."""

from .evaluation import *
from .trainer import *
