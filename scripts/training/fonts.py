"""Digits of the fonts on this machine (Pillow and SciPy)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEFT_OUT = re.compile(
    r"dejavu|bitstream vera|arev|stix|computer modern|latin modern|lm ?(roman|sans|mono)|cm[a-z]+\d*$|sideways|inverted"
)
HOLES = ({1, 2, 3}, {0}, {0}, {0}, {0, 1}, {0}, {1}, {0}, {2}, {1})  # in the ink of each digit; a zero may be crossed


class Font(NamedTuple):
    """A font file whose digits are plain shapes."""

    family: str
    path: Path


def find_fonts(folder: Path) -> list[Font]:
    """Find the fonts below a folder whose digits are plain shapes, each design once, in the order of their names.

    Fonts that the tests read are left out, with those that are drawn after them: DejaVu, Bitstream Vera, STIX and
    Computer Modern.
    """
    from PIL import ImageFont

    designs: dict[bytes, Font] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".pfb", ".t1")):
        try:
            font = ImageFont.truetype(path, 48)
            digits = [draw_text(font, str(digit)) for digit in range(10)]
        except (OSError, ValueError):  # a bitmap font, an empty glyph, a file that is damaged
            continue
        family = font.getname()[0] or path.stem
        if not LEFT_OUT.search(f"{family} {path.stem}".lower()) and all(map(is_plain, range(10), digits)):
            designs.setdefault(b"".join(digit.tobytes() for digit in digits), Font(family, path))
    return sorted(designs.values())


def draw_text(font: Any, text: str, bold: int = 0) -> npt.NDArray[np.uint8]:
    """Draw text in white on black, within a margin of one pixel; `bold` makes its strokes wider by twice that."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(text, stroke_width=bold)
    image = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, 255, font=font, stroke_width=bold)
    return np.asarray(image)


def is_plain(digit: int, image: npt.NDArray[np.uint8]) -> bool:
    """Whether the ink is in one piece and has as many holes as the digit has: no symbol, stencil, outline or dots."""
    from scipy import ndimage

    ink = np.pad(image > 127, 1)
    pieces, around = ndimage.label(ink, np.ones((3, 3)))[1], ndimage.label(~ink)[1]
    return pieces == 1 and around - 1 in HOLES[digit]
