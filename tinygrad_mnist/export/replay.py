"""A program computed again, to compare it with a recording that has other ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Array
from .program import Dim, Program, Range, Tile
from .tracing import MEMORY_ORDER, Constant, Recording, Result

__all__ = ["check_replay"]

TOLERANCE = 1e-4  # of the largest number of an output: the same kernels have computed both


def check_replay(program: Program, recording: Recording, rows: int, caller: str) -> None:
    """Refuse a function that computes something else than the program for so many rows.

    Raises
    ------
    ValueError
    """
    counted = "1 row" if rows == 1 else f"{rows} rows"
    values: dict[int, Any] = {result.number: recording.values[result.number] for result in program.inputs}
    with np.errstate(all="ignore"):
        for node in program.nodes:
            inputs = [_at(value, values, rows) for value in node.inputs]
            keywords = {key: _at(value, values, rows) for key, value in node.keywords.items()}
            if ignored := MEMORY_ORDER.get(getattr(node.op.forward, "__name__", "")):
                keywords[ignored] = None
            found = np.asarray(node.op.forward(*inputs, **keywords))
            shape = _at(program.shapes[node.number], values, rows)
            if found.shape != tuple(max(length, 0) for length in shape):
                raise ValueError(
                    f"{caller}: {node.op.__name__} ({node.place}) gives shape {found.shape} for {counted}, not "
                    f"{shape} as for more of them; pass dynamic_batch=False"
                )
            values[node.number] = found
        for position, (part, own) in enumerate(zip(program.outputs, recording.outputs, strict=True)):
            found = np.asarray(_at(part, values, rows))
            wanted = recording.values[own.number] if isinstance(own, Result) else own.array
            if not _alike(found, wanted):
                raise ValueError(
                    f"{caller}: with {counted} the function computes another output {position} than with more of "
                    "them. A file holds one sequence of ops for any number of rows: choose by tg.where, or pass "
                    "dynamic_batch=False"
                )


def _at(value: Any, values: dict[int, Any], rows: int) -> Any:
    """Return an argument or a setting of a node for so many rows."""
    if isinstance(value, Result):
        return values[value.number]
    if isinstance(value, Constant):
        return value.array
    if isinstance(value, Tile):
        return np.broadcast_to(value.array, _at(value.dims, values, rows))
    if isinstance(value, Range):
        shape = _at(value.dims, values, rows)
        return np.arange(max(shape), dtype=value.dtype).reshape(shape)
    if isinstance(value, Dim):
        number = value.at(rows)
        return int(number) if isinstance(value.factor, int) and not value.inverse else number
    if isinstance(value, slice):
        return slice(*(_at(end, values, rows) for end in (value.start, value.stop, value.step)))
    if isinstance(value, tuple):
        parts = [_at(part, values, rows) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _alike(found: Array, wanted: Array) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    if found.dtype.kind != "f":
        return bool((found == wanted).all())
    size = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
    return bool(np.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True))
