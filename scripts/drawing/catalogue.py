"""Which trained classifiers there are to choose from, and those that are loaded."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trained import RUNS, weights_of_epochs, weights_of_run

import tinygrad_mnist as tg
from models.pretrained import SHIPPED, Classifier, load_classifier

from .protocol import RefusedError

LOADED = 8  # classifiers that are kept


class Catalogue:
    """The weights of runs and of files, each under a key that tells nothing about its place.

    Parameters
    ----------
    runs : sequence of Path
        Run folders, besides those in `RUNS`.
    weights : sequence of Path
        Files of weights, besides those of the folder `models`.
    """

    def __init__(self, runs: Sequence[Path] = (), weights: Sequence[Path] = ()) -> None:
        self.runs, self.weights = runs, weights
        self.files: dict[str, Path] = {}  # by key
        self.loaded: dict[str, tuple[tuple[int, int], Classifier]] = {}  # with time and size of the file
        self.lock = threading.Lock()

    def models(self) -> list[dict[str, Any]]:
        """List what there is now: files and runs that were named, other runs, the newest first, what is shipped."""
        found: dict[str, dict[str, Any]] = {}
        for path in self.weights:
            self._add(found, path, path)
        for run in [*self.runs, *_newest_first(RUNS)]:
            try:
                path = weights_of_run(run)
            except OSError:  # it has none any more
                continue
            self._add(found, path, run, weights_of_epochs(run))
        for path in sorted(SHIPPED.parent.glob("*.safetensors")):
            self._add(found, path, Path(path.parent.name, path.name))
        return list(found.values())

    def classifier(self, key: str) -> Classifier:
        """Return the classifier of a key; it is loaded where it is not yet, or where its file has changed."""
        if (path := self.files.get(key)) is None:
            raise RefusedError(404, "there is no such model; ask for the list of models again")
        try:
            about = path.stat()
            stamp = about.st_mtime_ns, about.st_size
            with self.lock:
                if key not in self.loaded or self.loaded[key][0] != stamp:
                    self.loaded.pop(key, None)
                    self.loaded[key] = stamp, load_classifier(path)
                    while len(self.loaded) > LOADED:
                        del self.loaded[next(iter(self.loaded))]
                return self.loaded[key][1]
        except (OSError, ValueError) as error:
            raise RefusedError(422, str(error)) from error

    def _add(
        self, found: dict[str, dict[str, Any]], path: Path, place: Path, epochs: dict[float, Path] | None = None
    ) -> None:
        """Add the entry of a file of weights, which may be that of a run with weights of its epochs."""
        entry: dict[str, Any] = {"id": self._key(path), "label": str(place)}
        try:
            about = tg.checkpoint.load_metadata(path)
        except (OSError, ValueError) as error:
            about, entry["error"] = {}, str(error)
        entry["model"] = about.get("model")
        entry["label"] += f" ({entry['model']})" if "model" in about else ""
        entry["accuracy"], entry["temperature"] = (_number(about.get(name)) for name in ("accuracy", "temperature"))
        entry["epochs"] = [{"id": self._key(file), "epoch": epoch} for epoch, file in (epochs or {}).items()]
        found.setdefault(entry["id"], entry)

    def _key(self, path: Path) -> str:
        key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
        self.files[key] = path
        return key


def _newest_first(place: Path) -> list[Path]:
    """List the runs in a folder by the time of their weights."""
    found = []
    for run in place.glob("*"):
        with contextlib.suppress(OSError):  # it has no weights yet, or is no run
            found.append((weights_of_run(run).stat().st_mtime_ns, run))
    return [run for _, run in sorted(found, reverse=True)]


def _number(text: str | None) -> float | None:
    """The number that a text begins with, as in ``"0.9951 on all 10,000 test images"``; None if there is none."""
    try:
        value = float((text or "").partition(" ")[0])
    except ValueError:
        return None
    return value if math.isfinite(value) else None
