"""The training loop, shards on threads, evaluation and run folders."""

from .callbacks import *
from .evaluation import *
from .trainer import *
