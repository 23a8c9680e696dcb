"""What a command line does before its imports, which take most of a second: Ctrl-C and output that nobody reads."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys

TYPE_CHECKING = False  # importing typing takes as long as all of the above
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def prepare(program: str) -> None:
    """Let Ctrl-C during imports end the program with one line and code 130; let output fail without ending it."""

    def interrupted(number: int, frame: object) -> None:
        os._exit(_interrupted(program))  # modules in C make errors of their own of an exception

    sys.stdout, sys.stderr = forgiving(sys.stdout), forgiving(sys.stderr)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, interrupted)


def call(main: Callable[[], int], program: str) -> int:
    """Return the exit code of `main`; Ctrl-C, where it does not handle that itself, is one line and code 130, too.

    It is the last thing that a program does: objects that are left are not searched for cycles any more.
    """
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    except KeyboardInterrupt:
        return _interrupted(program)
    finally:
        gc.freeze()  # at the exit that search takes 0.08 s where Matplotlib was imported


def _interrupted(program: str) -> int:
    print(f"{program}: interrupted", file=sys.stderr)
    return 128 + signal.SIGINT


def forgiving(stream: Any) -> Any:
    """Return a stream of text that drops what cannot be written: a closed pipe or a full disk is no failure of a run.

    Any text can be written, such as the name of a folder: what the encoding lacks is escaped. A closed stream is None.
    """
    if stream is None:
        return None
    raw = _Forgiving(getattr(stream.buffer, "raw", stream.buffer))
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=True)


def lost(stream: Any) -> OSError | None:
    """Return why a forgiving stream dropped what was written last: a BrokenPipeError, for instance."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.problem if isinstance(raw, _Forgiving) else None


class _Forgiving(io.RawIOBase):
    """A file that takes everything, and writes what it can."""

    problem: OSError | None = None  # of the last write

    def __init__(self, file: io.RawIOBase) -> None:
        self.file = file

    def write(self, data: Any) -> int:
        try:
            written, self.problem = self.file.write(data), None
        except OSError as error:
            written, self.problem = None, error
        return len(data) if written is None else written

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file.fileno()

    def isatty(self) -> bool:
        return self.file.isatty()
