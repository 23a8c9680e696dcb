"""How the losses of examples become one number, and what shards must know of it.

`tinygrad_mnist.parallel.value_and_grad` takes what is computed of a shard for a mean over its examples. A loss that is
a sum, or a mean with other weights, notes that, so that the losses of shards can be combined by their weights.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..record import as_tensor, astype
from ..tensor import Operand, Tensor
from .reduction import mean, sum

__all__: list[str] = []

REDUCTIONS = ("mean", "sum", "none")


class Note(NamedTuple):
    """A loss that is no plain mean."""

    loss: Tensor
    divisor: float  # what the sum of all terms was divided by
    weight: float | None  # what it should be divided by, perhaps 0 in a shard; None: it is a sum


class _Active(threading.local):
    notes: list[Note] | None = None


_active = _Active()


@contextmanager
def noting(on: bool) -> Iterator[list[Note]]:
    """Within this context (and thread), collect notes, or do not, whatever holds outside."""
    notes: list[Note] = []
    before, _active.notes = _active.notes, notes if on else None
    try:
        yield notes
    finally:
        _active.notes = before


def as_floats(x: Operand) -> tuple[Tensor, Any]:
    """Return values to compute with, half precision as single and integers as double, and the dtype of the result."""
    x = as_tensor(x)
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    return as_dtype(x, np.promote_types(dtype, np.float32)), dtype


def as_dtype(x: Tensor, dtype: Any) -> Tensor:
    """Convert unless that is the dtype."""
    return x if x.dtype == dtype else astype(x, dtype)


def check_reduction(op: str, reduction: str, known: tuple[str, ...] = REDUCTIONS) -> None:
    """Raise a ValueError unless this is a known reduction."""
    if reduction not in known:
        raise ValueError(f"{op}: reduction is {reduction!r}; it must be one of {', '.join(map(repr, known))}")


def reduced(op: str, losses: Tensor, reduction: str, dtype: Any, weight: Any = None) -> Tensor:
    """Reduce losses to their mean or their sum, or keep them all; a mean divides by `weight` if that is given."""
    if reduction == "none":
        return as_dtype(losses, dtype)
    if reduction == "mean" and weight is None:
        if not losses.size:
            raise ValueError(f"{op}: there are no losses to average, their shape is {losses.shape}; pass some examples")
        return as_dtype(mean(losses), dtype)
    empty = not isinstance(weight, Tensor) and not weight  # Tensors, in functions that are exported, are not read
    divisor = 1.0 if reduction == "sum" or empty else weight
    if reduction == "mean" and empty and _active.notes is None:
        raise ValueError(f"{op}: the weights of all targets add up to 0; one of them must count")
    out = as_dtype(sum(losses) / divisor if reduction == "mean" else sum(losses), dtype)
    if _active.notes is not None:
        _active.notes.append(Note(out, divisor, weight if reduction == "mean" else None))
    return out
