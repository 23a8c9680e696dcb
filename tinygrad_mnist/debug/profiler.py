"""Where the time goes: every primitive and every rule, in all threads, as a table and as a trace."""

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

__all__ = ["Profile"]


class Event(NamedTuple):
    """One call of a primitive or of a rule."""

    name: str
    op: str  # whose time it is: for what is computed in a rule, the op that the rule belongs to
    phase: str  # "forward"; "backward": a rule; "in rule": a primitive that is called by a rule
    shapes: tuple[tuple[int, ...], ...]  # of the arrays that went in
    thread: str
    begin: int  # in nanoseconds, as all times here
    end: int
    memory: int  # new memory for the result, in bytes; 0 for a view


class Profile(Hook):
    """Record how long each op takes, forward and backward, while in its context; in all threads, and for as many
    contexts as you like.

    What a backward pass does outside of rules is recorded as forward ops: `copy`, of the gradients that `grad` returns.
    The adding up of gradients is not recorded. Several profiles can be active, inside each other: each records
    everything.

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
        """Compute a primitive and take the time."""
        begin = perf_counter_ns()
        out = super().forward(op, arrays, keywords)
        end = perf_counter_ns()
        name, inputs = op.__name__, [a for a in arrays if isinstance(a, np.ndarray)]
        owner = getattr(self._rule, "op", None)
        memory = 0 if any(np.may_share_memory(out, a) for a in inputs) else np.asarray(out).nbytes
        shapes, thread = tuple([a.shape for a in inputs]), threading.current_thread().name
        self.events.append(
            Event(name, owner or name, "in rule" if owner else "forward", shapes, thread, begin, end, memory)
        )
        return out

    def rule(self, rule: Callable[..., Any], position: int, g: Any, node: Tensor) -> Any:
        """Compute one rule and take the time."""
        assert node.op is not None
        outer, name = getattr(self._rule, "op", None), node.op.__name__
        self._rule.op = name
        begin = perf_counter_ns()
        try:
            return super().rule(rule, position, g, node)
        finally:
            end = perf_counter_ns()
            self._rule.op = outer
            shapes = tuple([a.shape for a in (g, *(node.inputs or ())) if isinstance(a, Tensor)])
            label = f"{name}, rule {position}"
            self.events.append(Event(label, name, "backward", shapes, threading.current_thread().name, begin, end, 0))

    def table(self, steps: int = 1) -> str:
        """Time, calls and memory by op, the longest first.

        Parameters
        ----------
        steps : int
            Divide everything by this number.

        Returns
        -------
        str
            A line for each op: forward calls; milliseconds forward and backward (its rules), added up over threads; MiB
            of new memory for results; share of the time of all ops. The last line says how much of the wall time that
            is: the rest is Python, the optimiser, and threads waiting.
        """
        if steps < 1:
            raise ValueError(
                f"Profile.table: steps is {steps}; pass the number of steps that were profiled, at least 1"
            )
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
        """Write the events for chrome://tracing or https://ui.perfetto.dev, a row for each thread (Trace Event Format,
        JSON).
        """
        threads = {name: number for number, name in enumerate(dict.fromkeys(event.thread for event in self.events))}
        trace: list[dict[str, Any]] = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": {"name": name}}
            for name, number in threads.items()
        ]
        for e in sorted(self.events, key=lambda event: event.begin):
            args = {"shapes": [list(shape) for shape in e.shapes], "bytes": e.memory}
            trace.append(
                {
                    "ph": "X",
                    "name": e.name,
                    "cat": e.phase,
                    "pid": 0,
                    "tid": threads[e.thread],
                    "ts": e.begin / 1000,
                    "dur": (e.end - e.begin) / 1000,
                    "args": args,
                }
            )
        Path(path).write_text(json.dumps({"traceEvents": trace, "displayTimeUnit": "ms"}), encoding="utf-8")
