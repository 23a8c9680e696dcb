"""Time and memory of every primitive and every VJP rule, in all threads, as a table and as a trace."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from ..hooks import Hook, installed
from ..tensor import Tensor
from ..validation import integer

__all__ = ["Profile"]


class Event(NamedTuple):
    """One call of a primitive or of a VJP rule."""

    name: str
    op: str  # the op that the time is attributed to: for a primitive called by a rule, the op of that rule
    phase: str  # "forward"; "backward": a rule; "in rule": a primitive called by a rule
    shapes: tuple[tuple[int, ...], ...]  # of the input arrays
    thread: str
    begin: int  # nanoseconds, as all times here
    end: int
    memory: int  # bytes allocated for the result; 0 for a view


class Profile(Hook):
    """Record the time of each op, forward and backward, in all threads.

    It is a context manager and can be entered several times; events accumulate. Several profiles can be active inside
    each other: each records everything.

    The copies of gradients that `grad` returns are recorded as forward calls of `copy`. The accumulation of gradients
    is not recorded.

    Attributes
    ----------
    events : list of Event
        In the order in which they ended.
    wall : int
        Nanoseconds spent in the context.

    Examples
    --------
    >>> import numpy as np, tinygrad_mnist as tg
    >>> x = tg.Tensor(np.ones((100, 100)), requires_grad=True)
    >>> with tg.Profile() as profile:
    ...     (x @ x).sum().backward()
    >>> [event.name for event in profile.events if event.phase == "forward"]
    ['matmul', 'sum']
    >>> print(profile.table().splitlines()[0])
    op        calls  forward ms  backward ms       MiB   share
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.wall = 0
        self._rule = threading.local()
        self._context = ExitStack()

    def __enter__(self) -> Profile:
        self._context.enter_context(installed(self))
        self._begin = perf_counter_ns()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall += perf_counter_ns() - self._begin
        self._context.close()

    def forward(self, op: Any, arrays: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Compute a primitive and record an event."""
        begin = perf_counter_ns()
        out = super().forward(op, arrays, keywords)
        end = perf_counter_ns()
        inputs = [a for a in arrays if isinstance(a, np.ndarray)]
        memory = 0 if any(np.may_share_memory(out, a) for a in inputs) else np.asarray(out).nbytes
        owner = getattr(self._rule, "op", None)
        phase = "in rule" if owner else "forward"
        self._record(op.__name__, owner or op.__name__, phase, inputs, begin, end, memory)
        return out

    def rule(self, rule: Callable[..., Any], position: int, g: Any, node: Tensor) -> Any:
        """Compute a VJP rule and record an event."""
        assert node.op is not None
        outer, name = getattr(self._rule, "op", None), node.op.__name__
        self._rule.op = name
        begin = perf_counter_ns()
        try:
            return super().rule(rule, position, g, node)
        finally:
            end = perf_counter_ns()
            self._rule.op = outer
            inputs = [a for a in (g, *(node.inputs or ())) if isinstance(a, Tensor)]
            self._record(f"{name}, rule {position}", name, "backward", inputs, begin, end, 0)

    def _record(self, name: str, op: str, phase: str, inputs: Sequence[Any], begin: int, end: int, memory: int) -> None:
        shapes, thread = tuple([a.shape for a in inputs]), threading.current_thread().name
        self.events.append(Event(name, op, phase, shapes, thread, begin, end, memory))

    def table(self, steps: int = 1) -> str:
        """Summarize time, calls and memory by op, the slowest first.

        Parameters
        ----------
        steps : int
            Divide everything by this number, to get the averages per training step.

        Returns
        -------
        str
            A line for each op: forward calls; milliseconds forward and backward (its rules), summed over threads; MiB
            allocated for results; share of the time of all ops. The last line compares the sum with the wall time. The
            rest of the wall time is Python, the optimizer, and threads waiting.

        Raises
        ------
        ValueError
            If `steps` is less than 1.
        """
        steps = integer("Profile.table", "steps", steps, 1)
        rows: dict[str, list[float]] = {}
        for event in self.events:
            row = rows.setdefault(event.op, [0, 0, 0, 0])
            row[3] += event.memory / 2**20
            if event.phase == "forward":
                row[0] += 1
            if event.phase != "in rule":
                row[1 if event.phase == "forward" else 2] += (event.end - event.begin) / 1e6
        total = sum(forward + backward for _, forward, backward, _ in rows.values())
        width = max([len(op) for op in rows] + [8])
        lines = [f"{'op':<{width}}{'calls':>7}{'forward ms':>12}{'backward ms':>13}{'MiB':>10}{'share':>8}"]
        for op, (calls, forward, backward, memory) in sorted(rows.items(), key=lambda item: -item[1][1] - item[1][2]):
            share = (forward + backward) / total if total else 0
            times = f"{calls / steps:>7.4g}{forward / steps:>12.3f}{backward / steps:>13.3f}"
            lines.append(f"{op:<{width}}{times}{memory / steps:>10.2f}{share:>8.1%}")
        threads = len({event.thread for event in self.events})
        lines.append(f"all ops: {total / steps:.1f} ms on {threads} threads, in {self.wall / 1e6 / steps:.1f} ms")
        return "\n".join(lines)

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events as JSON in the Trace Event Format, one row per thread.

        Open the file in https://ui.perfetto.dev or chrome://tracing.
        """
        threads = {name: number for number, name in enumerate(dict.fromkeys(event.thread for event in self.events))}
        trace: list[dict[str, Any]] = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": {"name": name}}
            for name, number in threads.items()
        ]
        for e in sorted(self.events, key=lambda event: event.begin):
            times = {"ts": e.begin / 1000, "dur": (e.end - e.begin) / 1000}  # microseconds
            args = {"shapes": [list(shape) for shape in e.shapes], "bytes": e.memory}
            row = {"ph": "X", "name": e.name, "cat": e.phase, "pid": 0, "tid": threads[e.thread]}
            trace.append({**row, **times, "args": args})
        Path(path).write_text(json.dumps({"traceEvents": trace, "displayTimeUnit": "ms"}), encoding="utf-8")
