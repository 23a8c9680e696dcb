"""Pictures of digits to train on, as a user may hand them in: printed or written, clean or photographed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .fonts import draw_text

Picture = npt.NDArray[np.uint8]  # (H, W, 3)
Ink = npt.NDArray[np.float32]  # (H, W): 0 is paper, 1 is ink

INKS = ((20, 20, 25), (25, 40, 120), (30, 60, 160), (60, 60, 65), (110, 110, 115), (130, 25, 30), (15, 70, 40))
PAPERS = ((255, 255, 255), (250, 250, 245), (240, 236, 222), (225, 225, 228), (205, 200, 190), (245, 235, 190))


def printed(path: Path, digit: int, rng: np.random.Generator) -> Ink:
    """Draw a digit of a font, 20 to 70 pixels large; half of them bolder or thinner, slanted or turned a little."""
    from PIL import ImageFont

    size = int(np.exp(rng.uniform(np.log(20), np.log(70))))
    bold = int(size * rng.uniform(0.01, 0.07)) * (rng.random() < 0.4)
    ink = as_ink(draw_text(ImageFont.truetype(path, size), str(digit), bold))
    if not bold and size > 40 and rng.random() < 0.3:
        ink = with_outline(ink, -rng.uniform(0.5, 1.5))
    return turned(ink, rng.uniform(-10, 10), rng.uniform(-0.3, 0.3)) if rng.random() < 0.5 else ink


def written(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> Ink:
    """Enlarge one of MNIST's images 1.5 to 3 times, or a synthetic one; most of them bolder or thinner."""
    from scipy import ndimage

    ink = np.clip(ndimage.zoom(as_ink(image), rng.uniform(1.5, 3), order=int(rng.integers(1, 4))), 0, 1)
    unit = len(ink) / 28  # pixels of the picture in one of the image
    if rng.random() < 0.7:
        ink = with_outline(np.pad(ink, 2), unit * rng.uniform(-0.8, 0.8))
    return turned(ink, rng.uniform(-6, 6), 0) if rng.random() < 0.3 else ink


def as_ink(image: npt.NDArray[np.uint8]) -> Ink:
    """Scale white ink on black from 0 to 255 to 0 to 1."""
    return np.divide(image, 255, dtype=np.float32)


def with_outline(ink: Ink, move: float) -> Ink:
    """Move the outline of the ink out by so many pixels, or in, as far as that leaves it in as many pieces."""
    from scipy import ndimage

    inside, joined = ink > 0.5, np.ones((3, 3))
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    pieces = ndimage.label(inside, joined)[1]
    while move < -0.2 and ndimage.label(distance > -move, joined)[1] != pieces:
        move *= 0.7
    return np.asarray(np.clip(distance + move + 0.5, 0, 1), np.float32)


def turned(ink: Ink, degrees: float, slant: float) -> Ink:
    """Turn and slant, in a larger array so that nothing is cut off."""
    from scipy import ndimage

    ink = np.pad(ink, int(0.3 * max(ink.shape)))
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ [[1, 0], [slant, 1]]
    middle = (np.array(ink.shape) - 1) / 2
    out: Ink = ndimage.affine_transform(ink, matrix, middle - matrix @ middle, order=1)
    return out


def clean(ink: Ink, rng: np.random.Generator) -> Picture:
    """Draw in dark on white, or in white on dark, with a margin."""
    sides = np.int64(np.max(ink.shape) * rng.uniform(0.05, 0.3, (2, 2))) + 2
    picture = 255 * (1 - np.pad(ink, sides))
    picture = picture if rng.random() < 0.85 else 255 - picture
    return np.repeat(picture.astype(np.uint8)[:, :, None], 3, axis=2)


def photographed(ink: Ink, rng: np.random.Generator) -> Picture:
    """Draw in some ink on some paper, plain, ruled or squared, in uneven light, with noise."""
    from scipy import ndimage

    sides = np.int64(np.max(ink.shape) * rng.uniform(0.2, 0.7, (2, 2))) + 4
    ink = np.pad(ink, sides)
    height, width = ink.shape
    paper = np.array(PAPERS[rng.integers(len(PAPERS))]) * np.ones((height, width, 1))
    if (pattern := rng.random()) < 0.5:
        line = np.array([[150, 170, 215], [170, 170, 175], [215, 150, 150]][rng.integers(3)])
        gap, slope = max(height * rng.uniform(0.12, 0.4), 10), rng.uniform(-0.06, 0.06)
        rows, columns = np.indices((height, width))
        thickness = 1 + height / 200
        on_line = (rows + slope * columns + rng.uniform(0, gap)) % gap < thickness
        if pattern < 0.25:
            on_line |= (columns - slope * rows + rng.uniform(0, gap)) % gap < thickness
        paper = np.where(on_line[:, :, None], line, paper)
    strength = ndimage.gaussian_filter(ink, rng.uniform(0, 0.006) * height)[:, :, None] * rng.uniform(0.75, 1)
    if rng.random() < 0.3:  # pencil, a ballpoint that fails
        strength = strength * (1 - rng.uniform(0, 0.5) * rng.random((height, width, 1)))
    picture = paper * (1 - strength) + np.array(INKS[rng.integers(len(INKS))]) * strength
    noise = rng.uniform(0, 9) * rng.standard_normal(picture.shape, np.float32)
    picture = picture * light(height, width, rng)[:, :, None] + noise
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def light(height: int, width: int, rng: np.random.Generator) -> Any:
    """Light (height, width), at most 1: falls off to one side, and half of the time a shadow with a soft edge."""
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    falling = 1 - rng.uniform(0, 0.3) * (1 + np.cos(a := rng.uniform(0, 2 * np.pi)) * x + np.sin(a) * y) / 2
    across = np.cos(b := rng.uniform(0, 2 * np.pi)) * x + np.sin(b) * y - rng.uniform(-0.8, 0.8)
    shadow = 1 - rng.uniform(0.1, 0.5) * (rng.random() < 0.5) / (1 + np.exp(-across / rng.uniform(0.02, 0.4)))
    return falling * shadow


def as_jpeg(picture: Picture, rng: np.random.Generator) -> bytes:
    """Encode a picture with a quality of 40 to 95."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=int(rng.integers(40, 96)))
    return file.getvalue()
