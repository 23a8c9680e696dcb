"""What a run of train_mnist.py has left: its weights, those of its epochs, and the newest run."""

from __future__ import annotations

import re
from pathlib import Path

import tinygrad_mnist as tg
from models.pretrained import SHIPPED, Classifier, load_classifier

RUNS = Path("runs")  # where train_mnist.py makes a folder for each run, unless told otherwise


def weights_of_epochs(folder: Path) -> dict[float, Path]:
    """List the weights that a run has kept of its epochs (``--keep-weights epoch``), in the order of these."""
    names = {
        file: re.fullmatch(r"weights-epoch-([0-9]+(?:\.[0-9]+)?)\.safetensors", file.name) for file in _files(folder)
    }
    found = {float(match[1]): file for file, match in names.items() if match}
    return dict(sorted(found.items()))


def weights_of_run(folder: Path) -> Path:
    """Return the selected weights of a run, or those of its newest epoch while it has not ended.

    Raises
    ------
    FileNotFoundError
        If there are none; the message says how the run goes on.
    """
    selected = folder / "weights.safetensors"
    if selected.is_file():
        return selected
    if epochs := weights_of_epochs(folder):
        return epochs[max(epochs)]
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no run folder; name one that train_mnist.py has made")
    raise FileNotFoundError(
        f"the run in {folder} has not ended, and has kept no weights; go on with train_mnist.py --resume {folder}, "
        "which keeps those of each epoch with --keep-weights epoch"
    )


def latest_run(place: Path = RUNS) -> Path | None:
    """Return the run folder in `place` whose weights are the newest; None if no run there has any."""
    found = []
    for folder in _files(place):
        try:
            found.append((weights_of_run(folder).stat().st_mtime_ns, folder))
        except OSError:  # it has no weights, or is no folder of a run
            continue
    return max(found)[1] if found else None


def choose(run: Path | None, weights: Path | None) -> Classifier:
    """Load the classifier of a run or of a file; by default that of the latest run, or the one that is shipped.

    Raises
    ------
    OSError
        If there are no such weights.
    CheckpointError
        If they cannot be used; the message names the file.
    """
    if run is not None and weights is not None:
        raise ValueError("weights come from a run or from a file; leave out one of them")
    if weights is not None:
        return load_classifier(weights)
    run = latest_run() if run is None else run
    if run is None:
        return load_classifier(SHIPPED)
    found = load_classifier(weights_of_run(run))
    if "model" not in found.metadata:
        raise tg.checkpoint.CheckpointError(
            f"{found.path} does not say which model it is of, as an older version wrote it; train_mnist.py --resume "
            f"{run} writes it anew"
        )
    return found


def _files(folder: Path) -> list[Path]:
    """List what is in a folder; nothing if it is none or cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
