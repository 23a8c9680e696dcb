"""Which trained classifiers there are to choose from, and those that are loaded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.pretrained import SHIPPED, Classifier, load_classifier

from .protocol import RefusedError

LOADED = 8  # classifiers that are kept


class Catalogue:
    """The weights of runs and of files, each under a key that tells nothing about its place.

    Parameters
    ----------
    runs : sequence of Path
        Run folders, besides those in the folder of runs.
    weights : sequence of Path
        Files of weights, besides those of the folder `models`.
    """

    def __init__(self, runs: Sequence[Path] = (), weights: Sequence[Path] = ()) -> None:
        self.runs, self.weights = runs, weights
        self.files: dict[str, Path] = {}  # by key
        self.loaded: dict[str, tuple[object, Classifier]] = {}  # with what tells whether the file is the same
        self.lock = threading.Lock()

    def models(self) -> list[dict[str, Any]]:
        """List what there is now, the default first."""
        return [self._entry(path, path.name) for path in [*self.weights, SHIPPED]]

    def classifier(self, key: str) -> Classifier:
        """Return the classifier of a key; it is loaded where it is not yet, or where its file has changed."""
        if key not in self.files:
            self.models()
        if (path := self.files.get(key)) is None:
            raise RefusedError(404, "there is no such model any more; ask for the list of models again")
        try:
            about = path.stat()
            stamp = about.st_mtime_ns, about.st_size
            with self.lock:
                if self.loaded.get(key, (None,))[0] != stamp:
                    self.loaded.pop(key, None)
                    self.loaded[key] = stamp, load_classifier(path)
                    while len(self.loaded) > LOADED:
                        del self.loaded[next(iter(self.loaded))]
                return self.loaded[key][1]
        except (OSError, ValueError) as error:
            raise RefusedError(422, str(error)) from error

    def _entry(self, path: Path, label: str) -> dict[str, Any]:
        return {"id": self._key(path), "label": label, "model": "deep_convnet.DeepConvNet", "epochs": []}

    def _key(self, path: Path) -> str:
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        self.files[key] = path
        return key
