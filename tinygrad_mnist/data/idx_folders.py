"""Folders of IDX files with images of any size and any number of classes: EMNIST, KMNIST, Fashion-MNIST."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .folders import PLACES, check_labels, check_pair, read_folder
from .idx import Header, IdxError

__all__ = ["load_idx_folder"]

FURTHER = ("gzip", "EMNIST/raw", "KMNIST/raw", "FashionMNIST/raw")  # EMNIST's archive; torchvision's
SPLIT = re.compile(r"emnist-(\w+)-train-images[-.]idx3-ubyte")
FIRST_LABELS = {"letters": 1}  # of EMNIST: A and a are 1


def load_idx_folder(
    path: str | os.PathLike[str], split: str | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any], npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Load images and labels, for training and test, from four IDX files of any data set.

    The files have MNIST's names, as those of KMNIST and Fashion-MNIST (``train-images-idx3-ubyte``), or EMNIST's
    (``emnist-letters-train-images-idx3-ubyte``), each raw or gzip. They lie in the folder, or where torchvision and
    archives put them: in ``raw``, ``gzip``, ``archive`` or ``MNIST/raw``, ``EMNIST/raw``, ``KMNIST/raw``,
    ``FashionMNIST/raw``.

    Two things of EMNIST are put right: its images, which are stored with rows and columns exchanged, stand upright, and
    the labels of ``letters``, which count from 1, count from 0. Other data is returned as it is stored.

    Parameters
    ----------
    path : str or PathLike
    split : str, optional
        Which part of EMNIST: ``"letters"``, ``"balanced"``, ``"byclass"``, ``"bymerge"``, ``"digits"`` or ``"mnist"``;
        ``""`` for MNIST's names. It may be left out where the folder holds one set.

    Returns
    -------
    images, labels, test_images, test_labels : ndarray
        Images (N, H, W) of uint8, labels (N,) of the integers in the file, at least 0.

    Raises
    ------
    FileNotFoundError
        If the folder lacks any of the files.
    ValueError
        If the folder holds several sets, and `split` does not say which.
    IdxError
        If a file is damaged, or the files do not belong together. It is a ValueError.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from tinygrad_mnist.data import encode_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("train", "test"):
    ...         for kind, shape in (("images-idx3", (5, 8, 9)), ("labels-idx1", 5)):
    ...             file = pathlib.Path(folder, f"emnist-letters-{part}-{kind}-ubyte")
    ...             _ = file.write_bytes(encode_idx(np.full(shape, 26, np.uint8)))
    ...     images, labels, test_images, test_labels = load_idx_folder(folder)
    >>> images.shape, labels
    ((5, 9, 8), array([25, 25, 25, 25, 25], dtype=uint8))
    """
    folder = Path(os.path.expanduser(path))
    places = [*PLACES, *FURTHER]
    if split is None:
        splits = _splits(folder, places)
        if len(splits) > 1:
            raise ValueError(f"load_idx_folder: {folder} holds {len(splits)} sets; pass split, one of {splits}")
        split = splits[0] if splits else ""
    prefix, test = (f"emnist-{split}-", "test") if split else ("", "t10k")
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = [f"{prefix}{part}-{kind}" for part in ("train", test) for kind in kinds]
    try:
        arrays, files, _ = read_folder(folder, names, _check_headers, places=places, archives=())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"load_idx_folder: {folder} {error}") from None
    _check_headers([(array.shape, array.dtype) for array in arrays], files)  # files may change while they are read
    first = FIRST_LABELS.get(split, 0)
    for i in (1, 3):
        check_labels(arrays[i], files[i], least=first)
        arrays[i] = arrays[i] - arrays[i].dtype.type(first)
    if split:
        arrays[::2] = (np.ascontiguousarray(images.swapaxes(1, 2)) for images in arrays[::2])
    images, labels, test_images, test_labels = arrays
    return images, labels, test_images, test_labels


def _splits(folder: Path, places: Sequence[str]) -> list[str]:
    """Return which sets there seem to be: parts of EMNIST, and "" for MNIST's names."""
    found = set()
    for place in places:
        if (folder / place).is_dir():
            names = [entry.name for entry in os.scandir(folder / place)]
            found |= {match[1] for name in names if (match := SPLIT.match(name))}
            found |= {"" for name in names if re.match(r"train-images[-.]idx3-ubyte", name)}
    return sorted(found)


def _check_headers(headers: Sequence[Header], names: Sequence[str]) -> None:
    for i in (0, 2):
        check_pair(headers[i : i + 2], names[i : i + 2])
    (images, _), (test_images, _) = headers[::2]
    if images[1:] != test_images[1:]:
        raise IdxError(
            f"{names[0]} has images of {images[1:]} pixels, {names[2]} of {test_images[1:]}; expected one size"
        )
