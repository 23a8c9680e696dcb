"""Find the op or rule, the layer and the line of code that produced the first NaN."""

from __future__ import annotations

import linecache
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from reprlib import Repr
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from ..arguments import describe
from ..hooks import Hook, installed
from ..record import Primitive, mode
from ..tensor import Array, Tensor
from ..walk import walk

__all__ = ["AnomalyError", "detect_anomaly", "locate_nonfinite"]

PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
LAYERS = f"{PACKAGE}nn{os.sep}"
STANDARD_LIBRARY = ("<frozen ", os.path.dirname(os.__file__) + os.sep)
MAX_FRAMES = 10  # of a stack, shown in a message
MAX_OBJECTS = 10_000  # of a model, searched for a layer or a parameter
_repr = Repr()
_repr.maxother = 100


class AnomalyError(FloatingPointError):
    """A NaN, or an infinite gradient, found by `detect_anomaly`; the first line of the message is a summary."""


class detect_anomaly(Hook):  # noqa: N801  # a context manager, named as in PyTorch
    """Raise an error at the op that produces the first NaN, in all threads.

    The error names the op, the pass (forward or backward) and the layer, and shows the stack of the call. For a
    gradient it also shows the stack of the forward call. In the forward pass only NaN is an error, because infinity is
    often intended, as in masks. In the backward pass NaN and infinity are errors. Intermediate values of a VJP rule may
    be anything, as long as the gradient that the rule returns is finite.

    No result changes. Each op takes some microseconds longer, and its result is read once more.

    Attributes
    ----------
    first_infinity : str or None
        The first op of the forward pass that produced infinity from finite inputs. Errors mention it.

    Raises
    ------
    AnomalyError
        From the op or the backward pass that produced the value.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> x = tg.Tensor([4.0, 0.0], requires_grad=True)
    >>> with np.errstate(divide="ignore"), tg.detect_anomaly():
    ...     try:
    ...         x.sqrt().sum().backward()
    ...     except tg.AnomalyError as error:
    ...         print(str(error).splitlines()[0])
    infinity first appeared in the backward of sqrt, gradient by input 0: 1 of 2 values
    """

    def __init__(self) -> None:
        self.first_infinity: str | None = None
        # id of an array -> a weak reference, whose callback removes the entry, and the call that created the array
        self._created: dict[int, tuple[Any, _Call]] = {}
        self._rule = threading.local()
        self._context = ExitStack()

    def __enter__(self) -> detect_anomaly:
        self._context.enter_context(installed(self))
        self.first_infinity = None
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()
        self._created.clear()

    def forward(self, op: Any, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Compute a primitive, check the result and remember the call that created it."""
        out, rule = np.asarray(super().forward(op, arrays, keywords)), getattr(self._rule, "op", "")
        if out.dtype.kind != "f":
            return out
        if not rule and not np.isfinite(out).all():
            self._check_output(op.__name__, arrays, keywords, out)
        if mode.recording:
            created = self._created
            if id(out) in created:  # the op returned its input, as astype may: a view gets an entry of its own
                out = out.view()
            key = id(out)
            created[key] = weakref.ref(out, lambda _: created.pop(key, None)), _current_call(rule)
        return out

    def rule(self, rule: Callable[..., Any], position: int, g: Any, node: Tensor) -> Any:
        """Compute a VJP rule and check the result."""
        assert node.op is not None
        outer, self._rule.op = getattr(self._rule, "op", ""), node.op.__name__
        try:
            result = super().rule(rule, position, g, node)
        finally:
            self._rule.op = outer
        if not _is_finite(result):
            self._raise_for_rule(node.op.__name__, position, g, node, result)
        return result

    def _check_output(self, op: str, arrays: Sequence[Any], keywords: dict[str, Any], out: Array) -> None:
        inputs = {f"input {i}": a for i, a in enumerate(arrays)}
        inputs |= {f"setting {name}": value for name, value in keywords.items()}
        kind, test, count = _nonfinite(out)
        source = next((name for name, a in inputs.items() if any(test(part).any() for part in _floats(a))), None)
        if kind == "infinity" and (source or self.first_infinity):
            return
        call = _current_call()
        summary = f"{kind} first appeared in the output of {op}, forward{call.describe_layer()}: {count}"
        if kind == "infinity":
            self.first_infinity = summary
            return
        if source:
            count, name = _nonfinite(inputs[source])[2], call.describe_array(inputs[source])
            summary = f"{source} of {op} is NaN already: {count} of {name}, forward{call.describe_layer()}"
        self._raise(summary, {"inputs": _describe_all(arrays), "output": describe(out), "called at": call.stack()})

    def _raise_for_rule(self, op: str, position: int, g: Any, node: Tensor, result: Any) -> None:
        _, created = self._created.get(id(node.data), (None, None))
        kind, _, count = _nonfinite(result if _is_finite(g) else g)
        layer = created.describe_layer() if created else ""
        summary = f"{kind} first appeared in the backward of {op}, gradient by input {position}{layer}: {count}"
        if not _is_finite(g):
            origin = "given (gradient=) or the sum of finite ones"
            summary = f"the cotangent of {op} has {kind} already, backward{layer}: {count}, {origin}"
        details = {
            "cotangent": _describe_all(_floats(g)),
            "inputs": _describe_all(node.inputs or ()),
            "output": describe(node),
            "created at": created.stack() if created else "unknown: created before detect_anomaly() was entered",
            "called at": _current_call().stack(),
        }
        self._raise(summary, details)

    def _raise(self, summary: str, details: dict[str, str]) -> None:
        details |= {"before": self.first_infinity} if self.first_infinity else {}
        indent = "\n" + " " * 14
        lines = [f"  {f'{label}:':<12}{text.replace(chr(10), indent)}" for label, text in details.items()]
        raise AnomalyError("\n".join([summary, *lines]))


class _Call(NamedTuple):
    """The stack of a call of an op, from the innermost frame out."""

    frames: list[tuple[str, int, str]]  # file, line and function
    owners: list[Callable[[], Any]]  # references to the callable objects whose methods were running
    owner_class: str  # of the innermost owner
    rule: str  # the op whose rule made the call, or ""

    def find_model(self) -> tuple[Any, Any, str]:
        """Return the innermost owner, the outermost owner that contains it, and its path in that."""
        layer, *others = [reference() for reference in self.owners] or [None]
        model, path = layer, ""
        for owner in others if layer is not None else []:
            if (found := _find_path(owner, lambda value: value is layer)) is not None:
                model, path = owner, found
        return layer, model, path

    def describe_layer(self) -> str:
        """Name the innermost owner, for a message."""
        layer, _, path = self.find_model()
        has_repr = layer is not None and getattr(type(layer), "__repr__", None) is not object.__repr__
        shown = _repr.repr_instance(layer, 1) if has_repr else self.owner_class
        return f", in {path} ({shown})" if path else f", in {shown}" if shown else ""

    def describe_array(self, array: Any) -> str:
        """Name the parameter that holds an array, for a message."""
        path = _find_path(self.find_model()[1], lambda value: isinstance(value, Tensor) and value.data is array)
        return f"parameter {path}" if path else "data"

    def stack(self) -> str:
        """Format the frames as a traceback does, the innermost last."""
        lines, folder = ["…"] if len(self.frames) > MAX_FRAMES else [], Path.cwd()
        for file, number, function in self.frames[MAX_FRAMES - 1 :: -1]:
            path, source = Path(file), linecache.getline(file, number).strip()
            path = path.relative_to(folder) if path.is_relative_to(folder) else path
            lines.append(f"{path}:{number} in {function}" + (source and f": {source}"))
        return "\n".join(lines + ([f"in the backward of {self.rule}"] if self.rule else []))


def _current_call(rule: str = "") -> _Call:
    """Return the stack of the user's code and of layers; without such frames, the outermost frame of the package."""
    frames, owners, outermost, user_code = list[tuple[str, int, str]](), list[Any](), ("", 0, ""), False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        entry = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        origin = _origin(entry[0])
        user_code = user_code or origin == "user"
        # installed code further out than the user's may be a test runner: it is left out
        if origin in ("user", "layers") or (origin == "installed" and not user_code):
            frames.append(entry)
            owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
            if callable(owner) and not isinstance(owner, (Tensor, Primitive, Hook)):
                if not any(owner is other for other in owners):
                    owners.append(owner)
        elif origin == "package":
            outermost = entry
        frame = frame.f_back
    owner_class = type(owners[0]).__name__ if owners else ""
    return _Call(frames or [outermost], list(map(_reference, owners)), owner_class, rule)


@cache
def _origin(file: str) -> str:
    if file.startswith(PACKAGE):
        return "layers" if file.startswith(LAYERS) else "package"
    if f"-packages{os.sep}" in file:
        return "installed"
    return "standard library" if file.startswith(STANDARD_LIBRARY) else "user"


def _reference(owner: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(owner)
    except TypeError:  # a class with __slots__
        return lambda: owner


def _find_path(model: Any, predicate: Callable[[Any], bool]) -> str | None:
    """Return the path of the first object of a model for which `predicate` holds."""
    with suppress(Exception):  # attributes of an arbitrary object may raise
        return next((path for path, value in islice(walk(model), MAX_OBJECTS) if predicate(value)), None)
    return None


def _floats(value: Any) -> list[Array]:
    """Return the floating-point arrays of a Tensor, an array, a number or a tuple of these; else an empty list."""
    if isinstance(value, tuple):
        return [array for part in value for array in _floats(part)]
    array = value.data if isinstance(value, Tensor) else value
    is_float = isinstance(array, (float, np.floating, np.ndarray)) and np.asarray(array).dtype.kind == "f"
    return [np.asarray(array)] if is_float else []


def _is_finite(value: Any) -> bool:
    return all(np.isfinite(array).all() for array in _floats(value))


def _nonfinite(value: Any) -> tuple[str, np.ufunc, str]:
    """Return the kind of nonfinite number in a value, the test for it, and a count for messages."""
    arrays = _floats(value)
    kind, test = ("NaN", np.isnan) if any(np.isnan(array).any() for array in arrays) else ("infinity", np.isinf)
    count, size = sum(int(test(array).sum()) for array in arrays), sum(array.size for array in arrays)
    return kind, test, f"{count} of {size} values"


def _describe_all(values: Sequence[Any]) -> str:
    return ", ".join(map(describe, values))


def locate_nonfinite(function: Callable[[], Any]) -> str:
    """Call a function with anomaly detection and describe the op that produced the first NaN or infinity.

    Parameters
    ----------
    function : callable
        Computes the values that were not finite.

    Returns
    -------
    str
        A text for an error message.

    Examples
    --------
    >>> from tinygrad_mnist import exp
    >>> with np.errstate(over="ignore"):
    ...     locate_nonfinite(lambda: exp(1e9))
    'infinity first appeared in the output of exp, forward: 1 of 1 values'
    """
    with detect_anomaly() as anomaly:
        try:
            function()
        except FloatingPointError as error:
            return f"{anomaly.first_infinity}; then {error}" if anomaly.first_infinity else str(error)
    return anomaly.first_infinity or "no op produced it: it was in the inputs, or came from summing shards"
