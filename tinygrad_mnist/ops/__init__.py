"""The ops, a family in each file. Each op is complete in one place: forward, rules, documentation, method."""

from . import conv, elementwise, indexing, linalg, losses, pool, random, reduction, shape, windows
from .conv import *
from .elementwise import *
from .indexing import *
from .linalg import *
from .losses import *
from .pool import *
from .random import *
from .reduction import *
from .shape import *
from .windows import *

__all__: list[str] = []
__all__ += conv.__all__
__all__ += elementwise.__all__
__all__ += indexing.__all__
__all__ += linalg.__all__
__all__ += losses.__all__
__all__ += pool.__all__
__all__ += random.__all__
__all__ += reduction.__all__
__all__ += shape.__all__
__all__ += windows.__all__
