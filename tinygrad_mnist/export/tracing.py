"""Recording every primitive that a function calls, whether or not a gradient is wanted.

`record` calls a function once and lists the primitives that it called: comparisons, integers and masks included, which
the record of a Tensor leaves out. Arrays are recognized by identity: what a primitive gets is an earlier result, an
input, or else a constant.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from ..hooks import Hook, installed
from ..ops import protocols
from ..record import mode, recording
from ..tensor import Array, Tensor, wrap

__all__ = ["Call", "Constant", "Recording", "Result", "record"]

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
MEMORY_ORDER = {"_reshape": "order"}  # settings that change the strides of a result, and nothing else


class Result(NamedTuple):
    """A value that comes from the inputs or from an op: its number in the recording."""

    number: int


class Constant(NamedTuple):
    """An array that neither is an input nor comes from an op."""

    array: Array
    content: int  # a hash of its values when it was used


class Call(NamedTuple):
    """One call of a primitive."""

    op: Any
    inputs: tuple[Any, ...]  # Results, Constants and numbers
    keywords: dict[str, Any]  # settings; Results among them where an index array comes from an op
    number: int  # of the result
    place: str  # the line of the user's file that led to it


class Recording(NamedTuple):
    """What a function did when it was called once."""

    calls: list[Call]
    inputs: list[Result]
    outputs: list[Any]  # Results and Constants
    values: list[Array]  # of the Results, by number
    reads: list[str]  # lines that have read the values of a Tensor which depends on the inputs


class _Recorder(Hook):
    """Notes each primitive that one thread calls."""

    def __init__(self, inputs: Sequence[Array]) -> None:
        self.calls: list[Call] = []
        self.values: list[Array] = []
        self.numbers: dict[int, int] = {}  # id of an array -> number of the Result
        self.thread = threading.get_ident()
        self.kept: list[Any] = []  # constants, alive so that no other array gets their id
        self.inputs = [self.result(x) for x in inputs]
        self.dependent = {result.number for result in self.inputs}  # Results that depend on the inputs
        self.reads: list[str] = []
        self.contents: dict[int, tuple[int, str]] = {}  # of Results that were read: hashes of their values, and lines

    def forward(self, op: Any, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        out = np.asarray(super().forward(op, arrays, keywords))
        if threading.get_ident() != self.thread:
            return out
        if id(out) in self.numbers or any(out is a for a in arrays):
            out = out.view()  # another object: for other values the op may return something else
        inputs = tuple(map(self.found, arrays))
        ignored = MEMORY_ORDER.get(getattr(op.forward, "__name__", ""))
        settings = {name: self.found(value) for name, value in keywords.items() if name != ignored}
        number = self.result(out).number
        if not self.dependent.isdisjoint(results((inputs, settings))):
            self.dependent.add(number)
        self.calls.append(Call(op, inputs, settings, number, _place(sys._getframe(1))))
        return out

    def read(self, tensor: Tensor, reader: Any) -> None:
        """Note that a frame, of any thread, reads the values of a Tensor: what it computes from them is no op."""
        number = self.numbers.get(id(tensor._array), -1)
        if number in self.dependent:
            place = _place(reader)
            self.reads.append(place)
            self.contents.setdefault(number, (content(tensor._array), place))

    def check(self) -> None:
        """Refuse values that were changed in place: no op shows that."""
        for number, (before, place) in self.contents.items():
            if content(self.values[number]) != before:
                raise ValueError(
                    f"to_onnx: values of a Tensor that depends on the inputs are read at {place}, and then changed in "
                    "place; compute new ones by Tensor operations, such as tg.where"
                )

    def result(self, array: Array) -> Result:
        """Give an array a number."""
        self.numbers[id(array)] = len(self.values)
        self.values.append(array)
        return Result(len(self.values) - 1)

    def found(self, value: Any) -> Any:
        """Return the Result that an array is, or a Constant; look into the tuples of settings."""
        if isinstance(value, np.ndarray):
            number = self.numbers.get(id(value))
            if number is not None:
                return Result(number)
            self.kept.append(value)
            return Constant(value, content(value))
        if type(value) is tuple:
            return tuple(map(self.found, value))
        return value


def results(value: Any) -> list[int]:
    """List the numbers of the Results in an argument or a setting."""
    if isinstance(value, Result):
        return [value.number]
    if isinstance(value, dict):
        return [number for part in value.values() for number in results(part)]
    return [number for part in value for number in results(part)] if isinstance(value, tuple) else []


def content(array: Array) -> int:
    """Return a hash of values, which tells whether they have been changed in place."""
    return hash(array.tobytes())


READERS = (
    "numpy",
    "item",
    "__array__",
    "__float__",
    "__int__",
    "__bool__",
    "__index__",
    "__contains__",
    "__repr__",
    "__format__",
    "__reduce__",
)
_one_at_a_time = threading.RLock()  # readers are replaced for all threads


@contextmanager
def _noting_reads(recorder: _Recorder) -> Iterator[None]:
    """Within this context tell a recorder whenever the values of a Tensor are read."""

    def noting(reader: Any) -> Any:
        @wraps(reader)
        def read(tensor: Tensor, *args: Any, **keywords: Any) -> Any:
            frame = sys._getframe(1)
            if reader is not data.fget or not _is_internal(frame):  # only the package reads data for itself
                recorder.read(tensor, frame)
            return reader(tensor, *args, **keywords)

        return read

    data: Any = Tensor.__dict__["data"]
    init: Any = Tensor.__dict__["__init__"]
    before = {"data": data, "__init__": init, **{name: Tensor.__dict__[name] for name in READERS}}

    @wraps(init)
    def noting_init(tensor: Tensor, values: Any, requires_grad: bool = False) -> None:
        if isinstance(values, Tensor):
            recorder.read(values, sys._getframe(1))
        init(tensor, values, requires_grad)

    with _one_at_a_time:
        try:
            setattr(Tensor, "data", property(noting(data.fget), data.fset, doc=data.__doc__))  # noqa: B010
            setattr(Tensor, "__init__", noting_init)  # noqa: B010
            for name in READERS:
                setattr(Tensor, name, noting(before[name]))
            yield
        finally:
            for name, method in before.items():
                setattr(Tensor, name, method)


def _is_internal(frame: Any) -> bool:
    """Whether the package reads values for itself, not for one of NumPy's functions that is no op here."""
    name = frame.f_code.co_filename
    if not name.startswith(PACKAGE):
        return False
    if name != protocols.__file__:
        return True
    while frame is not None and frame.f_code is not protocols._on_values.__code__:
        frame = frame.f_back
    return frame is not None and frame.f_locals["function"] in protocols.OF_SHAPES


def _place(frame: Any) -> str:
    """Return the line of the nearest caller outside of the package, from a frame on."""
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


def record(function: Callable[..., Any], arrays: Sequence[Array], requires_grad: bool = True) -> tuple[Recording, Any]:
    """Call a function with Tensors of these arrays; return what it did, and what it returned.

    With `requires_grad`, floats among the arrays require a gradient, so that the function can compute gradients.
    """
    tensors = []
    for array in arrays:
        tensor = wrap(array)
        tensor.requires_grad = requires_grad and array.dtype.kind == "f"
        tensors.append(tensor)
    recorder = _Recorder(arrays)
    with installed(recorder), recording(True), _noting_reads(recorder), np.errstate(all="ignore"):
        before, mode.traced = mode.traced, True
        try:
            returned = function(*tensors)
        finally:
            mode.traced = before
    recorder.check()
    outputs = [recorder.found(_array(part)) for part in _as_list(returned)]
    return Recording(recorder.calls, recorder.inputs, outputs, recorder.values, recorder.reads), returned


def _array(part: Any) -> Array:
    if not isinstance(part, (Tensor, np.ndarray)):
        raise TypeError(
            f"to_onnx: the function returned {type(part).__name__}; return a Tensor, or several as a tuple, list or "
            "dict, not nested"
        )
    return part.data if isinstance(part, Tensor) else part


def _as_list(returned: Any) -> list[Any]:
    """List the outputs of a function: one, or a tuple, list or dict of them."""
    if isinstance(returned, dict):
        return [*returned.values()]
    return [*returned] if isinstance(returned, (tuple, list)) else [returned]
