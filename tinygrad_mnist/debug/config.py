"""Print what the package runs on: versions, compiled kernels, BLAS and cores."""

from __future__ import annotations

import platform

import numpy as np

from .._version import __version__
from ..kernels.compiled import description
from ..kernels.machine import usable_cores

__all__ = ["show_config"]


def show_config() -> None:
    """Print versions, the implementation of the kernels and why it was chosen, the BLAS library, and the usable cores.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> tg.show_config()  # doctest: +ELLIPSIS
    tinygrad_mnist ...
    """
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    print(f"tinygrad_mnist {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"native kernels: {description()}")
    print(f"numpy: {np.__version__}, with {blas['name']} {blas['version']}")
    print(f"usable cores: {usable_cores()}")
