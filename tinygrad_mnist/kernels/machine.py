"""Facts about the machine: cores, BLAS threads, freed memory."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "cpu_quota",
    "keep_freed_memory",
    "on_one_core",
    "one_blas_thread",
    "one_blas_thread_of_numpy",
    "op_threads",
    "usable_cores",
    "warn_of_blas_threads",
]

VARIABLE = "TINYGRAD_MNIST_THREADS"


def usable_cores() -> int:
    """Return how many cores this process may use.

    The cores of its affinity mask, but no more than the CPU quota of its container (Linux) allows.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, math.ceil(cpu_quota(cores))), 1)


class _Here(threading.local):
    """What holds for the thread that asks."""

    threads = 0  # that an op may use; 0: as many as there are


_here = _Here()


def op_threads() -> int:
    """Return how many threads an op may use where it is called: `TINYGRAD_MNIST_THREADS`, or else the usable cores.

    In a shard it is 1. No bit of a result depends on it.
    """
    return _here.threads or _threads_of_process()


@cache
def _threads_of_process() -> int:
    text = os.environ.get(VARIABLE, "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{VARIABLE} is {text!r}; it must be a number of threads, at least 1, or empty: all cores")
    return int(text) if text else usable_cores()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Let the ops that this thread calls use no other thread."""
    before, _here.threads = _here.threads, 1
    try:
        yield
    finally:
        _here.threads = before


@cache
def cpu_quota(
    default: float, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float:
    """Return the CPU quota, in cores, of the control group of this process and of the groups that contain it.

    `default` if none of them sets a quota.
    """
    try:
        groups = [line.split(":", 2) for line in membership.read_text().splitlines()]  # number:controllers:path
        names = [path for _, controllers, path in groups if not controllers or "cpu" in controllers.split(",")]
    except (OSError, ValueError):  # not Linux
        return default
    quotas = [default]
    for name in names:
        for group in [Path(name.strip("/")), *Path(name.strip("/")).parents]:
            for files in [["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]]:  # cgroup version 2, version 1
                for base in (root, root / "cpu"):
                    try:
                        text = " ".join((base / group / file).read_text() for file in files)
                        quota, period = map(float, text.split())
                    except (OSError, ValueError):  # no such group; "max": no limit
                        continue
                    if quota > 0:
                        quotas.append(quota / period)
    return min(quotas)


_blas_lock = threading.RLock()  # reentrant: the garbage collector may close a generator while its thread holds the lock
_blas_limits: list[Any] = []  # one entry for each active context; the first holds the limit with the original setting


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread for each matrix product, while shards run in parallel; contexts may overlap.

    Needs threadpoolctl (the ``train`` extra); does nothing without it.
    """
    controller = blas_controller()
    with _blas_lock:
        _take_control(controller)
        _blas_limits.append(None if controller is None or _blas_limits else controller.limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _blas_lock:
            limit = _blas_limits.pop()  # the last context to exit gets the first entry
            if limit is not None:
                _take_control(controller)
                limit.restore_original_limits()


class _OpenBLAS:
    """The OpenBLAS that NumPy's own wheels bring; its two functions are in reach of the module that is linked to it."""

    def __init__(self) -> None:
        library: Any = ctypes.CDLL(sys.modules["numpy._core._multiarray_umath"].__file__)
        for affixes in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
            names = [f"openblas_{verb}_num_threads".join(affixes) for verb in ("get", "set")]
            if all(hasattr(library, name) for name in names):
                self.threads, self.set_threads = (getattr(library, name) for name in names)
                return
        raise OSError("NumPy is linked to another BLAS")

    def limit(self) -> _OpenBLAS:
        self.before = self.threads()
        self.set_threads(1)
        return self

    def restore_original_limits(self) -> None:
        self.set_threads(self.before)


@cache
def _openblas() -> _OpenBLAS | None:
    try:
        return _OpenBLAS()
    except (KeyError, OSError):
        return None


@contextmanager
def one_blas_thread_of_numpy() -> Iterator[bool]:
    """Limit NumPy's OpenBLAS to one thread for one product; tell whether it is limited. Takes 3 us, and no package."""
    library = _openblas()
    if library is None:
        yield bool(_blas_limits)
        return
    with _blas_lock:
        _blas_limits.append(None if _blas_limits else library.limit())
    try:
        yield True
    finally:
        with _blas_lock:
            limit = _blas_limits.pop()  # as above
            if limit is not None:
                limit.restore_original_limits()


def _take_control(controller: Any) -> None:
    """Let this thread change the limit: threadpoolctl, since 3.8, silently ignores all threads but the first."""
    for library in controller.lib_controllers if controller is not None else ():
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


@cache
def blas_controller() -> Any:
    """Return a threadpoolctl controller, or None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


@cache
def warn_of_blas_threads() -> None:
    """Warn, once, if nothing limits the threads of BLAS."""
    names = [f"{library}_NUM_THREADS" for library in ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM")]
    if blas_controller() is None and not any(os.environ.get(name) == "1" for name in names):
        warnings.warn(
            "without threadpoolctl, matrix products of several shards may compete for the cores, and be slow; "
            "pip install 'tinygrad_mnist[train]', or set OPENBLAS_NUM_THREADS=1 (or the variable of your BLAS) before "
            "Python starts",
            RuntimeWarning,
            stacklevel=4,
        )


@cache
def keep_freed_memory() -> None:
    """Let the process keep up to 64 MB of freed memory, which saves 900 page faults in each shard, a tenth of its time.

    glibc returns freed memory to the system above a threshold: twice the size of the largest block that was ever freed
    (of those up to 32 MB).
    """
    np.empty(31 << 20, np.uint8)
