"""A function as a program that holds for every input and every batch size: what several recordings have in common.

The function is recorded several times, on other values and on other numbers of rows. Whatever is not the same each time
must follow from the number of rows: then it becomes a `Dim`, or a `Tile` or a `Range` of such a length. All else comes
from the values in a way that no op shows, and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..tensor import Array
from .tracing import Call, Constant, Recording, Result, content, results

__all__ = ["Dim", "Dims", "Node", "Program", "Range", "Tile", "merge"]


class Dim(NamedTuple):
    """A number that depends on the number of rows N: ``factor * N + offset``, or one divided by that."""

    factor: float
    offset: float = 0
    inverse: bool = False

    def at(self, rows: int) -> float:
        """Return the number for so many rows."""
        value = self.factor * rows + self.offset
        return 1 / value if self.inverse else value


Dims: TypeAlias = tuple[int | Dim, ...]


class Tile(NamedTuple):
    """An array that repeats `array`, whose axes that are repeated have length 1, up to the shape `dims`."""

    array: Array
    dims: Dims


class Range(NamedTuple):
    """The integers 0, 1, 2, ... along the one axis of `dims` that depends on the number of rows."""

    dtype: np.dtype[Any]
    dims: Dims


class Node(NamedTuple):
    """One call of a primitive.

    Inputs and settings are Results (numbers of values), arrays, Tiles, Ranges, Dims and plain Python values.
    """

    op: Any
    inputs: tuple[Any, ...]
    keywords: dict[str, Any]
    number: int  # of its result
    place: str


class Program(NamedTuple):
    """A function: its nodes in the order of computation, every value with its dtype and shape."""

    nodes: list[Node]
    inputs: list[Result]
    outputs: list[Any]  # Results, or arrays, Tiles and Ranges where nothing comes from an input
    dtypes: list[np.dtype[Any]]
    shapes: list[Dims]
    fixed: dict[int, Array]  # results that depend on no input, and are the same in all recordings


class DifferentError(Exception):
    """What is not the same in two recordings does not follow from the number of rows."""


def merge(recordings: Sequence[Recording], rows: Sequence[int], caller: str) -> Program:
    """Find what recordings, some of them with as many rows as the first, have in common.

    Raises
    ------
    ValueError
        If they differ by more than the number of rows explains. The error names the op and its line.
    """
    _check_calls(recordings, caller)
    merger = _Merger(rows)
    shapes: list[Dims] = []  # of the inputs, and then of the result of each call

    def add_shape(what: str) -> None:
        arrays = [recording.values[len(shapes)] for recording in recordings]
        shapes.append(_in_words(what, merger.shape, *(array.shape for array in arrays)))

    for position in range(len(recordings[0].inputs)):
        add_shape(f"{caller}: input {position}")
    nodes = []
    for calls in zip(*(recording.calls for recording in recordings), strict=True):
        call = calls[0]
        name = f"{caller}: {call.op.__name__} ({call.place})"
        inputs = tuple(
            _in_words(f"{name}: argument {i}", merger.value, *values)
            for i, values in enumerate(zip(*(c.inputs for c in calls), strict=True))
        )
        keywords = {
            key: _in_words(f"{name}: setting {key}", merger.value, *(c.keywords[key] for c in calls))
            for key in call.keywords
        }
        add_shape(f"{name}: its result")
        nodes.append(Node(call.op, inputs, keywords, call.number, call.place))
    outputs = [
        _in_words(f"{caller}: output {i}", merger.value, *values)
        for i, values in enumerate(zip(*(recording.outputs for recording in recordings), strict=True))
    ]
    first = recordings[0]
    double = np.dtype(np.float64)  # ONNX has no wider one
    dtypes = [min(array.dtype, double) if array.dtype.kind == "f" else array.dtype for array in first.values]
    return Program(nodes, first.inputs, outputs, dtypes, shapes, _fixed(nodes, recordings))


def _fixed(nodes: Sequence[Node], recordings: Sequence[Recording]) -> dict[int, Array]:
    fixed: dict[int, Array] = {}
    for node in nodes:
        if all(number in fixed for number in results((node.inputs, node.keywords))):
            values = [recording.values[node.number] for recording in recordings]
            if all(_equal(values[0], value) for value in values):
                fixed[node.number] = values[0]
    return fixed


def _in_words(what: str, function: Callable[..., Any], *values: Any) -> Any:
    try:
        return function(*values)
    except DifferentError as error:
        raise ValueError(
            f"{what} {error}. It does not come from an input by ops of this package: compute it from the inputs by "
            "Tensor operations (tg.where, tg.maximum, comparisons), not by NumPy, Python's if or a random generator; "
            "or make it a constant"
        ) from None


def _check_calls(recordings: Sequence[Recording], caller: str) -> None:
    """Refuse a function that calls other ops for other values or another number of rows."""
    for other in recordings[1:]:
        for before, now in zip(recordings[0].calls, other.calls, strict=False):
            if before.op is not now.op or len(before.inputs) != len(now.inputs):
                raise ValueError(
                    f"{caller}: the function calls {before.op.__name__} ({before.place}) for the example, but "
                    f"{now.op.__name__} ({now.place}) for other values or another number of rows. A file holds one "
                    "sequence of ops: choose by tg.where, not by Python's if, and do not loop over the rows"
                )
        if len(recordings[0].calls) != len(other.calls) or len(recordings[0].outputs) != len(other.outputs):
            longer: list[Call] = max(recordings[0].calls, other.calls, key=len)
            last = longer[min(len(recordings[0].calls), len(other.calls)) :][:1]
            where = f": from {last[0].op.__name__} ({last[0].place}) on" if last else ""
            raise ValueError(
                f"{caller}: the function calls {len(recordings[0].calls)} ops for the example, but "
                f"{len(other.calls)} for other values or another number of rows{where}. A file holds one sequence of "
                "ops: do not loop over the rows, and choose by tg.where"
            )


class _Merger:
    """Finds what values of several recordings have in common; some of them have as many rows as the first."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = rows
        self.sizes = [*dict.fromkeys(rows)]
        self.places = [rows.index(size) for size in self.sizes]  # of one recording of each size
        self.like_first = [i for i, count in enumerate(rows) if count == rows[0]]

    def shape(self, *shapes: tuple[int, ...]) -> Dims:
        """Return a shape, with a Dim for each length that depends on the number of rows."""
        for other in shapes[1:]:
            if len(other) != len(shapes[0]):
                raise DifferentError(f"has shape {shapes[0]} for the example and {other} for another one")
        return tuple(self.number(*lengths) for lengths in zip(*shapes, strict=True))

    def value(self, *values: Any) -> Any:
        """Return what arguments or settings have in common."""
        first = values[0]
        for other in values[1:]:
            if type(other) is not type(first):
                raise _different(first, other)
        if isinstance(first, Constant):
            if any(content(value.array) != value.content for value in values):
                raise DifferentError(f"is {_short(first)} that is changed in place after it was used")
            return self.array(*(value.array for value in values))
        if isinstance(first, Result):
            return self.same(*values)
        if isinstance(first, tuple):
            for other in values[1:]:
                if len(other) != len(first):
                    raise _different(first, other)
            parts = [self.value(*parts) for parts in zip(*values, strict=True)]
            return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
        if isinstance(first, slice):
            return slice(*(self.value(*(getattr(v, end) for v in values)) for end in ("start", "stop", "step")))
        if isinstance(first, (int, float, np.number)) and not isinstance(first, bool):
            return self.number(*values)
        return self.same(*values)

    def same(self, *values: Any) -> Any:
        """Return the value that all are."""
        first = values[0]
        for other in values[1:]:
            if other is not first and other != first:
                raise _different(first, other)
        return first

    def number(self, *values: Any) -> Any:
        """Return the number that all are, or how they depend on the number of rows."""
        first = values[0]
        if all(value == first or (value != value and first != first) for value in values):
            return first
        if any(values[place] != first for place in self.like_first):
            raise DifferentError(f"is {_short(first)} for the example, and another one for other values")
        by_size = [values[place] for place in self.places]
        for inverse in (False, True):
            found = self._line([1 / value if value else math.inf for value in by_size] if inverse else by_size)
            if found is not None:
                factor, offset = found
                if isinstance(first, (int, np.integer)) and not inverse:
                    if factor != round(factor) or offset != round(offset):
                        continue
                    factor, offset = int(factor), int(offset)
                elif isinstance(first, (int, np.integer)):
                    continue
                return Dim(factor, offset, inverse)
        numbers = ", ".join(f"{value} for {n}" for n, value in zip(self.sizes, by_size, strict=True))
        raise DifferentError(f"depends on the number of rows, and not linearly: it is {numbers}")

    def _line(self, values: Sequence[Any]) -> tuple[float, float] | None:
        """Return factor and offset, if numbers are a linear function of the number of rows."""
        rows, found = self.sizes, [float(value) for value in values]
        factor = (found[1] - found[0]) / (rows[1] - rows[0])
        offset = found[0] - factor * rows[0]
        rounding = 1e-12 * max(filter(math.isfinite, map(abs, found)), default=0.0)
        exact = all(
            math.isclose(factor * n + offset, v, rel_tol=1e-9, abs_tol=rounding)
            for n, v in zip(rows, found, strict=True)
        )
        if not exact:
            return None
        return factor, 0.0 if abs(offset) < 1e-9 * abs(found[0]) else offset

    def array(self, *arrays: Array) -> Array | Tile | Range:
        """Return the constant that all are, or how it depends on the number of rows."""
        first, second = arrays[:2]
        if len({array.dtype for array in arrays}) > 1 or not _equal(first, second):
            raise DifferentError(
                f"is a constant array, {first.dtype} {first.shape}, that is not the same for other values"
            )
        dims = self.shape(*(array.shape for array in arrays))
        varying = [axis for axis, length in enumerate(dims) if isinstance(length, Dim)]
        if not varying:
            if all(_equal(first, array) for array in arrays):
                return first
        elif all(array.size == array.shape[varying[0]] and _counts(array) for array in arrays) and len(varying) == 1:
            return Range(first.dtype, dims)
        else:
            every = tuple(slice(0, 1) if axis in varying else slice(None) for axis in range(first.ndim))
            row = first[every]
            if all(_equal(np.broadcast_to(row, array.shape), array) for array in arrays):
                return Tile(row, dims)
        raise DifferentError(
            f"is a constant array, {first.dtype} {first.shape}, that is not the same for another number of rows"
        )


def _counts(array: Array) -> bool:
    return array.dtype.kind in "iu" and bool((array.ravel() == np.arange(array.size)).all())


def _equal(x: Array, y: Array) -> bool:
    return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f"))


def _different(first: Any, other: Any) -> DifferentError:
    return DifferentError(f"is {_short(first)} for the example and {_short(other)} for another one")


def _short(value: Any) -> str:
    if isinstance(value, Constant):
        value = value.array
    if isinstance(value, np.ndarray):
        return f"a constant array, {value.dtype} {value.shape},"
    if isinstance(value, Result):
        return "the result of an op"
    return repr(value)
