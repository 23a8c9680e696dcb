"""Pictures of digits that the shipped weights have not been trained on: written, printed, photographed-looking.

Drawn with Pillow, and with none of the code that draws the pictures to train on. Handwriting is that of MNIST's test
images; fonts are those that Matplotlib brings, which the training leaves out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

Labelled = Iterator[tuple[Image.Image, int]]


@cache
def fonts() -> tuple[Path, ...]:
    """Fonts with digits that Matplotlib brings: DejaVu, STIX and Computer Modern, in all their styles."""
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    families = r"DejaVu(?!\w*Display)|STIXGeneral|cm(b|r|ss|tt|ti)10"  # the others have no digits
    return tuple(sorted(path for path in folder.glob("*.ttf") if re.match(families, path.stem)))


def clean_handwriting(images: Any, labels: Any, rng: np.random.Generator) -> Labelled:
    """Each image (28, 28) enlarged smoothly 6 to 20 times, in black somewhere on a larger white page."""
    for image, label in zip(images, labels, strict=True):
        yield _on_page(_enlarged(image, rng.uniform(6, 20)), rng, 1.2, 2.0), int(label)


def printed(count: int, rng: np.random.Generator, thicker: bool = False) -> Labelled:
    """Digits of all fonts in turn, 20 to 200 pixels large; `thicker`: their strokes are wider by 3 to 9 % of that."""
    for i in range(count):
        path, digit = fonts()[i % len(fonts())], i // len(fonts()) % 10
        size = int(np.exp(rng.uniform(np.log(20), np.log(200))))
        stroke = max(1, round(size * rng.uniform(0.015, 0.045))) if thicker else 0
        ink = Image.new("L", (2 * size, 2 * size))
        font = ImageFont.truetype(path, size)
        ImageDraw.Draw(ink).text((size, size), str(digit), 255, font, anchor="mm", stroke_width=stroke)
        yield ImageChops.invert(ink), digit


def photographed(images: Any, labels: Any, rng: np.random.Generator) -> Labelled:
    """Each image in thin to thick strokes, in some ink on plain, ruled or squared paper, photographed at a slant."""
    for image, label in zip(images, labels, strict=True):
        ink = _with_pen(_enlarged(image, rng.uniform(4, 10)), rng)
        ink = ImageChops.invert(_on_page(ink, rng, 1.5, 2.8, 0.2))
        sheet = _ruled(ink.size, rng)
        colour = [(15, 15, 20), (20, 35, 110), (40, 70, 170), (95, 95, 100)][rng.integers(4)]  # black, blue, pencil
        sheet.paste(Image.new("RGB", ink.size, colour), (0, 0), ink)
        yield _shot(_tilted(sheet, rng), rng), int(label)


def _enlarged(image: Any, factor: float) -> Image.Image:
    side = round(28 * factor)
    return Image.fromarray(np.asarray(image)).resize((side, side), Image.Resampling.BICUBIC)


def _on_page(ink: Image.Image, rng: np.random.Generator, least: float, most: float, margin: float = 0) -> Image.Image:
    """Put white ink on a larger page, not within `margin`, a share of what is free, from its border; invert both."""
    width, height = (round(side * rng.uniform(least, most)) for side in ink.size)
    page = Image.new("L", (width, height))
    free = page.width - ink.width, page.height - ink.height
    page.paste(
        ink, (round(free[0] * rng.uniform(margin, 1 - margin)), round(free[1] * rng.uniform(margin, 1 - margin)))
    )
    return ImageChops.invert(page)


def _with_pen(ink: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Move the outline out or in, by up to 0.8 of the stroke's half width, without breaking the stroke or its holes."""
    inside = np.asarray(ink) > 127
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    half = np.percentile(distance[ndimage.maximum_filter(distance, 5) == distance].clip(1), 90)
    pieces, parts = ndimage.label(inside, np.ones((3, 3)))[1], ndimage.label(~inside)[1]
    move = half * rng.uniform(-0.7, 0.8)
    while (ndimage.label(distance > -move, np.ones((3, 3)))[1], ndimage.label(distance <= -move)[1]) != (pieces, parts):
        move = 0.8 * move if abs(move) > 0.5 else 0.0
    return Image.fromarray(np.uint8(255 * np.clip(distance + move + 0.5, 0, 1)))


def _ruled(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A sheet of paper: plain, ruled or squared."""
    sheet = Image.new("RGB", size, [(252, 252, 250), (244, 240, 228), (228, 230, 233)][rng.integers(3)])
    draw, kind = ImageDraw.Draw(sheet), rng.integers(3)
    gap, width = rng.uniform(0.12, 0.4) * size[1], max(1, size[1] // 250)
    colour = [(165, 185, 225), (185, 185, 190), (225, 175, 175)][rng.integers(3)]
    for at in np.arange(rng.uniform(0, gap), max(size), gap) if kind else ():
        draw.line((0, at, size[0], at), colour, width)
        if kind == 2:
            draw.line((at, 0, at, size[1]), colour, width)
    return sheet


def _tilted(sheet: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn a sheet by up to 8 degrees, and move each corner by up to 5 %; the paper goes on outside."""
    width, height = sheet.size
    fill = sheet.getpixel((0, 0))
    sheet = sheet.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=fill)
    corners = np.array([(0, 0), (0, height), (width, height), (width, 0)])
    moved = corners + rng.uniform(-0.05, 0.05, (4, 2)) * (width, height)
    rows, values = [], []  # x = (a u + b v + c) / (g u + h v + 1), y = (d u + e v + f) / (g u + h v + 1)
    for (u, v), (x, y) in zip(corners, moved, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        values += [x, y]
    solved = np.linalg.solve(np.array(rows, float), np.array(values, float))
    how = Image.Transform.PERSPECTIVE, solved.tolist(), Image.Resampling.BICUBIC
    return sheet.transform(sheet.size, *how, fillcolor=fill)


def _shot(sheet: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Photograph a sheet: light that falls off, mostly a shadow across, blur, noise, JPEG."""
    width, height = sheet.size
    ends = rng.uniform(0.6, 1, (2, 2))
    light = Image.fromarray(np.float32(ends)).resize(sheet.size, Image.Resampling.BILINEAR)
    shade = Image.new("L", sheet.size, 255)
    if rng.random() < 0.6:
        x0, x1 = rng.uniform(0, width, 2)
        side = 0 if rng.random() < 0.5 else width
        ImageDraw.Draw(shade).polygon([(x0, 0), (x1, height), (side, height), (side, 0)], int(rng.uniform(130, 220)))
        shade = shade.filter(ImageFilter.GaussianBlur(rng.uniform(0.005, 0.1) * width))
    sheet = sheet.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.004) * height))
    lit = np.float32(sheet) * (np.asarray(light) * np.asarray(shade) / 255)[:, :, None]
    noisy = lit + rng.uniform(1, 8) * rng.standard_normal(lit.shape, np.float32)
    file = io.BytesIO()
    Image.fromarray(np.uint8(noisy.clip(0, 255))).save(file, "JPEG", quality=int(rng.integers(50, 95)))
    return Image.open(file)
