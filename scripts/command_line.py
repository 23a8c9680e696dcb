"""What the command lines of this project share: options from a dataclass, one-line errors, signals."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import numpy as np

import tinygrad_mnist as tg

MNIST = "25c98f992c005963b7428e1f38418b233c9b286cc403519287eb8063f0bcfe07"  # its fingerprint


# Options from a dataclass ---------------------------------------------------------------------------------------------
def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    choices: Sequence[Any] | None = None,
    metavar: str | None = None,
    bare: Any = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Field of a dataclass that `add_options` makes an option of, and `check_values` checks.

    Parameters
    ----------
    default : object
    help : str
        Its text in ``--help``; the default is appended unless the text speaks of it (as ``{default}``, for instance).
    least : float, optional
        Lower bound of a number.
    above : float, optional
        In its place a bound that the number must exceed.
    choices : sequence, optional
        All allowed values.
    metavar : str, optional
        What ``--help`` calls the value.
    bare : object, optional
        The value if the option is given without one.
    parse : callable, optional
        From text to value, where the type does not say it.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Options:
    ...     epochs: int = option(8, "times to go through the images", least=1)
    >>> parser = argparse.ArgumentParser()
    >>> add_options(parser, Options)
    >>> Options(**vars(parser.parse_args(["--epochs", "3"])))
    Options(epochs=3)
    """
    if "default" not in help and default is not None and not isinstance(default, bool):
        help = f"{help} (default: {{default}})".strip()
    about = {"help": help, "least": least, "above": above, "choices": choices, "metavar": metavar, "bare": bare}
    return field(default=default, metadata={**about, "parse": parse})


def add_options(parser: Any, cls: type) -> None:
    """Add an option for each field of a dataclass to a parser or a group of one."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        about, kind = f.metadata, hints[f.name]
        name, text = f"--{f.name.replace('_', '-')}", about["help"].format(default=f.default)
        if kind is bool:
            parser.add_argument(name, action="store_true", help=text)
            continue
        parse = about["parse"] or _parser(_types(kind)[0], about["least"], about["above"])
        several = "+" if _is_sequence(kind) else None if about["bare"] is None else "?"
        how = {"metavar": about["metavar"], "choices": about["choices"], "const": about["bare"], "nargs": several}
        parser.add_argument(name, type=parse, help=text, **how)


def check_values(instance: Any) -> None:
    """Raise a ValueError, naming the first field of a dataclass whose value its type, bound or choices do not allow."""
    hints = get_type_hints(type(instance))
    for f in fields(instance):
        value, types, about = getattr(instance, f.name), _types(hints[f.name]), f.metadata
        if value is None and type(None) in _choices(hints[f.name]):
            continue
        values = value if _is_sequence(hints[f.name]) and isinstance(value, list | tuple) else [value]
        for single in values:
            right = isinstance(single, (*types, int) if float in types else types)
            right = right and (bool in types or not isinstance(single, bool))
            right = right and (about["choices"] is None or single in about["choices"])
            if not right or not _in_range(single, types[0], about["least"], about["above"]):
                words = f"one of {', '.join(map(str, about['choices']))}" if about["choices"] else None
                words = words or _number_words(types[0], about["least"], about["above"]) or f"of type {hints[f.name]}"
                raise ValueError(f"the setting {f.name} is {str(single)[:50]!r}; it must be {words}")


def _choices(hint: Any) -> tuple[Any, ...]:
    """What a union is of: (int, NoneType) of int | None, (str,) of str."""
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _is_sequence(hint: Any) -> bool:
    return any(get_origin(part) is tuple and get_args(part)[1:] == (...,) for part in _choices(hint))


def _types(hint: Any) -> tuple[type, ...]:
    """The types that a single value may have: (int, NoneType) of int | None, (str,) of tuple[str, ...] | None."""
    return get_args(_choices(hint)[0])[:1] if _is_sequence(hint) else _choices(hint)


def _in_range(value: Any, kind: type, least: float | None, above: float | None) -> bool:
    if least is None and above is None:
        return True
    enough = value >= least if above is None else value > above
    return bool(enough) and value < (2**63 if kind is int else math.inf)


def _number_words(kind: type, least: float | None, above: float | None) -> str | None:
    if least is None and above is None:
        return None
    words = f"of at least {least:g}" if above is None else f"above {above:g}"
    return f"a whole number {words} and below 2**63" if kind is int else f"a finite number {words}"


def _parser(kind: type, least: float | None, above: float | None) -> Callable[[str], Any]:
    if least is None and above is None:
        return folder if kind is Path else kind
    return number(kind, least, above)


def number(kind: type, least: float | None, above: float | None = None) -> Callable[[str], Any]:
    """Argument type: a finite number of at least `least`, or above `above`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not _in_range(value, kind, least, above):
            raise argparse.ArgumentTypeError(f"{text[:50]!r} is not {_number_words(kind, least, above)}")
        return value

    return parse


def folder(text: str) -> Path:
    """Argument type: a folder's name."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a folder (. is this one)")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """Ends with one line and code 2 where argparse would show the usage, too; holds only what is given."""

    def __init__(self, prog: str, description: str | None, epilog: str) -> None:
        def wide(prog: str) -> argparse.HelpFormatter:
            return argparse.HelpFormatter(prog, max_help_position=28, width=110)

        super().__init__(
            prog, description=description, epilog=epilog, formatter_class=wide, argument_default=argparse.SUPPRESS
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to find out what is right."""
        self.exit(2, f"{self.prog}: {message} (--help lists all options)\n")


# Signals, data --------------------------------------------------------------------------------------------------------
class Stop:
    """Note SIGINT, SIGTERM and SIGHUP, so that a step can be finished; a second one ends it at once."""

    signal = 0

    def __enter__(self) -> Stop:
        found = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        found = [s for s in found if s == signal.SIGINT or signal.getsignal(s) != signal.SIG_IGN]  # nohup: keep it
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


def missing_extras(wanted: Iterable[tuple[str, str, str]], extra: str = "train") -> str | None:
    """Name the first module that is needed and not installed, of (module, purpose, what to do without it)."""
    for module, purpose, instead in wanted:
        if importlib.util.find_spec(module) is None:
            return f"{purpose} needs {module}: pip install 'tinygrad_mnist[{extra}]'{instead}"
    return None


def show_source(data: tg.data.Dataset) -> None:
    """Say which data it is, loudly if it is not real."""
    name, _, why = data.source.partition(" (")
    print(f"{'!' * 24} {name} {'!' * 24} ({why}" if data.synthetic else f"data: {data.source}")


def data_place(given: str | None) -> str | None:
    """Where data was asked for, from any folder: an absolute path, "synthetic", or None for wherever it is found."""
    named = given or os.environ.get("TINYGRAD_MNIST_DATA") or None
    return named if named in (None, "synthetic") else os.path.abspath(os.path.expanduser(named))


def fingerprint(data: tg.data.Dataset) -> str:
    """SHA-256 of all images and labels; that of MNIST itself, which was verified when it was loaded, is known."""
    if data.source.startswith("MNIST from ") and len(data.images) == 60_000:
        return MNIST
    digest = hashlib.sha256()
    for array in data[:4]:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def peak_memory() -> str:
    """Largest memory that this process has had, for people."""
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return f"{peak:,.0f} MiB"
