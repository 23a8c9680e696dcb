"""What the command lines of this project share.

One-line errors, signals, and talking to people who may have stopped listening.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import tinygrad_mnist as tg


class Parser(argparse.ArgumentParser):
    """Ends with one line and code 2 where argparse would show the usage, too.

    What is not given is not in the result.
    """

    def __init__(self, prog: str, description: str | None, epilog: str) -> None:
        def wide(prog: str) -> argparse.HelpFormatter:
            return argparse.HelpFormatter(prog, max_help_position=28, width=110)

        super().__init__(
            prog, description=description, epilog=epilog, formatter_class=wide, argument_default=argparse.SUPPRESS
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to find out what is right."""
        self.exit(2, f"{self.prog}: {message} (--help lists all options)\n")


def number(kind: type, least: float) -> Callable[[str], Any]:
    """Argument type: a finite number of at least `least`."""
    what = (
        f"a whole number of at least {least:g} and below 2**63"
        if kind is int
        else f"a finite number of at least {least:g}"
    )

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < (2**63 if kind is int else math.inf):
            raise argparse.ArgumentTypeError(f"{text[:50]!r} is not {what}")
        return value

    return parse


def folder(text: str) -> Path:
    """Argument type: a folder's name."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a folder (. is this one)")
    return Path(text)


class Stop:
    """Note SIGINT, SIGTERM and SIGHUP, so that a step can be finished; a second one ends it at once."""

    signal = 0

    def __enter__(self) -> Stop:
        found = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        found = [
            s for s in found if s == signal.SIGINT or signal.getsignal(s) != signal.SIG_IGN
        ]  # nohup goes on ignoring SIGHUP
        self.before = {s: signal.signal(s, self.note) for s in found}
        return self

    def note(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        again, self.signal = self.signal, number
        if again:
            raise KeyboardInterrupt

    def __exit__(self, *exception: object) -> None:
        for s, handler in self.before.items():
            signal.signal(s, handler)


def missing_extras(wanted: Iterable[tuple[str, str, str]]) -> str | None:
    """Name what the chosen options need and is not installed, before any time is spent.

    (module, purpose, what to do without it).
    """
    for module, purpose, instead in wanted:
        if importlib.util.find_spec(module) is None:
            return f"{purpose} needs {module}: pip install 'tinygrad_mnist[train]'{instead}"
    return None


def tell(text: str, write: Callable[[str], None] = print) -> None:
    """Print to people; that nobody reads it (any more) is no failure of the run."""
    try:
        write(text)
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def data_place(given: str | None) -> str | None:
    """Where data was asked for, from any folder: an absolute path, "synthetic", or None for wherever it is found."""
    named = given or os.environ.get("TINYGRAD_MNIST_DATA") or None
    return named if named in (None, "synthetic") else os.path.abspath(os.path.expanduser(named))


def fingerprint(data: tg.data.Dataset) -> str:
    """SHA-256 of all images and labels."""
    digest = hashlib.sha256()
    for array in data[:4]:
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array).data)
    return digest.hexdigest()


def announce(data: tg.data.Dataset) -> None:
    """Say which data it is, loudly if it is not real."""
    name, _, why = data.source.partition(" (")
    tell(f"{'!' * 24} {name} {'!' * 24} ({why}" if data.synthetic else f"data: {data.source}")
