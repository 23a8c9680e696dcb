"""Data parallelism on threads: a batch is cut into shards of a fixed size, each with its own graph.

NumPy releases the GIL in large calls. Each shard has its own generator, seeded by one draw for the batch and the number
of the shard, and gradients are summed in the order of the shards: the result is bit for bit the same for any number of
threads. What is a mean over a shard (loss, gradients, buffers) counts by the share of the batch that the shard is. A
loss that is a sum, or a mean with other weights, is combined accordingly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..backward import grad, topological_order
from ..data.conversion import as_array
from ..kernels.machine import keep_freed_memory, on_one_core, one_blas_thread, usable_cores, warn_of_blas_threads
from ..nn import buffer as buffers
from ..ops.loss_reduction import Note, noting
from ..record import as_tensor, recording
from ..tensor import Array, Tensor
from ..validation import integer, real

__all__ = ["default_shard_size", "map_shards", "usable_cores", "value_and_grad"]

Result = TypeVar("Result")


def value_and_grad(
    loss_fn: Callable[..., Tensor | tuple[Tensor, Any]],
    params: Mapping[str, Tensor],
    *arrays: npt.ArrayLike,
    rng: np.random.Generator | None = None,
    shard_size: int | None = None,
    threads: int | None = None,
) -> tuple[float, dict[str, Array]]:
    """Compute the loss of a batch and its gradients, shard by shard; update buffers (see `tinygrad_mnist.nn.Buffer`).

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(*shards, rng)`` returns the loss of one shard, a Tensor with one value: the mean over its examples, or
        what a loss function such as `cross_entropy` has returned, also with ``reduction="sum"``, class weights or
        ``ignore_index``. Where such a loss is only a part of the result, or you compute a mean with other weights,
        return a pair ``(loss, weight)`` of the mean and what it was divided by.
    params : dict of str to Tensor
        The parameters to differentiate with respect to; see `tinygrad_mnist.nn.parameters`.
    *arrays : array_like
        The batch, such as images and labels; all of the same length, cut along axis 0.
    rng : numpy.random.Generator, optional
        Advanced by one draw; each shard gets its own generator. Without it, `loss_fn` gets None.
    shard_size : int, optional
        Examples in a shard, by default `default_shard_size`. The last bits of the result depend on it.
    threads : int, optional
        How many shards run at a time, by default one per usable core. The result does not depend on it. More threads
        than shards stay idle: pass a smaller `shard_size` for many cores.

    Returns
    -------
    loss : float
        Mean over the batch, with the weights if there are any, or the sum if the losses are sums.
    grads : dict of str to ndarray
        Of the shapes and dtypes of the parameters.

    Raises
    ------
    TypeError
        If `loss_fn` returns no Tensor.
    ValueError
        If that has several values, or the arrays are empty or of different lengths, or `shard_size` or `threads` is
        less than 1, or an integer buffer differs between shards, or it is unknown how to combine the losses of shards.
        After any error buffers are as they were.

    Examples
    --------
    >>> w = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> value_and_grad(lambda x, rng: (x * w).sum() / len(x), {"w": w}, np.ones((4, 2)), shard_size=2)
    (3.0, {'w': array([1., 1.])})
    """
    if frozen := [name for name, p in params.items() if not p.requires_grad]:
        raise ValueError(f"value_and_grad: {', '.join(frozen)} requires no gradient; leave it out of params")
    wanted = list(params.values())
    pieces = _batch("value_and_grad", arrays)
    seed = None if rng is None else rng.integers(2**63, size=2)
    total, outer = len(pieces[0]), buffers.active_shard()

    def shard(number: int, *pieces: Array) -> tuple[_Part, float, list[Array], tuple[int, buffers.Shard]]:
        share = len(pieces[0]) / total
        with (
            recording(True),  # also where the caller is in no_grad
            buffers.shard(outer, writable=True) as changes,
            noting(share < 1) as notes,
        ):
            result = loss_fn(*pieces, None if seed is None else np.random.default_rng([*seed, number]))
            part = _part(result, notes, len(pieces[0]), total)
            scale = part.scale / total
            if not scale:  # whatever the mean of nothing is
                return part, 0.0, [np.zeros_like(p.data) for p in wanted], (len(pieces[0]), changes)
            grads = grad(part.loss, wanted, gradient=np.full_like(part.loss.data, scale), retain_graph=False)
        return part, part.loss.item() * scale, [g.data for g in grads], (len(pieces[0]), changes)

    value, sums, changed, parts = 0.0, [np.zeros_like(p.data) for p in wanted], [], []
    with buffers.named_in(getattr(loss_fn, "__self__", None)):
        for part, added, grads, changes in _map("value_and_grad", shard, pieces, shard_size, threads):
            value += added
            parts.append((part.kind, part.weight))
            changed.append(changes)
            for running, g in zip(sums, grads, strict=True):
                running += g
        divisor = _divisor(parts) / total
        buffers.merge(changed)
    if divisor != 1:
        value, sums = value / divisor, [np.asarray(g / divisor, g.dtype) for g in sums]
    return value, dict(zip(params, sums, strict=True))


class _Part(NamedTuple):
    """What `value_and_grad` gets from a shard."""

    loss: Tensor
    kind: str  # mean (over its examples), weighted mean, or sum
    scale: float  # what its loss is multiplied by, ...
    weight: float  # ... and what the sum over all shards is divided by: the sum of these


def _part(result: Any, notes: Sequence[Note], examples: int, total: int) -> _Part:
    if isinstance(result, tuple) and len(result) != 2:
        raise ValueError(f"value_and_grad: loss_fn has returned {len(result)} values; return loss or (loss, weight)")
    loss = result[0] if isinstance(result, tuple) else result
    words = "return a Tensor with one value, such as the mean over the examples"
    if not isinstance(loss, Tensor):
        raise TypeError(f"value_and_grad: the loss that loss_fn has returned is a {type(loss).__name__}; {words}")
    if loss.data.size != 1:
        raise ValueError(f"value_and_grad: the loss that loss_fn has returned has shape {loss.shape}; {words}")
    if isinstance(result, tuple):
        weight = as_tensor(result[1])
        if weight.requires_grad:
            raise ValueError("value_and_grad: the weight of a loss is a constant; return (loss, weight.detach())")
        number = real("value_and_grad", "the weight that loss_fn has returned", weight.data, least=0)
        return _Part(loss, "weighted mean", number, number)
    for note in notes:
        if note.loss is result:
            if note.weight is None:
                return _Part(result, "sum", total, examples)
            return _Part(result, "weighted mean", note.divisor, note.weight)
    if notes:
        parts = set(map(id, topological_order(result, constants=True)))
        if any(id(note.loss) in parts for note in notes):
            raise ValueError(
                "value_and_grad: a loss with class weights, ignore_index or reduction='sum' is a part of what loss_fn "
                "has returned, so it is unknown how to combine the shards; let loss_fn return (mean loss, weight), "
                "with what the mean of this shard was divided by as weight, or pass shard_size=len(batch)"
            )
    return _Part(result, "mean", examples, examples)


def _divisor(parts: Sequence[tuple[str, float]]) -> float:
    """Return what the sum over all shards is divided by."""
    kinds = sorted({kind for kind, _ in parts})
    if len(kinds) > 1:
        raise ValueError(
            f"value_and_grad: the loss of one shard is a {kinds[0]}, that of another a {kinds[1]}; let loss_fn return "
            "(mean loss, weight) for every shard"
        )
    if not (divisor := sum(weight for _, weight in parts)):
        raise ValueError("value_and_grad: the weights of all shards add up to 0; one example must count")
    return divisor


def mean_loss(loss_fn: Callable[..., Any], *arrays: npt.ArrayLike, threads: int | None = None) -> float:
    """Compute the loss of a batch shard by shard, as `value_and_grad` does, without gradients; no buffer may change.

    Examples
    --------
    >>> mean_loss(lambda x: Tensor(x).mean(), np.arange(500.0))
    249.5
    """
    total = len(arrays[0])  # type: ignore[arg-type]  # checked below

    def shard(number: int, *pieces: Array) -> tuple[float, tuple[str, float]]:
        share = len(pieces[0]) / total
        with recording(True), noting(share < 1) as notes:  # the record tells what a noted loss is a part of
            part = _part(loss_fn(*pieces), notes, len(pieces[0]), total)
        return part.loss.item() * (part.scale / total) if part.scale else 0.0, (part.kind, part.weight)

    values, parts = zip(*map_shards(shard, *arrays, threads=threads), strict=True)
    return math.fsum(values) / (_divisor(parts) / total)


def map_shards(
    function: Callable[..., Result], *arrays: npt.ArrayLike, shard_size: int | None = None, threads: int | None = None
) -> Iterator[Result]:
    """Yield ``function(number, *shards)`` for each shard, in order, computed on threads with one BLAS thread each.

    An exception in a shard, or Ctrl-C, cancels the shards that have not started, waits for the others and is raised
    here. A `tinygrad_mnist.nn.Buffer` must not change. Parameters are those of `value_and_grad`.

    Examples
    --------
    >>> list(map_shards(lambda number, x: (number, x.sum().item()), np.ones(5), shard_size=2))
    [(0, 2.0), (1, 2.0), (2, 1.0)]
    """
    unchanging: Callable[..., Result] = buffers.shard(buffers.active_shard(), writable=False)(function)
    return _map("map_shards", unchanging, _batch("map_shards", arrays), shard_size, threads)


def _map(
    caller: str,
    function: Callable[..., Result],
    pieces: tuple[Array, ...],
    shard_size: int | None,
    threads: int | None,
) -> Iterator[Result]:
    size = default_shard_size(len(pieces[0])) if shard_size is None else integer(caller, "shard_size", shard_size, 1)
    threads = usable_cores() if threads is None else integer(caller, "threads", threads, 1)
    jobs = [(i, *(a[s : s + size] for a in pieces)) for i, s in enumerate(range(0, len(pieces[0]), size))]
    if threads == 1 or len(jobs) > 1:  # else the ops of the only shard may use all cores
        function = on_one_core()(function)
    return _results(function, jobs, min(threads, len(jobs)))


def _results(function: Callable[..., Result], jobs: list[Any], threads: int) -> Iterator[Result]:
    keep_freed_memory()
    if threads > 1:
        warn_of_blas_threads()
    with one_blas_thread():
        if threads == 1:
            yield from (function(*job) for job in jobs)
            return
        from concurrent.futures import ThreadPoolExecutor  # imported here because it takes 8 ms

        with ThreadPoolExecutor(threads, "shard") as pool:
            try:
                futures = [pool.submit(function, *job) for job in jobs]
                while futures:  # drops each result once it is yielded
                    yield futures.pop(0).result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def default_shard_size(batch_size: int) -> int:
    """Return the size of nearly equal shards of at most 144 examples.

    Their number divides evenly among 4 threads, or among 2 if the shards would be small. The size does not depend on
    the number of threads, so neither does the result. On two cores, shards of 50 to 150 images are fastest: smaller
    ones spend the time in Python, larger ones do not fit into the cache. Multiples of 16 fill vectors and cache lines,
    which saves 5 % of the time: a size is rounded up to one, unless that gives a thread 2.5 % of the batch more than
    its share.

    Examples
    --------
    >>> [default_shard_size(n) for n in (64, 100, 500, 1000)]
    [64, 50, 128, 128]
    """
    batch_size = integer("default_shard_size", "batch_size", batch_size, 1)
    workers = 1 if batch_size < 80 else 2 if batch_size < 250 else 4
    rounds = -(-batch_size // (144 * workers))
    size = -(-batch_size // (rounds * workers))
    full = size + -size % 16
    shards = -(-batch_size // full)
    more = [-(-shards // threads) * full - batch_size / threads for threads in (2, 4) if threads <= workers]
    return full if more and max(more) <= batch_size / 40 else size


def _batch(caller: str, arrays: Iterable[npt.ArrayLike]) -> tuple[Array, ...]:
    pieces = tuple(
        a if type(a) is np.ndarray else as_array(caller, f"array {number} of the batch", a)
        for number, a in enumerate(arrays)
    )
    if not pieces or any(not a.shape or len(a) != len(pieces[0]) or not len(a) for a in pieces):
        raise ValueError(
            f"{caller}: the arrays of a batch must be equally long and not empty; their shapes are "
            f"{[a.shape for a in pieces]}"
        )
    return pieces
