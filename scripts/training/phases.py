"""Where the seconds of a run go, from the start of the process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

IMPORTED = time.perf_counter()
Given = ParamSpec("Given")
Result = TypeVar("Result")


class Phases:
    """A clock that gives each moment since the start of the process to one phase, so that phases add up to the total.

    What is in no other phase is set-up.

    Attributes
    ----------
    seconds : dict of str to float
        Of each phase that has ended or was interrupted by another, in the order in which they first began.

    Examples
    --------
    >>> phases = Phases()
    >>> with phases.part("training"):
    ...     with phases.part("evaluation"):
    ...         pass
    >>> list(phases.seconds)
    ['interpreter and imports', 'set-up', 'training', 'evaluation']
    """

    def __init__(self) -> None:
        self.seconds = {"interpreter and imports": process_age()}
        self._current, self._begun = "set-up", time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Give the time in the block to a phase; afterwards the phase around it goes on."""
        outer = self._change(name)
        try:
            yield
        finally:
            self._change(outer)

    def timed(self, name: str, function: Callable[Given, Result]) -> Callable[Given, Result]:
        """Return a function whose time is given to a phase."""

        @wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            with self.part(name):
                return function(*args, **kwargs)

        return call

    def _change(self, name: str) -> str:
        before, now = self._current, time.perf_counter()
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._begun
        self.seconds.setdefault(name, 0.0)
        self._current, self._begun = name, now
        return before

    def table(self) -> str:
        """Return a line for each phase, and the total, up to now."""
        self._change(self._current)
        total = sum(self.seconds.values())
        lines = [*self.seconds.items(), ("total", total)]
        return "\n".join(f"{name:<26}{seconds:9.3f} s{seconds / total:8.1%}" for name, seconds in lines)


def process_age() -> float:
    """Return the seconds since this process was started, on Linux to 0.01; elsewhere since this module was imported."""
    known = time.perf_counter() - IMPORTED
    if sys.platform != "linux":
        return known
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            started = int(file.read().rpartition(")")[2].split()[19])  # in ticks since the system was booted
    except (OSError, IndexError, ValueError):  # a sandbox
        return known
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return max(age, known)
