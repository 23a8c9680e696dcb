"""One batch cut into shards of a fixed size, each with its own graph, run on threads (NumPy lets go of the interpreter
in large calls).

Shards have a generator of their own, derived from one draw for the batch and the shard's number, and are summed in
their order: the result is the same to the bit for any number of threads.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..backward import grad
from ..record import recording
from ..tensor import Array, Tensor

__all__ = ["default_shard_size", "map_shards", "usable_cores", "value_and_grad"]

Result = TypeVar("Result")


def value_and_grad(
    loss_fn: Callable[..., Tensor],
    params: Mapping[str, Tensor],
    *arrays: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    shard_size: int | None = None,
    threads: int | None = None,
) -> tuple[float, dict[str, Array]]:
    """Loss of a whole batch and its gradients, computed shard by shard.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(*shards, rng)`` returns the mean loss of one shard, a Tensor with one value.
    params : dict of str to Tensor
        What to differentiate with respect to; see `tinygrad_mnist.nn.parameters`.
    *arrays : array_like
        The batch, such as images and labels; cut along axis 0, where all are equally long.
    rng : numpy.random.Generator, optional
        Advanced by one draw; each shard gets a generator of its own (None without one).
    shard_size : int, optional
        Images in a shard. The result depends on it in the last bits. Left out: what `default_shard_size` says.
    threads : int, optional
        How many shards run at a time; by default one per usable core. The result does not depend on it. More threads
        than shards stay idle: pass a smaller `shard_size` for many cores.

    Returns
    -------
    loss : float
        Mean over the batch.
    grads : dict of str to ndarray

    Examples
    --------
    >>> w = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> value_and_grad(lambda x, rng: (x * w).sum() / len(x), {"w": w}, np.ones((4, 2)), shard_size=2)
    (3.0, {'w': array([1., 1.])})
    """
    wanted = list(params.values())
    arrays = _batch(arrays)
    seed = None if rng is None else rng.integers(2**63, size=2)
    total = len(arrays[0])

    def shard(number: int, *pieces: Array) -> tuple[float, list[Array]]:
        with recording(True):  # also where the caller is in no_grad
            loss = loss_fn(*pieces, None if seed is None else np.random.default_rng([*seed, number]))
        share = len(pieces[0]) / total
        return loss.item() * share, [
            g.data for g in grad(loss, wanted, gradient=np.full_like(loss.data, share), retain_graph=False)
        ]

    value, sums = 0.0, [np.zeros_like(p.data) for p in wanted]
    for part, grads in map_shards(shard, *arrays, shard_size=shard_size, threads=threads):
        value += part
        for running, g in zip(sums, grads, strict=True):
            running += g
    return value, dict(zip(params, sums, strict=True))


def map_shards(
    function: Callable[..., Result], *arrays: npt.ArrayLike, shard_size: int | None = None, threads: int | None = None
) -> Iterator[Result]:
    """Yield ``function(number, *shards)`` of each shard in order, computed on threads with one BLAS thread each.

    An exception in any shard, or Ctrl-C, cancels those that have not begun, waits for the rest and is raised here.
    """
    pieces = _batch(arrays)
    shard_size = default_shard_size(len(pieces[0])) if shard_size is None else shard_size
    if shard_size < 1 or (threads is not None and threads < 1):
        raise ValueError(f"shard_size is {shard_size} and threads is {threads}; both must be at least 1")
    jobs = [(i, *(a[s : s + shard_size] for a in pieces)) for i, s in enumerate(range(0, len(pieces[0]), shard_size))]
    threads = min(threads or usable_cores(), len(jobs))
    _keep_freed_memory()
    if threads > 1 and _blas() is None:
        _warn_of_blas_threads()
    with one_blas_thread():
        if threads == 1:
            yield from (function(*job) for job in jobs)
            return
        from concurrent.futures import ThreadPoolExecutor  # here: it takes 8 ms to import

        with ThreadPoolExecutor(threads, "shard") as pool:
            try:
                futures = [pool.submit(function, *job) for job in jobs]
                while futures:  # a result that was taken is not kept
                    yield futures.pop(0).result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def default_shard_size(batch_size: int) -> int:
    """Cut a batch into nearly equal shards of at most 144, as many as 4 threads can share evenly, or 2 threads if they
    would be small.

    It does not depend on the number of threads, so neither does the result. On two cores, shards of 50 to 150 images
    are fastest: in smaller ones the time goes into Python, larger ones leave the cache. Multiples of 16 fill vectors
    and cache lines, which saves a twentieth of the time: sizes go up to the next one, unless some thread would get more
    by a fortieth of the batch.

    Examples
    --------
    >>> [default_shard_size(n) for n in (64, 100, 500, 1000)]
    [64, 50, 128, 128]
    """
    sharers = 1 if batch_size < 80 else 2 if batch_size < 250 else 4
    rounds = -(-batch_size // (144 * sharers))
    size = -(-batch_size // (rounds * sharers))
    full = size + -size % 16
    shards = -(-batch_size // full)
    more = [-(-shards // threads) * full - batch_size / threads for threads in (2, 4) if threads <= sharers]
    return full if more and max(more) <= batch_size / 40 else size


def _batch(arrays: Iterable[npt.ArrayLike]) -> tuple[Array, ...]:
    pieces = tuple(np.asarray(a) for a in arrays)
    if not pieces or any(not a.shape or len(a) != len(pieces[0]) or not len(a) for a in pieces):
        raise ValueError(
            f"the arrays of a batch must be equally long and not empty; their shapes are {[a.shape for a in pieces]}"
        )
    return pieces


def usable_cores() -> int:
    """How many cores this process may use.

    Those of its affinity mask, but no more than the CPU quota of its container (Linux) pays for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, math.ceil(cpu_quota(cores))), 1)


@cache
def cpu_quota(
    default: float, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float:
    """Cores' worth of time that the control group of this process, or one around it, may use.

    `default` if none sets a limit.
    """
    try:
        groups = [line.split(":", 2) for line in membership.read_text().splitlines()]  # number:controllers:path
        names = [path for _, controllers, path in groups if not controllers or "cpu" in controllers.split(",")]
    except (OSError, ValueError):  # not Linux
        return default
    quotas = [default]
    for name in names:
        for group in [Path(name.strip("/")), *Path(name.strip("/")).parents]:
            for files in (
                ["cpu.max"],
                ["cpu.cfs_quota_us", "cpu.cfs_period_us"],
            ):  # version 2 in one file, version 1 in two
                for base in (root, root / "cpu"):
                    try:
                        quota, period = map(
                            float, " ".join((base / group / file).read_text() for file in files).split()
                        )
                    except (OSError, ValueError):  # no such group; "max": no limit
                        continue
                    if quota > 0:
                        quotas.append(quota / period)
    return min(quotas)


_blas_lock = threading.RLock()  # the collector may end a forgotten map_shards while its thread is in here
_blas_limits: list[
    Any
] = []  # one for each that is inside; the first of them holds the limit, or what was before would be forgotten


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold matrix products to one thread each while shards run side by side, for as long as anyone is inside.

    Needs threadpoolctl (the ``train`` extra); without it, this does nothing.
    """
    controller = _blas()
    with _blas_lock:
        _take_control(controller)
        _blas_limits.append(None if controller is None or _blas_limits else controller.limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _blas_lock:
            limit = _blas_limits.pop()  # the last to leave takes the first entry
            if limit is not None:
                _take_control(controller)
                limit.restore_original_limits()


def _take_control(controller: Any) -> None:
    """Let this thread change the limit.

    Threadpoolctl, from 3.8 on, ignores all but the thread that was first, silently.
    """
    for library in controller.lib_controllers if controller is not None else ():
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


@cache
def _keep_freed_memory() -> None:
    """Let the process keep up to 64 MB of freed memory for the next step, instead of 900 page faults in each shard (a
    tenth of its time).

    glibc hands memory back to the system from twice the size of the largest block that was ever freed (at most 32 MB)
    on.
    """
    np.empty(31 << 20, np.uint8)


@cache
def _blas() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


@cache
def _warn_of_blas_threads() -> None:
    if not any(
        os.environ.get(f"{library}_NUM_THREADS") == "1" for library in ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM")
    ):
        warnings.warn(
            "without threadpoolctl, matrix products of several shards may compete for the cores, and be slow; "
            "pip install 'tinygrad_mnist[train]', or set OPENBLAS_NUM_THREADS=1 (or your BLAS's variable) before "
            "Python starts",
            RuntimeWarning,
            stacklevel=4,
        )
