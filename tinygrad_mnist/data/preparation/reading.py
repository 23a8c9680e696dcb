"""Read a picture from anywhere, safely: upright, of a size that can be worked with, as floats in [0, 1]."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import ImageError
from .paper import block_means

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "Picture", "read"]

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384  # pixels
MAX_BYTES = 200_000_000  # of a file
IN_PYTHON = {"ppm", "ppm_plain", "qoi"}  # what Pillow decodes in Python, a second or more for a million pixels
MOST_IN_PYTHON = 1_000_000  # pixels
WORKING_SIDE = 1600  # pixels: larger pictures are reduced
# Those whose header states the size that is decoded; formats that start other programs are not among them.
FORMATS = {"AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "TIFF", "WEBP"}

# Pillow warns of what is large or damaged. Filters of warnings belong to the process, so one picture is decoded at a
# time. This bounds the memory in use as well.
_decoding = threading.Lock()


class Picture(NamedTuple):
    """A picture to work with, and its size as it was."""

    levels: npt.NDArray[np.float32]  # (h, w) or (h, w, 3) in [0, 1], upright, 0 is black
    height: int  # pixels of the upright picture
    width: int


def read(image: Any, max_pixels: int) -> Picture:
    """Read a path, bytes, a binary file, an array or a Pillow image."""
    if isinstance(image, np.ndarray):
        return _from_array(image, max_pixels)
    if isinstance(image, Image.Image):
        return _decode("the image", image, max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
        return _open("the data", io.BytesIO(content), len(content), max_pixels)
    if isinstance(image, str | os.PathLike):
        path = Path(os.path.expanduser(image))
        try:
            status = path.stat()
        except ValueError as error:  # no path can have these characters
            raise ImageError(f"from_image: {str(path)!r:.100} is no path ({error}); name a file") from None
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"from_image: {str(path)!r} is a folder; give the path of a picture in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"from_image: {str(path)!r} is not a regular file; read it and give its bytes")
        with path.open("rb") as file:
            return _open(repr(str(path)), file, status.st_size, max_pixels)
    if hasattr(image, "read"):
        content = image.read(MAX_BYTES + 1)
        if not isinstance(content, bytes):
            raise TypeError(f"from_image: image is a file of {type(content).__name__}; open it in binary mode")
        return read(content, max_pixels)
    raise TypeError(
        f"from_image: image is of type {type(image).__name__}; give a path, bytes, a binary file, an array "
        "or a Pillow image"
    )


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1:
        raise ImageError(f"from_image: {name} has no pixels ({width} x {height}); give a picture of a digit")
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"from_image: {name} has {width} x {height} pixels; at most {MAX_SIDE} are accepted on a side: reduce it"
        )
    if width * height > max_pixels:
        raise ImageError(
            f"from_image: {name} has {width} x {height} pixels; at most {max_pixels} are accepted: "
            "reduce it or raise max_pixels"
        )


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Picture:
    if np.ma.isMaskedArray(array):
        raise ImageError("from_image: the array is a masked one; fill its masked values with those of paper (.filled)")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(
            f"from_image: the array has shape {array.shape}; it must be (height, width), (height, width, 3) "
            "or (height, width, 4)"
        )
    height, width = array.shape[:2]
    _check_size("the array", width, height, max_pixels)
    step = -(-max(height, width) // (4 * WORKING_SIDE))  # far too many pixels: take some of them
    array = array[::step, ::step]
    if array.dtype == bool or array.dtype == np.uint8:
        full = 1 if array.dtype == bool else 255
    elif array.dtype == np.uint16:
        full = 65535
    elif np.issubdtype(array.dtype, np.integer):
        full = 255
    elif np.issubdtype(array.dtype, np.floating):
        full = 1
    else:
        raise ImageError(f"from_image: the array is of {array.dtype}; give uint8, uint16, bool or floats in [0, 1]")
    with np.errstate(over="ignore"):  # then they are not finite
        levels = array.astype(np.float32) / np.float32(full)
    if not np.isfinite(levels).all():
        raise ImageError("from_image: the array has values that are not finite; give floats in [0, 1]")
    low, high = levels.min(), levels.max()
    if low < -1e-3 or high > 1 + 1e-3:
        raise ImageError(
            f"from_image: the {array.dtype} array has values from {low * full:g} to {high * full:g}; "
            f"they must be from 0 to {full}"
        )
    levels = levels.clip(0, 1)
    if levels.ndim == 3 and levels.shape[2] == 4:
        levels = _on_paper(levels)
    return Picture(block_means(levels, WORKING_SIDE), height, width)


def _open(name: str, file: Any, size: int, max_pixels: int) -> Picture:
    if size == 0:
        raise ImageError(f"from_image: {name} is empty (0 bytes); give a picture")
    if size > MAX_BYTES:
        raise ImageError(f"from_image: {name} has {size} bytes; at most {MAX_BYTES} are accepted: reduce the picture")
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.init()
            opened = Image.open(file, formats=sorted(FORMATS & set(Image.OPEN)))
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"from_image: {name} has far too many pixels ({error}); at most {max_pixels} are accepted: reduce it"
            ) from None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # what is damaged makes Pillow raise anything
            reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({_words(error)})"
            raise ImageError(
                f"from_image: {name} is no picture that can be read{reason}; give a PNG, JPEG, GIF, BMP, TIFF or WebP"
            ) from None
    with opened:
        return _decode(name, opened, max_pixels)


def _decode(name: str, image: Any, max_pixels: int) -> Picture:
    """Decode and reduce a Pillow image, and turn it upright."""
    width, height = image.size
    _check_size(name, width, height, max_pixels)
    if width * height > MOST_IN_PYTHON and any(tile[0] in IN_PYTHON for tile in getattr(image, "tile", ())):
        raise ImageError(
            f"from_image: {name} has {width} x {height} pixels, but at most {MOST_IN_PYTHON} are accepted in "
            f"{image.format} of this kind, which is read slowly; save it as PNG"
        )
    try:
        with _decoding, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                orientation = image.getexif().get(0x0112)
            except Exception:  # damaged EXIF data say nothing of the picture
                orientation = None
            if image.format in ("JPEG", "MPO"):
                image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # decodes fewer pixels where that is enough
            image.load()
            if image.mode == "F" or image.mode.startswith("I"):
                levels = _scaled(name, np.asarray(image))
            else:
                levels = _converted(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(
            f"from_image: {name} is damaged or cut short ({_words(error)}); give a whole picture"
        ) from None
    if orientation in range(2, 9):
        levels = _turned(levels, orientation)
        if orientation >= 5:
            width, height = height, width
    return Picture(levels, height, width)


def _converted(image: Any) -> npt.NDArray[np.float32]:
    """An image of 8 bits or fewer, as levels of grey or of three colours; transparent places become paper."""
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa")
    if transparent and image.mode != "RGBA":
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    factor = max(image.size) // WORKING_SIDE
    if factor > 1:
        image = image.reduce(factor)
    levels = np.asarray(image, np.float32) / np.float32(255)
    if transparent:
        levels = _on_paper(levels)
    return block_means(levels, WORKING_SIDE)


def _scaled(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Levels of an image of more than 8 bits, whose white is the largest value that its kind commonly holds."""
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ImageError(f"from_image: {name} has values that are not finite; give levels of grey")
    low, high = min(0.0, float(values.min())), float(values.max())
    full = next((full for full in (1, 255, 1023, 4095, 16383, 65535) if high <= full), high)
    return block_means((values - np.float32(low)) / np.float32(full - low), WORKING_SIDE)


def _on_paper(levels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Lay (h, w, 4) on paper from which the ink stands out, as (h, w, 3)."""
    colours, cover = levels[:, :, :3], levels[:, :, 3:]
    seen = colours[cover[:, :, 0] > 0.9]
    if not len(seen):
        seen = colours[cover[:, :, 0] >= max(float(cover.max()), 0.01)]
    if not len(seen):
        return np.ones_like(colours)  # nothing to be seen
    grey = seen.mean(axis=1)
    if np.ptp(grey) > 0.25:  # paper and ink are both there
        paper = np.median(seen, axis=0)
    else:
        paper = np.full(3, 1 if grey.mean() < 0.5 else 0, np.float32)
    laid: npt.NDArray[np.float32] = colours * cover + paper * (1 - cover)
    return laid


def _turned(levels: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """Undo an orientation of EXIF, 2 to 8."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        levels = levels[:, ::-1]
    if orientation in (3, 4):
        levels = levels[::-1]
    return np.ascontiguousarray(levels)


def _words(error: Exception) -> str:
    """One line about an error."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
