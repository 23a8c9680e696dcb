"""The training loop, shards on threads, evaluation and run folders."""

from ..data.splitting import hold_out
from . import callbacks
from .calibration import calibration_error, fit_temperature
from .callbacks import *
from .evaluation import Evaluation, accuracy, evaluate, predict
from .inference import outputs
from .mistakes import plot_mistakes
from .plots import plot_curves
from .selection import best_epoch, should_stop
from .trainer import Step, Trainer, fit

__all__ = [
    "Evaluation",
    "Step",
    "Trainer",
    "accuracy",
    "best_epoch",
    "calibration_error",
    "evaluate",
    "fit",
    "fit_temperature",
    "hold_out",
    "outputs",
    "plot_curves",
    "plot_mistakes",
    "predict",
    "should_stop",
]
__all__ += callbacks.__all__
