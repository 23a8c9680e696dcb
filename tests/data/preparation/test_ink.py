"""Ink is told from light, paper and lines: a drawing comes back the same whatever it was drawn on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from likeness import alike

from tinygrad_mnist.data import from_image

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("scipy")
ImageDraw = pytest.importorskip("PIL.ImageDraw")
Light = npt.NDArray[np.float64]  # (h, w), or (h, w, 3)

HEIGHT, WIDTH = 240, 320
Y, X = np.mgrid[:HEIGHT, :WIDTH]
NOISE = np.random.default_rng(0).normal(0, 1, (HEIGHT, WIDTH))


def four() -> Light:
    """How much light the paper returns: little, where a 4 is drawn."""
    drawn = Image.new("L", (WIDTH, HEIGHT), 235)
    for stroke in ([(140, 70), (125, 135), (205, 135)], [(190, 60), (180, 190)]):
        ImageDraw.Draw(drawn).line(stroke, fill=60, width=9, joint="curve")
    return np.asarray(drawn) / 255


PAPER = four()
FOUR = from_image(PAPER)


def shaded(light: Light) -> Light:
    return PAPER * light


def ruled(step: int, level: float, slope: float, squares: bool) -> Light:
    lines = (Y + slope * X) % step < 2
    if squares:
        lines |= (X - slope * Y) % step < 2
    return np.minimum(PAPER, np.where(lines, level, 1.0))


def on_table(tilt: float, table: float) -> Light:
    sheet = Image.fromarray((PAPER * 255).astype(np.uint8)).resize((WIDTH, HEIGHT))
    around = Image.new("L", (WIDTH + 160, HEIGHT + 160), 0)
    mask = around.copy()
    around.paste(round(table * 255), (0, 0, *around.size))
    around.paste(sheet, (80, 80))
    mask.paste(255, (80, 80, 80 + WIDTH, 80 + HEIGHT))
    turned = around.rotate(tilt, fillcolor=round(table * 255), resample=Image.Resampling.BICUBIC)
    return np.asarray(turned) / 255


def small_on_table() -> Light:
    """A small digit on a sheet with corners, whose table is unlike the sheet in more places than the digit's ink is."""
    paper = np.pad(PAPER, ((100, 60), (240, 80)), constant_values=PAPER[0, 0])
    picture = np.full((600, 960), 0.15)
    picture[100:500, 160:800] = paper * np.linspace(1, 0.7, 640)
    return picture + 0.01 * np.random.default_rng(0).normal(size=picture.shape)


COLOURS: dict[str, Callable[[], Light]] = {
    "a gradient": lambda: shaded(1 - 0.6 * X / WIDTH),
    "a dark corner": lambda: shaded(1 - 0.5 * (X / WIDTH) * (Y / HEIGHT)),
    "a soft shadow": lambda: shaded(1 - 0.4 / (1 + np.exp((X - 150 + 0.3 * Y) / 12))),
    "a hard shadow": lambda: shaded(1 - 0.45 / (1 + np.exp((X + 0.4 * Y - 200) / 1.5))),
    "grain": lambda: (PAPER + 0.06 * NOISE).clip(0, 1),
    "grain in the dark": lambda: (shaded(0.5 - 0.2 * Y / HEIGHT) + 0.02 * NOISE).clip(0, 1),
    "ruled lines": lambda: ruled(34, 0.5, 0.0, False),
    "dark ruled lines": lambda: ruled(34, 0.3, 0.0, False),
    "tilted squares": lambda: ruled(26, 0.5, 0.06, True),
    "a dark table": lambda: on_table(0, 0.2),
    "a dark table, tilted": lambda: on_table(4, 0.25),
    "a large sheet on a dark table": small_on_table,
    "chalk on a board": lambda: (0.9 - PAPER * 0.8 + 0.02 * NOISE).clip(0, 1),
    "blue ink, yellow light": lambda: (
        np.stack([PAPER, PAPER * 0.9, 0.6 + 0.1 * PAPER], axis=2) * (1 - 0.3 * X / WIDTH)[..., None]
    ),
    "red ink on green lines": lambda: np.stack([np.where(Y % 30 < 2, 0.7, 0.9), PAPER * 0.95, PAPER * 0.9], axis=2),
}


@pytest.mark.parametrize("paper", COLOURS)
def test_a_digit_is_the_same_on(paper: str) -> None:
    found = from_image(COLOURS[paper]())
    assert len(found.images) == 1
    assert alike(found.images[0], FOUR.images[0]) > (0.85 if "tilted" in paper else 0.9)


@pytest.mark.parametrize("slope", [0.0, 0.05, -0.12, 0.22])
@pytest.mark.parametrize("squares", [False, True])
def test_ruled_lines_are_found_and_strokes_are_not(slope: float, squares: bool) -> None:
    from tinygrad_mnist.data.preparation.ruling import find_ruling

    strokes = PAPER < 0.5
    mask = ruled(34, 0.3, slope, squares) < 0.5
    found = find_ruling(mask)
    assert found is not None
    lines = mask & ~strokes
    assert (found & lines).sum() > 0.9 * lines.sum()
    assert (found & strokes).sum() < 0.06 * strokes.sum()
    assert find_ruling(strokes) is None
