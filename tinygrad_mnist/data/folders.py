"""Where programs leave MNIST in a folder: four IDX files, as torchvision and Kaggle do, or Keras' mnist.npz."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..storage.arrayfiles import CheckpointError, open_arrays
from .idx import IdxError, read_idx

__all__ = ["files", "read_folder"]

KERAS = ("x_train", "y_train", "x_test", "y_test")  # in mnist.npz
PLACES = ("", "raw", "MNIST/raw", "archive")  # below the folder given; torchvision's, and an unpacked Kaggle archive
ARCHIVES = ("mnist.npz", "datasets/mnist.npz")  # below ~/.keras
MAX_BYTES = 1 << 32  # of all arrays in mnist.npz; read_idx has the same limit for one file

Found = tuple[list[npt.NDArray[Any]], list[str], Path]


def files(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files in a folder that have this name.

    With dash or dot before "idx", raw or gzip, directly or in a folder of the same name (as Kaggle unpacks them).
    """
    variants = (name, name.replace("-idx", ".idx"))
    for place in (folder, *(folder / variant for variant in variants)):
        for variant in variants:
            yield from (file for file in (place / variant, place / f"{variant}.gz") if os.path.isfile(file))


def read_folder(given: Path, names: Sequence[str]) -> Found:
    """Read images and labels, for training and test, from where they are found first.

    Parameters
    ----------
    given : Path
    names : sequence of str
        The usual names of the four IDX files, in the order of `KERAS`.

    Returns
    -------
    arrays : list of ndarray
        Neither shapes nor dtypes are checked.
    names : list of str
        Where each comes from, for errors.
    place : Path
        The folder or the file that holds them.

    Raises
    ------
    FileNotFoundError
        If there are none; the message, without subject, says what was looked for.
    IdxError
        If a file is damaged or holds something else.
    """
    if given.is_file() and given.suffix == ".npz":
        return _read_npz(given)
    if not given.is_dir():
        raise FileNotFoundError("is not a folder, nor an .npz file")
    missing: list[list[str]] = []
    for place in (given / name for name in PLACES):
        found = {name: file for name in names if (file := next(files(place, name), None))}
        if len(found) == len(names):
            return [read_idx(file) for file in found.values()], list(map(str, found.values())), place
        missing.append([name for name in names if name not in found])
    for file in (given / name for name in ARCHIVES):
        if file.is_file():
            return _read_npz(file)
    nearest = min(range(len(PLACES)), key=lambda i: len(missing[i]))
    where = f" in {PLACES[nearest]}" if PLACES[nearest] else ""
    raise FileNotFoundError(
        f"lacks {', '.join(missing[nearest])}{where} (each with or without .gz); looked for them also in "
        f"{', '.join(PLACES[1:])}, and for {' and '.join(ARCHIVES)}"
    )


def _read_npz(file: Path) -> Found:
    """Read the arrays that Keras stores. The file is untrusted: no pickled objects, every size is checked."""
    try:
        with open(file, "rb") as start:
            if start.read(2) != b"PK":
                raise IdxError(f"{file}: not an .npz file; fetch it again")
        with open_arrays(file, MAX_BYTES) as archive:
            held = list(archive.entries)
            arrays = [archive.read(name) for name in KERAS] if {*KERAS} <= {*held} else []
    except CheckpointError as error:
        raise IdxError(f"{file}: cannot be read as arrays {', '.join(KERAS)} ({error})") from error
    if lacking := [name for name in KERAS if name not in held]:
        raise IdxError(f"{file}: lacks {', '.join(lacking)}; it holds {', '.join(map(repr, held[:8])) or 'nothing'}")
    return arrays, [f"{file}: {name}" for name in KERAS], file
