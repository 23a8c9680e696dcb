"""The folder of a training run: configuration, metrics line by line, checkpoints, times; one process writes to it.

What is in ``metrics.jsonl`` is decided by configuration and data alone, so two runs can be compared byte for byte;
times have a file of their own.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..storage.checkpoint import CheckpointError, CheckpointManager
from ..storage.files import leftovers, read_whole, write_atomically
from ..validation import integer, real

__all__ = ["Run", "code_version", "read_metrics"]

LOG = logging.getLogger(__name__)
LOCK = ".lock"
MAX_BYTES = 1 << 28  # of a metrics file: some million steps


class Run:
    """A run folder, locked for this process until `close` or until the process ends.

    Made by `create`, or by `resume` and then `begin`.

    Attributes
    ----------
    folder : Path
    config : dict
        Of JSON values.
    rows : list of dict
        The lines of ``metrics.jsonl``.
    seconds : float
        That training took in earlier sessions.
    state : dict or None
        What was saved last, by `save`.
    log : callable
        Gets a line for each file that something else has deleted or changed, and that `save` writes again.
    """

    def __init__(self, folder: Path, log: Callable[[str], None] = LOG.warning) -> None:
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise ImportError("a run folder needs filelock; pip install 'tinygrad_mnist[train]'") from error
        self.folder, self.seconds, self.log = folder, 0.0, log
        self._begun: float | None = None
        self.config: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.state: dict[str, Any] | None = None
        self.checkpoints = CheckpointManager(folder)
        self._metrics, self._times = _Lines(folder / "metrics.jsonl"), _Lines(folder / "times.jsonl")
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f"another process is training in {folder}; let it end, or use another folder"
            ) from None

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        config: Mapping[str, Any],
        log: Callable[[str], None] = LOG.warning,
    ) -> Run:
        """Make a folder for a new run; one that exists must be empty.

        What a run leaves that was killed before its first line is ignored. `log` gets a line for each file that is
        found deleted or changed later.

        Raises
        ------
        OSError
            If it cannot be made, is not empty, or another process holds it; it is then as it was.
        """
        folder = Path(folder)
        cls._check_new(folder)
        new = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"the run folder {folder} cannot be made ({error.strerror}); choose another") from error
        run = cls(folder, log)
        try:
            cls._check_new(folder)  # once more: another process may have begun a run meanwhile
            run.config = json.loads(_json(config))
            run.begin()
        except BaseException:
            run.close()
            if new and not (folder / "config.json").exists():
                (folder / LOCK).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()
            raise
        return run

    @classmethod
    def resume(cls, folder: str | os.PathLike[str], log: Callable[[str], None] = LOG.warning) -> Run:
        """Continue a run from its newest checkpoint that can be read; `state` is None if it has none yet.

        `log` gets a line for each checkpoint that is damaged, and if there is none; later as in `create`.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or no run in it.
        BlockingIOError
            If another process holds it.
        CheckpointError
            If all checkpoints are damaged, or there is none and the configuration is.
        """
        folder = Path(folder)
        if not folder.is_dir() or not any((folder / name).exists() for name in (LOCK, "config.json")):
            raise FileNotFoundError(f"{folder} is no run folder; name the folder of an interrupted run")
        run = cls(folder, log)
        try:
            for part in leftovers(folder):
                part.unlink()
            run.state = run.checkpoints.restore(log)
            if run.state is None:
                run.config = _read_config(folder / "config.json")
                log("no checkpoint yet: beginning again with the first step")
                return run
            try:
                saved = run.state["run"]
                run._metrics.data, run._times.data = (bytearray(saved[name].tobytes()) for name in ("metrics", "times"))
                run.config, run.seconds = dict(saved["config"]), float(saved["seconds"])
                run.rows = _parse_lines(run._metrics.data, "its metrics")
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise CheckpointError(
                    f"the newest checkpoint in {folder} is not one of a run ({error!r}); begin the run again"
                ) from error
        except BaseException:
            run.close()
            raise
        return run

    def begin(self) -> None:
        """Write ``config.json``, ``metrics.jsonl`` and ``times.jsonl`` anew, up to where the run stands.

        What came after the checkpoint comes once more.
        """
        self._keep_config(sync_folder=False)
        self._metrics.begin(sync_folder=False)
        self._times.begin()  # syncs the folder for all three
        self._begun = time.perf_counter()

    def _keep_config(self, sync_folder: bool = True) -> bool:
        """Write ``config.json`` unless it is as it should be; return whether that was needed."""
        path, config = self.folder / "config.json", _json(self.config, indent=2)
        if missing := not _holds(path, config):
            write_atomically(path, config, sync_folder=sync_folder)
        return missing

    def reconfigure(self, step: int, **changes: Any) -> None:
        """Change the configuration of a run that is resumed, before `begin`, and save it with the state at this step.

        The checkpoint decides what a later session goes on with: killed before it is written, the run is as it was.
        """
        step = integer("Run.reconfigure", "step", step)
        self.config |= json.loads(_json(changes))
        if self.state is not None:
            self.save(step, self.seconds, **{name: part for name, part in self.state.items() if name != "run"})

    def elapsed(self) -> float:
        """Seconds of training up to now: those of earlier sessions, and those since `begin`."""
        return self.seconds + (0.0 if self._begun is None else time.perf_counter() - self._begun)

    @staticmethod
    def _check_new(folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"the run folder {folder} is a file; choose another")
        if (folder / "config.json").exists():
            raise FileExistsError(f"{folder} holds a run already; resume that run, or choose another folder")
        if folder.is_dir() and {file.name for file in folder.iterdir()} - {
            LOCK,
            *(part.name for part in leftovers(folder)),
        }:
            raise FileExistsError(f"the run folder {folder} is not empty; choose another")

    def record(self, event: str, **values: Any) -> dict[str, Any]:
        """Add a line to ``metrics.jsonl``."""
        row = {"event": event, **values}
        self._metrics.add(row)
        self.rows.append(row)
        return row

    def record_time(self, seconds: float, **values: Any) -> None:
        """Add a line to ``times.jsonl``: when something was done, in seconds of training."""
        seconds = real("Run.record_time", "seconds", seconds, least=0)
        self._times.add({**values, "seconds": round(seconds, 3)})

    def save(self, step: int, seconds: float, **state: Any) -> Path:
        """Write a checkpoint of `state`, with configuration, metrics and times.

        Their own files are written again if something else has deleted, cut or changed them, and `log` is told.
        """
        step, seconds = integer("Run.save", "step", step), real("Run.save", "seconds", seconds, least=0)
        metrics, times = (np.frombuffer(bytes(lines.data), np.uint8) for lines in (self._metrics, self._times))
        run = {"config": self.config, "metrics": metrics, "seconds": seconds, "times": times}
        path = self.checkpoints.save(step, {"run": run, **state})
        if self._begun is not None:
            again = ["config.json"] * self._keep_config()
            for lines in (self._metrics, self._times):
                if not _holds(lines.path, lines.data):
                    lines.begin()
                    again.append(lines.path.name)
            if again:
                self.log(f"{self.folder}: something else deleted or changed {', '.join(again)}; written again")
        return path

    def close(self) -> None:
        """Close the files and unlock the folder."""
        self._metrics.close()
        self._times.close()
        self._lock.release()


class _Lines:
    """A file that grows by lines of JSON, each of them written at once; also kept in memory, for checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, bytearray()
        self._file: io.FileIO | None = None

    def begin(self, sync_folder: bool = True) -> None:
        self.close()
        write_atomically(self.path, self.data, sync_folder=sync_folder)
        self._file = open(self.path, "ab", buffering=0)

    def add(self, row: Mapping[str, Any]) -> None:
        if self._file is None:
            raise RuntimeError(f"{self.path}: call the run's begin() first")
        line = _json(row)
        try:
            if (written := self._file.write(line)) != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.data += line

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _holds(path: Path, data: bytes | bytearray) -> bool:
    """Whether a file is there and holds exactly this."""
    try:
        return read_whole(path, len(data)) == data
    except (OSError, ValueError):
        return False


def _json(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return a line of JSON, or several; NumPy's numbers are written as Python's."""

    def plain(part: Any) -> Any:
        if isinstance(part, np.generic) or (isinstance(part, np.ndarray) and not part.shape):
            return part.item()
        raise TypeError(f"a {type(part).__name__} cannot be stored as JSON; pass numbers, strings, lists and dicts")

    return (json.dumps(value, indent=indent, allow_nan=False, default=plain) + "\n").encode()


def read_metrics(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> list[dict[str, Any]]:
    """Read a ``metrics.jsonl``: one dict for each line, with at least its ``"event"``.

    Raises
    ------
    FileNotFoundError
    ValueError
        Naming the line that is cut off or is not what a run writes, or if the file has more than `max_bytes`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "metrics.jsonl")
    ...     _ = path.write_text('{"event": "step", "step": 1, "loss": 2.25}\\n')
    ...     read_metrics(path)[0]["loss"]
    2.25
    """
    return _parse_lines(read_whole(path, max_bytes), str(path))


def _parse_lines(data: bytes | bytearray, name: str) -> list[dict[str, Any]]:
    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is no finite number")
        return value

    rows = []
    for number, line in enumerate(bytes(data).splitlines(keepends=True), 1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it is cut off; resume the run, or delete the line")
            row = json.loads(line, parse_float=finite, parse_constant=finite)
            if not isinstance(row, dict) or not isinstance(row.get("event"), str):
                raise ValueError("it is no object with an event")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}, line {number}: {error}") from error
        rows.append(row)
    return rows


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_whole(path, 1 << 20))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path.parent} holds no run, it was stopped before that; begin again, with the same folder"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}) and there is no checkpoint; begin the run again") from error
    return config


def code_version(*modules: ModuleType) -> str:
    """Say which code runs: a digest of the source files of these packages, and of single modules.

    Examples
    --------
    >>> import tinygrad_mnist
    >>> len(code_version(tinygrad_mnist))
    12
    """
    digest = hashlib.sha256()
    for module in modules:
        folder = Path(str(module.__file__)).parent
        files = folder.rglob("*") if hasattr(module, "__path__") else [Path(str(module.__file__))]
        for file in sorted(file for file in files if file.suffix in (".py", ".c", ".h")):
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
