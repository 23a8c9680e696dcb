"""Where the first NaN comes from: the op or the rule, the layer, and the line of the call."""

from __future__ import annotations

import linecache
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from reprlib import Repr
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..tensor import Array, Primitive, Tensor, Watcher, _described, is_recording, watching

__all__ = ["AnomalyError", "detect_anomaly", "locate_nonfinite"]

ENGINE, PYTHON = os.path.dirname(os.path.dirname(__file__)) + os.sep, os.path.dirname(os.__file__) + os.sep
DEPTH, VISITS = 10, 10_000  # lines of a stack that are shown; objects of a model that are looked at
_short = Repr()
_short.maxother = 100


class AnomalyError(FloatingPointError):
    """A NaN, or an infinite gradient, that `detect_anomaly` found; the first line of the message is a summary of it."""


class detect_anomaly(Watcher):  # noqa: N801  # a context, called as in PyTorch
    """Raise an error where the first NaN appears while in this context, in all threads: to find out what makes a loss
    NaN.

    The error names the op, forward or backward, and its layer, and shows the stack of the call; for a gradient, also
    that of the call which created what it belongs to. Forward, only NaN is an error, since infinity is meant in many
    places, such as masks; backward, both are. What is computed within a rule may be anything, as long as the gradient
    that the rule returns is finite.

    Nothing that is computed changes. Each op takes some microseconds longer, and one more look at its result.

    Attributes
    ----------
    first_infinity : str or None
        Where, forward, an op first made infinity of finite numbers. Errors mention it.

    Raises
    ------
    AnomalyError
        From the op or the backward pass in which it was found.

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
        self._made: dict[
            int, tuple[Any, _Call]
        ] = {}  # by id of an array: a weak reference that removes the entry, and where it was made
        self._rule = threading.local()
        self._context = ExitStack()

    def __enter__(self) -> detect_anomaly:
        self._context.enter_context(watching(self))
        self.first_infinity = None
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()
        self._made.clear()

    def forward(self, op: Primitive, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Compute a primitive, look at the result and remember where it was made."""
        out, rule = np.asarray(super().forward(op, arrays, keywords)), getattr(self._rule, "op", "")
        if out.dtype.kind != "f":
            return out
        if not rule and not np.isfinite(out).all():
            self._inspect(op.__name__, arrays, keywords, out)
        if is_recording():
            made = self._made
            if id(out) in made:  # an array that was given back as it came in, as by astype: tell the two apart
                out = out.view()
            key = id(out)
            made[key] = weakref.ref(out, lambda _: made.pop(key, None)), _call(rule)
        return out

    def rule(self, rule: Callable[..., Any], position: int | None, g: Any, node: Tensor) -> Any:
        """Compute one rule and look at the result."""
        assert node.op is not None
        outer, self._rule.op = getattr(self._rule, "op", ""), node.op.__name__
        try:
            result = super().rule(rule, position, g, node)
        finally:
            self._rule.op = outer
        if not _finite(result):
            self._inspect_rule(node.op.__name__, position, g, node, result)
        return result

    def _inspect(self, op: str, arrays: Sequence[Any], keywords: dict[str, Any], out: Array) -> None:
        inputs = {f"input {i}": a for i, a in enumerate(arrays)} | {
            f"setting {name}": value for name, value in keywords.items()
        }
        kind, bad, count = _badness(out)
        given = next((name for name, a in inputs.items() if any(bad(part).any() for part in _floats(a))), None)
        if kind == "infinity" and (given or self.first_infinity):
            return
        call = _call()
        summary = f"{kind} first appeared in the output of {op}, forward{call.layer()}: {count}"
        if kind == "infinity":
            self.first_infinity = summary
            return
        if given:
            summary = (
                f"{given} of {op} is NaN already: {_badness(inputs[given])[2]} of {call.holder(inputs[given])}, "
                f"forward{call.layer()}"
            )
        self._fail(summary, {"inputs": _listed(arrays), "output": _described(out), "called at": call.stack()})

    def _inspect_rule(self, op: str, position: int | None, g: Any, node: Tensor, result: Any) -> None:
        _, made = self._made.get(id(node.data), (None, None))
        kind, _, count = _badness(result if _finite(g) else g)
        layer, part = (
            made.layer() if made else "",
            "what its rules share" if position is None else f"gradient by input {position}",
        )
        summary = f"{kind} first appeared in the backward of {op}, {part}{layer}: {count}"
        if not _finite(g):
            summary = (
                f"the cotangent of {op} has {kind} already, backward{layer}: {count}, given (gradient=) or the sum "
                "of finite ones"
            )
        details = {"cotangent": _listed(_floats(g)), "inputs": _listed(node.inputs or ()), "output": _described(node)}
        created = made.stack() if made else "unknown: created before detect_anomaly() was entered"
        self._fail(summary, details | {"created at": created, "called at": _call().stack()})

    def _fail(self, summary: str, details: dict[str, str]) -> None:
        details |= {"before": self.first_infinity} if self.first_infinity else {}
        lines = [
            "  {:<12}{}".format(label + ":", text.replace("\n", "\n" + " " * 14)) for label, text in details.items()
        ]
        raise AnomalyError("\n".join([summary, *lines]))


class _Call(NamedTuple):
    """Where an op was called."""

    lines: list[tuple[str, int, str]]  # file, line and function, from the innermost out
    owners: list[
        Callable[[], Any]
    ]  # references to the callable objects whose methods were running, from the innermost out
    kind: str  # the class of the innermost
    rule: str  # the op whose rule it was in

    def model(self) -> tuple[Any, Any, str]:
        """Return the innermost object, the outermost one that holds it, and its path in that."""
        layer, *others = [ref() for ref in self.owners] or [None]
        model, path = layer, ""
        for owner in others if layer is not None else []:
            if (found := _path(owner, lambda value: value is layer)) is not None:
                model, path = owner, found
        return layer, model, path

    def layer(self) -> str:
        """Name the innermost object, for a message."""
        layer, _, path = self.model()
        plain: bool = layer is None or getattr(type(layer), "__repr__", None) is object.__repr__
        shown = self.kind if plain else _short.repr_instance(layer, 1)
        return f", in {path} ({shown})" if path else f", in {shown}" if shown else ""

    def holder(self, array: Any) -> str:
        """Name what an array is."""
        path = _path(self.model()[1], lambda value: isinstance(value, Tensor) and value.data is array)
        return f"parameter {path}" if path else "data"

    def stack(self) -> str:
        """Show the lines as a traceback does: the innermost is the last."""
        shown, folder = ["…"] if len(self.lines) > DEPTH else [], Path.cwd()
        for file, line, function in self.lines[DEPTH - 1 :: -1]:
            path, text = Path(file), linecache.getline(file, line).strip()
            path = path.relative_to(folder) if path.is_relative_to(folder) else path
            shown.append(f"{path}:{line} in {function}" + (text and f": {text}"))
        return "\n".join(shown + ([f"in the backward of {self.rule}"] if self.rule else []))


def _call(rule: str = "") -> _Call:
    """Look at who has called.

    The user's own frames and layers, or else the outermost frame of the engine (on a thread, for instance).
    """
    lines, owners, engine, own = list[tuple[str, int, str]](), list[Any](), ("", 0, ""), False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        line = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        origin = _origin(line[0])
        own = own or origin == "own"
        if origin in ("own", "layers") or (
            origin == "installed" and not own
        ):  # what is installed and further out may be a test runner
            lines.append(line)
            owner = _self(frame)
            if (
                callable(owner)
                and not isinstance(owner, (Tensor, Primitive, Watcher))
                and not any(owner is known for known in owners)
            ):
                owners.append(owner)
        elif origin == "engine":
            engine = line
        frame = frame.f_back
    return _Call(lines or [engine], list(map(_reference, owners)), type(owners[0]).__name__ if owners else "", rule)


@cache
def _origin(file: str) -> str:
    if file.startswith(ENGINE):
        return "layers" if file == nn.__file__ else "engine"
    if f"-packages{os.sep}" in file:
        return "installed"
    return "python" if file.startswith(("<frozen ", PYTHON)) else "own"


def _self(frame: FrameType) -> Any:
    """Return the object whose method a frame runs."""
    return frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None


def _reference(owner: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(owner)
    except TypeError:  # a class with __slots__
        return lambda: owner


def _path(model: Any, wanted: Callable[[Any], bool]) -> str | None:
    """Walk a model as `nn.parameters` does until something is found."""
    seen, waiting = set[int](), [("", model)]
    while waiting and len(seen) < VISITS:
        path, value = waiting.pop()
        if wanted(value):
            return path
        if id(value) not in seen and not isinstance(value, Tensor):
            seen.add(id(value))
            with suppress(Exception):  # it may be any object
                waiting += [(f"{path}.{name}" if path else str(name), child) for name, child in nn._children(value)][
                    ::-1
                ]
    return None


def _floats(value: Any) -> list[Array]:
    """Return the floating-point arrays of a Tensor, an array, a number or a tuple of such; of anything else, none."""
    if isinstance(value, tuple):
        return [array for part in value for array in _floats(part)]
    array = value.data if isinstance(value, Tensor) else value
    return (
        [np.asarray(array)]
        if isinstance(array, (float, np.floating, np.ndarray)) and np.asarray(array).dtype.kind == "f"
        else []
    )


def _finite(value: Any) -> bool:
    return all(np.isfinite(array).all() for array in _floats(value))


def _badness(value: Any) -> tuple[str, np.ufunc, str]:
    """Return what is bad in a value that is not finite, a test for it, and how much of it is."""
    arrays = _floats(value)
    kind, bad = ("NaN", np.isnan) if any(np.isnan(array).any() for array in arrays) else ("infinity", np.isinf)
    return (
        kind,
        bad,
        f"{sum(int(bad(array).sum()) for array in arrays)} of {sum(array.size for array in arrays)} values",
    )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(_described, values))


def locate_nonfinite(function: Callable[[], Any]) -> str:
    """Call a function again under `detect_anomaly`, and say which op produced the first NaN or infinity.

    Parameters
    ----------
    function : callable
        Computes what was not finite; ops in it are inspected one by one.

    Returns
    -------
    str
        For an error message.

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
