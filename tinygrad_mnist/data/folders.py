"""Data sets in a folder: four IDX files, as torchvision and Kaggle leave them, or Keras' mnist.npz."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..storage.arrayfiles import CheckpointError, open_arrays
from .idx import Header, IdxError, read_header, read_idx

__all__ = ["check_labels", "check_pair", "files", "on_threads", "read_folder", "read_npz"]

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


def read_folder(
    given: Path,
    names: Sequence[str],
    check: Check,
    recall: Recall = lambda files: None,
    places: Sequence[str] = PLACES,
    archives: Sequence[str] = ARCHIVES,
) -> Found:
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
    places, archives : sequence of str
        Where in the folder to look for IDX files, the first one "", and then for an .npz file.

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
    if archives and given.is_file() and given.suffix == ".npz":
        return read_npz(given, KERAS, check)
    if not given.is_dir():
        raise FileNotFoundError("is not a folder" + ", nor an .npz file" * bool(archives))
    missing: list[list[str]] = []
    for place in (given / name for name in places):
        found = {name: file for name in names if (file := next(files(place, name), None))}
        if len(found) == len(names):
            shown = list(map(str, found.values()))
            if (known := recall(list(found.values()))) is not None:
                return known, shown, place
            check([read_header(file) for file in found.values()], shown)
            return on_threads(read_idx, found.values()), shown, place
        missing.append([name for name in names if name not in found])
    for file in (given / name for name in archives):
        if file.is_file():
            return read_npz(file, KERAS, check)
    nearest = min(range(len(places)), key=lambda i: len(missing[i]))
    where = f" in {places[nearest]}" if places[nearest] else ""
    archived = f", and for {' and '.join(archives)}" if archives else ""
    raise FileNotFoundError(
        f"lacks {', '.join(missing[nearest])}{where} (each with or without .gz); looked for them also in "
        f"{', '.join(places[1:])}{archived}"
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


def check_pair(
    headers: Sequence[Header], names: Sequence[str], size: tuple[int, int] | None = None, most: int | None = None
) -> None:
    """Raise an IdxError unless two files hold images and a label for each.

    Parameters
    ----------
    headers, names : sequence
        Shapes and dtypes, and what the files are called in errors; of images and of labels.
    size : tuple of int, optional
        Height and width that the images must have.
    most : int, optional
        How many images are accepted.
    """
    (images, images_dtype), (labels, labels_dtype) = headers
    images_file, labels_file = names
    if len(images) == 1 and len(labels) == 3:
        raise IdxError(f"{images_file} holds labels and {labels_file} images: they are swapped; swap their names")
    expected = f"uint8 (n > 0, {'height, width' if size is None else f'{size[0]}, {size[1]}'})"
    fits = len(images) == 3 and images[1:] == (size or images[1:])
    if images_dtype != np.uint8 or not fits or 0 in images:
        raise IdxError(f"{images_file}: found {images_dtype} {images}; expected images, {expected}")
    if most is not None and images[0] > most:
        raise IdxError(f"{images_file}: found {images[0]} images; at most {most} are loaded from a folder: keep fewer")
    integers = "uint8" if size else "integers"
    if not (labels_dtype == np.uint8 or (size is None and labels_dtype.kind in "iu")) or len(labels) != 1:
        raise IdxError(f"{labels_file}: found {labels_dtype} {labels}; expected labels, {integers} (n,)")
    if images[0] != labels[0]:
        raise IdxError(f"{images_file} holds {images[0]} images, {labels_file} {labels[0]} labels; expected one each")


def check_labels(labels: npt.NDArray[Any], name: str, least: int = 0, most: int | None = None) -> None:
    """Raise an IdxError that names the first label out of bounds."""
    wrong = (labels < least) | (labels > (labels if most is None else most))
    if wrong.any():
        where = int(wrong.argmax())
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        raise IdxError(f"{name}: label {labels[where]} at position {where}; expected {bounds}")
