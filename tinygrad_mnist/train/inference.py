"""Outputs of a model in inference, of any structure: arrays in tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..debug.anomaly import locate_nonfinite
from ..nn.buffer import named_in
from ..record import no_grad
from ..tensor import Tensor
from .examples import Arrays, as_inputs, several
from .shards import map_shards

__all__ = ["outputs"]


def outputs(model: Any, images: Any, threads: int | None = None) -> Any:
    """Compute what a model returns, in inference, shard by shard.

    Parameters
    ----------
    model : callable
        ``model(images)``, or ``model(*images)`` of several inputs. It returns a Tensor (N, ...), or a tuple, list or
        dict of such.
    images : array_like, shape (N, ...), or tuple of them
        Several arrays, equally long, for a model of several inputs. They are taken by position, as everywhere: an index
        of pandas plays no part.
    threads : int, optional
        See `parallel.value_and_grad`; the result does not depend on it.

    Returns
    -------
    ndarray, shape (N, ...), or what the model returns, with ndarrays in place of Tensors

    Raises
    ------
    ValueError
        If an output has not one row for each example.

    Examples
    --------
    >>> outputs(lambda a, b: {"sum": Tensor(a + b)}, (np.arange(3), np.ones(3)))
    {'sum': array([1., 2., 3.])}
    """
    inputs = several(as_inputs("outputs", images))
    return all_outputs("outputs", model, inputs, threads)


def all_outputs(caller: str, model: Any, inputs: Arrays, threads: int | None, shifts: int = 0) -> Any:
    shards = list(outputs_of_shards(caller, model, inputs, threads, shifts))
    return _joined(shards)


def outputs_of_shards(caller: str, model: Any, inputs: Arrays, threads: int | None, shifts: int = 0) -> Iterator[Any]:
    moves = [(shifts, 0), (-shifts, 0), (0, shifts), (0, -shifts)] if shifts else []

    def infer(number: int, *xs: npt.NDArray[Any]) -> Any:
        with no_grad():
            out = map_arrays(_data, model(*xs))
            for down, right in moves:
                out = out + model(_shifted(xs[0], down, right)).data
        count = len(xs[0])
        for array in leaves(out):
            if not array.shape or len(array) != count:
                raise ValueError(
                    f"{caller}: for {count} examples the model returns {described(array)}; it must return one row for "
                    "each"
                )
        return out

    if not inputs[0].shape or not len(inputs[0]):
        yield infer(0, *inputs)
        return
    with named_in(model):
        yield from map_shards(infer, *inputs, threads=threads)


def check_outputs(model: Any, inputs: Arrays, found: Any) -> None:
    if any(np.isnan(array).any() for array in leaves(found)):
        word = "a logit" if isinstance(found, np.ndarray) and found.ndim == 2 else "an output"
        origin = locate_nonfinite(lambda: list(outputs_of_shards("evaluate", model, inputs, 1)))
        raise FloatingPointError(f"{word} is NaN: {origin}")


def _shifted(images: npt.NDArray[Any], down: int, right: int) -> npt.NDArray[Any]:
    """Shift images (..., H, W) by pixels; zeros come in at the border."""

    def overlap(by: int) -> tuple[slice, slice]:  # of the new and of the old axis
        new = slice(max(by, 0), min(by, 0) or None)
        old = slice(max(-by, 0), min(-by, 0) or None)
        return new, old

    new_rows, rows = overlap(down)
    new_columns, columns = overlap(right)
    moved = np.zeros_like(images)
    moved[..., new_rows, new_columns] = images[..., rows, columns]
    return moved


def _data(value: Any) -> npt.NDArray[Any]:
    array = value.data if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype == object:
        raise TypeError(f"the model returns {described(value)}; pass Tensors, or tuples, lists and dicts of them")
    return array


def map_arrays(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: map_arrays(function, part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [map_arrays(function, part) for part in value]
        return type(value)._make(parts) if hasattr(value, "_make") else type(value)(parts)
    return function(value)


def leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    map_arrays(found.append, value)
    return found


def _joined(parts: list[Any]) -> Any:
    """Concatenate the outputs of shards, each with the same structure."""
    columns = zip(*map(leaves, parts), strict=True)  # of each leaf, what every shard has
    whole = iter([np.concatenate(column) for column in columns])
    return map_arrays(lambda leaf: next(whole), parts[0])


def described(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    shape = getattr(value, "shape", None)
    return kind if shape is None else f"{kind} of shape {shape}"
