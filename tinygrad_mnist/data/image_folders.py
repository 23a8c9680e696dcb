"""A folder of images, one folder in it for each class (Pillow, from the ``images`` extra)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels import Pair, pair
from .folders import on_threads

__all__ = ["ImageFolder", "load_image_folder"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SHOWN = 5  # files in an error


class ImageFolder(NamedTuple):
    """Images, the class of each, and the names of the classes."""

    images: npt.NDArray[np.uint8]  # (n, 3, H, W), or (n, H, W) of grey levels
    labels: npt.NDArray[np.intp]  # (n,), indices into `classes`
    classes: list[str]


def load_image_folder(path: str | os.PathLike[str], size: Pair | None = None, *, grey: bool = False) -> ImageFolder:
    """Load images from ``path/CLASS/**``: the folders are the classes, in the order of their names.

    Pillow reads the files (``pip install 'tinygrad_mnist[images]'``): BMP, GIF (the first frame), JPEG, PBM's kin, PNG,
    TIFF and WebP, by their suffix; others, and what is hidden, are left out. Photographs are turned upright as their
    EXIF data says. Transparency is dropped.

    Parameters
    ----------
    path : str or PathLike
    size : int or (int, int), optional
        Height and width, or both alike. Images of another size are stretched to it (bilinear, with a filter as wide as
        they are reduced). By default they must have one size.
    grey : bool
        Convert to grey levels (ITU-R 601-2), without an axis of channels. By default images have three channels: red,
        green, blue.

    Returns
    -------
    ImageFolder
        ``images`` (N, 3, H, W) or (N, H, W) of uint8, the input of `as_input` and `augment`; ``labels`` (N,) of intp;
        ``classes``, a list of names. Files are in the order of their paths, class by class: `Trainer` shuffles them.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    FileNotFoundError
        If there is no such folder, it has no folders, or one of them has no images.
    ValueError
        If files cannot be read, have more than 8 bits in a channel, or are of different sizes; it names them.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, level in (("night", 0), ("day", 255)):
    ...         file = pathlib.Path(folder, name, "1.pgm")
    ...         file.parent.mkdir()
    ...         _ = file.write_bytes(b"P5 2 1 255 " + bytes([level, level]))
    ...     images, labels, classes = load_image_folder(folder, grey=True)
    >>> images.tolist(), labels.tolist(), classes
    ([[[255, 255]], [[0, 0]]], [0, 1], ['day', 'night'])
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("load_image_folder needs Pillow; pip install 'tinygrad_mnist[images]'") from error
    shape = None if size is None else pair("load_image_folder", "size", size, 1)
    classes, files, labels = _listed(Path(os.path.expanduser(path)))

    def read(file: Path) -> npt.NDArray[np.uint8] | str:
        try:
            with Image.open(file) as opened:
                image: Any = ImageOps.exif_transpose(opened)
                if image.mode == "F" or image.mode.startswith("I"):
                    return f"{file} has more than 8 bits in a channel"
                if "transparency" in image.info:  # of a palette, which Pillow warns of
                    image = image.convert("RGBA")
                image = image.convert("L" if grey else "RGB")
                if shape not in (None, image.size[::-1]):
                    image = image.resize(shape[::-1], Image.Resampling.BILINEAR)
                return np.asarray(image)
        except Exception as error:  # what is damaged may make Pillow raise anything
            return f"{file} ({type(error).__name__}: {error})"

    found = on_threads(read, files)
    if wrong := [problem for problem in found if isinstance(problem, str)]:
        raise ValueError(f"load_image_folder: cannot read {_some(wrong)}; mend or remove them")
    sizes = {array.shape[:2]: file for array, file in zip(found, files, strict=True)}
    if len(sizes) > 1:
        shown = [f"{file} has {height} x {width} pixels" for (height, width), file in sizes.items()]
        raise ValueError(f"load_image_folder: {_some(shown)}; pass size=(height, width) to stretch them to one")
    images = np.stack(found)
    return ImageFolder(images if grey else np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels, classes)


def _listed(folder: Path) -> tuple[list[str], list[Path], npt.NDArray[np.intp]]:
    """Return the names of the classes, the files of all, and the class of each file."""
    if not folder.is_dir():
        raise FileNotFoundError(f"load_image_folder: {folder} is not a folder")
    classes = sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name[0] != ".")
    if not classes:
        raise FileNotFoundError(f"load_image_folder: {folder} has no folders; put the images of each class into one")
    groups = [sorted(file for file in (folder / name).rglob("*") if _is_image(file)) for name in classes]
    if empty := [name for name, group in zip(classes, groups, strict=True) if not group]:
        suffixes = " ".join(sorted(SUFFIXES))
        raise FileNotFoundError(f"load_image_folder: in {folder}, {_some(empty)} have no images ({suffixes})")
    return classes, sum(groups, []), np.repeat(np.arange(len(classes)), [len(group) for group in groups])


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.name[0] != "." and file.is_file()


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
