"""A table of a model by layer: parameters, output shapes, multiply-adds, and memory for activations."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from inspect import unwrap
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..hooks import Hook, installed
from ..record import Primitive
from ..tensor import Tensor
from ..walk import leaves, walk
from .graph.work import count_multiply_adds

__all__ = ["Row", "Summary", "summary"]

NAME_LENGTH = 48  # characters shown of the repr of a layer
HEADER = ("layer", "type", "output", "parameters", "multiply-adds", "activation bytes")


class Row(NamedTuple):
    """A layer that was called, and what it does itself: what the layers inside of it do is in their rows."""

    layer: str  # the path in the model; "" is the model
    type: str
    depth: int  # how many layers it is in
    calls: int
    output: Any  # the shape that the last call returned, a list of them for a tuple or list, None for anything else
    parameters: int  # numbers that are trained; a parameter of several layers is counted in the first one
    multiply_adds: int  # of all calls
    activation_bytes: int  # allocated for the results of ops, in all calls


class Summary:
    """A table of a model by layer, made by `tinygrad_mnist.summary`; its text is the table.

    Attributes
    ----------
    rows : list of Row
        In the order of the first calls.
    parameters, multiply_adds, activation_bytes : int
        The sums. The parameters are those of the whole model.
    not_called : int
        Parameters of layers that were not called.
    """

    def __init__(self, rows: Sequence[Row], parameters: int) -> None:
        self.rows = list(rows)
        self.parameters = parameters
        self.multiply_adds = sum(row.multiply_adds for row in rows)
        self.activation_bytes = sum(row.activation_bytes for row in rows)
        self.not_called = parameters - sum(row.parameters for row in rows)

    def __str__(self) -> str:
        lines = [HEADER, *map(_cells, self.rows)]
        if self.not_called:
            lines.append(("not called", "", "", f"{self.not_called:,}", "", ""))
        sums = self.parameters, self.multiply_adds, self.activation_bytes
        lines.append(("total", "", "", *[f"{number:,}" for number in sums]))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(_line(cells, widths) for cells in lines)

    __repr__ = __str__


def summary(model: Any, *inputs: Any, rng: np.random.Generator | None = None) -> Summary:
    """Call a model once and list its layers: output shapes, parameters, multiply-adds, and memory for activations.

    A layer is every object in the model that can be called; it needs no base class. Work outside of all layers, such as
    in a method of the model, counts for the layer or model whose method it is.

    Parameters
    ----------
    model : callable
        Any object; its layers are found in attributes, lists, tuples and dicts.
    *inputs
        What it is called with, such as a batch of one image.
    rng : numpy.random.Generator, optional
        Passed on, which makes the call one of training: for layers that compute nothing before they are trained, such
        as a new batch normalization. Parameters and buffers are then put back.

    Returns
    -------
    Summary
        ``print`` shows the table; `rows` holds the same as data. Layers stand in the order of their first calls: a
        `Sequential` calls a max-pool before the ReLU in front of it. Activation bytes are those that are allocated for
        the results of ops; views need none.

    Raises
    ------
    TypeError
        If the model cannot be called.

    Examples
    --------
    >>> import tinygrad_mnist as tg
    >>> rng = np.random.default_rng(0)
    >>> model = tg.nn.Sequential(tg.nn.Linear(20, 30, rng=rng), tg.nn.ReLU(), tg.nn.Linear(30, 10, rng=rng))
    >>> summary(model, np.zeros((1, 20), np.float32))
    layer       type            output   parameters  multiply-adds  activation bytes
    model       Sequential      (1, 10)
      layers.0  Linear(20, 30)  (1, 30)         630            600               240
      layers.1  ReLU()          (1, 30)                                          120
      layers.2  Linear(30, 10)  (1, 10)         310            300                80
    total                                       940            900               440
    """
    if not callable(model):
        raise TypeError(f"summary: the model is {type(model).__name__}, which cannot be called; pass a model")
    watch = _Watch(model)
    tensors = leaves(model, "summary").values()
    before = [(tensor, tensor.data.copy()) for tensor in tensors] if rng is not None else []
    try:
        with installed(watch):
            watch.run(model, inputs, {} if rng is None else {"rng": rng})
    finally:
        for tensor, values in before:
            tensor.data = values
    owned = _share_parameters(model, watch.paths)
    rows = [call.row(owned.get(id(call.layer), 0)) for call in watch.found.values()]
    return Summary(rows, _count(tensors))


class _Called:
    """What is known of a layer that was called."""

    def __init__(self, layer: Any, path: str, depth: int) -> None:
        self.layer = layer
        self.path = path
        self.depth = depth
        self.calls = 0
        self.output: Any = None
        self.multiply_adds = 0
        self.activation_bytes = 0

    def row(self, parameters: int) -> Row:
        numbers = parameters, self.multiply_adds, self.activation_bytes
        return Row(self.path, _name(self.layer), self.depth, self.calls, _shapes(self.output), *numbers)


class _Watch(Hook):
    """See which layer of a model is running, what it returns, and which ops it runs."""

    def __init__(self, model: Any) -> None:
        self.paths: dict[int, str] = {}
        self.layers: list[Any] = []  # kept, so that no id is given to another object
        self.codes: set[CodeType] = set()
        for path, value in walk(model):
            if callable(value) and not isinstance(value, (type, Tensor, Primitive)):
                self.paths[id(value)] = path
                self.layers.append(value)
                self.codes |= _codes(type(value))
        self.found: dict[int, _Called] = {}
        self.running: list[tuple[FrameType, _Called]] = []
        self.thread = threading.get_ident()

    def run(self, model: Any, inputs: Sequence[Any], keywords: dict[str, Any]) -> None:
        """Call the model, and note each call and return of a layer."""
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            model(*inputs, **keywords)
        finally:
            sys.setprofile(before)

    def forward(self, op: Any, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Compute a primitive, and count it for the layer that is running."""
        out = np.asarray(super().forward(op, arrays, keywords))
        if self.running and threading.get_ident() == self.thread:
            called = self.running[-1][1]
            shapes = [np.shape(a) for a in arrays]
            called.multiply_adds += count_multiply_adds(op.__name__, shapes, out.shape, keywords)
            if not any(np.may_share_memory(out, a) for a in arrays if isinstance(a, np.ndarray)):
                called.activation_bytes += out.nbytes
        return out

    def _note(self, frame: FrameType, event: str, value: Any) -> None:
        if event == "call":
            code = frame.f_code
            layer = frame.f_locals.get(code.co_varnames[0]) if code in self.codes else None
            if id(layer) in self.paths:
                self._enter(frame, layer)
        elif event == "return" and self.running and self.running[-1][0] is frame:
            _, called = self.running.pop()
            called.output = value

    def _enter(self, frame: FrameType, layer: Any) -> None:
        if any(called.layer is layer for _, called in self.running):  # __call__ of a base class
            return
        called = self.found.get(id(layer))
        if called is None:
            called = self.found[id(layer)] = _Called(layer, self.paths[id(layer)], len(self.running))
        called.calls += 1
        self.running.append((frame, called))


def _codes(kind: type) -> set[CodeType]:
    """Return the code that runs when objects of a class are called, that of base classes included."""
    calls = [unwrap(parent.__dict__["__call__"]) for parent in kind.__mro__ if "__call__" in parent.__dict__]
    return {call.__code__ for call in calls if isinstance(call, FunctionType) and call.__code__.co_argcount}


def _share_parameters(model: Any, paths: dict[int, str]) -> dict[int, int]:
    """Return how many parameters belong to each layer, by id: to the innermost layer around each of them."""
    owners = {path: key for key, path in paths.items()}
    owned: dict[int, int] = {}
    for path, tensor in leaves(model, "summary").items():
        above = path
        while above and above not in owners:
            above = above.rpartition(".")[0]
        owner = owners[above]
        owned[owner] = owned.get(owner, 0) + _count([tensor])
    return owned


def _count(tensors: Any) -> int:
    return sum(tensor.size for tensor in tensors if tensor.requires_grad)


def _shapes(output: Any) -> Any:
    if isinstance(output, (list, tuple)):
        return [_shapes(part) for part in output]
    return getattr(output, "shape", None)


def _name(layer: Any) -> str:
    has_repr = getattr(type(layer), "__repr__", None) is not object.__repr__
    text = " ".join(repr(layer).split()) if has_repr else type(layer).__name__
    return text if len(text) <= NAME_LENGTH else type(layer).__name__


def _cells(row: Row) -> tuple[str, ...]:
    numbers = row.parameters, row.multiply_adds, row.activation_bytes
    calls = f" (called {row.calls} times)" if row.calls > 1 else ""
    output = "" if row.output is None else str(row.output)
    shown = [f"{number:,}" if number else "" for number in numbers]
    return ("  " * row.depth + (row.layer or "model"), row.type + calls, output, *shown)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:3], widths, strict=False)]
    right = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*left, *right]).rstrip()
