"""Where programs leave MNIST in a folder: four IDX files, as torchvision and Kaggle do, or Keras' mnist.npz."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..storage.arrayfiles import CheckpointError, open_arrays
from .idx import Header, IdxError, read_header, read_idx

__all__ = ["files", "on_threads", "read_folder", "read_npz"]

KERAS = ("x_train", "y_train", "x_test", "y_test")  # in mnist.npz
PLACES = ("", "raw", "MNIST/raw", "archive")  # below the folder given; torchvision's, and an unpacked Kaggle archive
ARCHIVES = ("mnist.npz", "datasets/mnist.npz")  # below ~/.keras
MAX_BYTES = 1 << 32  # of all arrays in mnist.npz; read_idx has the same limit for one file
MAX_ARRAYS = 100  # in mnist.npz

Recall = Callable[[Sequence[Path]], "list[npt.NDArray[Any]] | None"]
Check = Callable[[Sequence[Header], Sequence[str]], None]
Found = tuple[list[npt.NDArray[Any]], list[str], Path]


def files(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files in a folder that have this name.

    With dash or dot before "idx", raw or gzip, directly or in a folder of the same name (as Kaggle unpacks them).
    """
    variants = (name, name.replace("-idx", ".idx"))
    for place in (folder, *(folder / variant for variant in variants)):
        for variant in variants:
            yield from (file for file in (place / variant, place / f"{variant}.gz") if os.path.isfile(file))


def on_threads(function: Callable[..., Any], *items: Iterable[Any]) -> list[Any]:
    """Return the results of a function that releases the GIL, computed two at a time, in the order of the items."""
    from concurrent.futures import ThreadPoolExecutor  # imported here because it takes 8 ms

    with ThreadPoolExecutor(2, "data") as pool:
        return list(pool.map(function, *items))


def read_folder(given: Path, names: Sequence[str], check: Check, recall: Recall = lambda files: None) -> Found:
    """Read images and labels, for training and test, from where they are found first.

    Parameters
    ----------
    given : Path
    names : sequence of str
        The usual names of the four IDX files, in the order of `KERAS`.
    check : callable
        Called with shapes and dtypes, as the headers state them, and with names for errors, before any array is read.
    recall : callable
        Called with the IDX files that were found: it may return their arrays, if it knows them, or None.

    Returns
    -------
    arrays : list of ndarray
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
        return read_npz(given, KERAS, check)
    if not given.is_dir():
        raise FileNotFoundError("is not a folder, nor an .npz file")
    missing: list[list[str]] = []
    for place in (given / name for name in PLACES):
        found = {name: file for name in names if (file := next(files(place, name), None))}
        if len(found) == len(names):
            shown = list(map(str, found.values()))
            if (known := recall(list(found.values()))) is not None:
                return known, shown, place
            check([read_header(file) for file in found.values()], shown)
            return on_threads(read_idx, found.values()), shown, place
        missing.append([name for name in names if name not in found])
    for file in (given / name for name in ARCHIVES):
        if file.is_file():
            return read_npz(file, KERAS, check)
    nearest = min(range(len(PLACES)), key=lambda i: len(missing[i]))
    where = f" in {PLACES[nearest]}" if PLACES[nearest] else ""
    raise FileNotFoundError(
        f"lacks {', '.join(missing[nearest])}{where} (each with or without .gz); looked for them also in "
        f"{', '.join(PLACES[1:])}, and for {' and '.join(ARCHIVES)}"
    )


def read_npz(file: Path, names: Sequence[str], check: Check, max_bytes: int = MAX_BYTES) -> Found:
    """Read arrays from an .npz file, such as the one of Keras; see `read_folder`.

    The file is untrusted. It is refused by its headers, before anything is unpacked, if its arrays take more than
    `max_bytes`, if there are more than 100, or if `check` raises an error.
    """
    if not file.is_file():  # opening a pipe may never end
        raise FileNotFoundError(f"{file} is not a file")
    shown = [f"{file}: {name}" for name in names]
    try:
        with open(file, "rb") as start:
            if start.read(2) != b"PK":
                raise IdxError(f"{file}: not an .npz file; fetch it again")
        with open_arrays(file, max_bytes, MAX_ARRAYS) as archive:
            held = archive.entries
        if lacking := [name for name in names if name not in held]:
            found = ", ".join(map(repr, list(held)[:8])) or "nothing"
            raise IdxError(f"{file}: lacks {', '.join(lacking)}; it holds {found}")
        check([held[name] for name in names], shown)
        with open_arrays(file, max_bytes, MAX_ARRAYS) as archive:
            return on_threads(archive.read, names), shown, file
    except CheckpointError as error:
        raise IdxError(f"{file}: cannot be read as arrays {', '.join(names)} ({error})") from error
