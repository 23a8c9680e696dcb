"""Reverse-mode automatic differentiation in NumPy, and a convolutional network trained with it.

Every op is a function here (``tg.exp``, ``tg.conv2d``) and the common ones are methods of `Tensor`, too. Gradients of every order are
derived from the vector-Jacobian products that stand beside the ops.
"""

from . import checkpoint as checkpoint
from . import data as data
from . import nn as nn
from . import optim as optim
from . import parallel as parallel
from . import testing as testing
from . import training as training
from .conv import *
from .functional import *
from .ops import *
from .tensor import *

__version__ = "0.1.0"
