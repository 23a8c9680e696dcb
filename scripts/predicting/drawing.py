"""A drawing of what was read: each picture with its boxes, what the network saw of it, and its saliency."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tinygrad_mnist as tg
from tinygrad_mnist.storage.files import write_atomically

from .reading import SIDE, Reading
from .telling import answers, short_answer, title

__all__ = ["DIGITS", "PICTURES", "draw", "no_viewer", "refused", "show", "write"]

PICTURES, DIGITS = 20, 30  # at most: in a drawing, of a picture
SCALE = 5  # pixels of the drawing for one of 28x28
CELL = 28 * SCALE
GAP, LINE = 16, 22  # between parts, for a line of text
BOX, FRAME = (230, 90, 0), (200, 200, 200)
COLUMNS = 3  # digits beside each other
RED, BLUE = np.array([200, 30, 30]), np.array([30, 80, 200])
LEGEND = "Left: the pixels that the network saw. Right: brighter ones speak for its answer (red) or against it (blue)."


def refused(path: Path, names: list[str]) -> str:
    """Why a drawing is not written to a file, or an empty text."""
    if path.suffix.lower() != ".png":
        return "the drawing is a PNG; end the name in .png"
    if path.is_dir() or not path.absolute().parent.is_dir():
        return "it is a folder" if path.is_dir() else "there is no such folder; make it first"
    if any(name != "-" and os.path.realpath(name) == os.path.realpath(path) for name in names):
        return "it is one of the pictures that are read; name another file"
    return ""


def no_viewer() -> str:
    """Why nothing can be shown, or an empty text."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return "there is no display; use --save PICTURE"
    return ""


def draw(readings: list[Reading], model: Any) -> Any:
    """Draw some pictures below each other: at most `DIGITS` digits of each.

    Parameters
    ----------
    readings : list of Reading
        With digits and a thumbnail.
    model : callable

    Returns
    -------
    PIL.Image.Image
    """
    from PIL import Image

    bands = [_band(reading, model) for reading in readings]
    width = max([_words(LEGEND).width, *(band.width for band in bands)]) + 2 * GAP
    sheet = Image.new("RGB", (width, sum(band.height + GAP for band in bands) + LINE + 2 * GAP), "white")
    y = GAP
    for band in bands:
        sheet.paste(band, (GAP, y))
        y += band.height + GAP
    sheet.paste(_words(LEGEND), (GAP, y))
    return sheet


def write(drawing: Any, path: Path) -> None:
    """Write a drawing as PNG."""
    buffer = io.BytesIO()
    drawing.save(buffer, "PNG")
    write_atomically(path, buffer.getbuffer(), sync_folder=False)  # it can be drawn again


def show(drawing: Any) -> None:
    """Open a drawing in the system's viewer."""
    from PIL import ImageShow

    if not ImageShow.show(drawing, "predict.py"):
        raise OSError("the system has no viewer of pictures; use --save PICTURE")


def _band(reading: Reading, model: Any) -> Any:
    """Draw a picture and its digits."""
    from PIL import Image, ImageDraw

    assert reading.digits is not None and reading.thumbnail is not None
    picture, scale = reading.thumbnail
    found = answers(reading)
    images = reading.digits.images[:DIGITS]
    columns = min(len(images), COLUMNS)
    height = LINE + max(picture.height, -(-len(images) // COLUMNS) * (CELL + LINE + GAP))
    left_out = f" ({len(found)} digits, {DIGITS} drawn)" if len(found) > DIGITS else ""
    name = _words(title(reading), left_out)
    band = Image.new("RGB", (max(name.width, SIDE + columns * (2 * CELL + 2 * GAP)), height), "white")
    band.paste(name, (0, 0))
    band.paste(picture, (0, LINE))
    pen = ImageDraw.Draw(band)
    pen.rectangle((0, LINE, picture.width - 1, LINE + picture.height - 1), outline=FRAME)
    for answer in found:
        left, top, right, bottom = (round(side * scale) for side in answer.box)
        pen.rectangle((left, LINE + top, max(right, left + 1), LINE + max(bottom, top + 1)), outline=BOX)
    for i, (image, gradient) in enumerate(zip(images, tg.explain.saliency(model, images), strict=True)):
        x = SIDE + GAP + i % COLUMNS * (2 * CELL + 2 * GAP)
        y = LINE + i // COLUMNS * (CELL + LINE + GAP)
        band.paste(_words(short_answer(found[i])), (x, y))
        band.paste(_enlarged(np.repeat(image[..., None], 3, axis=-1)), (x, y + LINE))
        band.paste(_enlarged(_coloured(image, gradient)), (x + CELL + 2, y + LINE))
    return band


def _words(text: str, more: str = "") -> Any:
    """A line of text as a picture; a long one loses its beginning."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    text = text if len(text) <= 110 else f"...{text[-107:]}"
    words = Image.new("RGB", (int(font.getlength(text + more)) + 1, LINE), "white")
    ImageDraw.Draw(words).text((0, 0), text + more, "black", font)
    return words


def _enlarged(pixels: npt.NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def _coloured(image: npt.NDArray[np.uint8], gradient: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """The gradient in red and blue, over a pale digit."""
    strength = (np.abs(gradient) / max(np.abs(gradient).max(), 1e-30))[..., None]
    pale = 255 - 0.3 * image[..., None]
    mixed = (1 - strength) * pale + strength * np.where(gradient[..., None] > 0, RED, BLUE)
    coloured: npt.NDArray[np.uint8] = mixed.astype(np.uint8)
    return coloured
