"""`from_image`: what comes back for drawings whose digits, places and sizes are known."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from likeness import alike

from tinygrad_mnist.data import NoDigitError, from_image, synthetic_digits

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("scipy")
ImageDraw = pytest.importorskip("PIL.ImageDraw")
Pixels = npt.NDArray[np.uint8]
segmentation = pytest.importorskip("tinygrad_mnist.data.preparation.segmentation")
few = settings(max_examples=max(settings().max_examples // 2, 5))

DIGITS, LABELS = synthetic_digits(30)


def enlarged(digit: Pixels, factor: int) -> Pixels:
    """The ink of a digit, smoothly enlarged, cropped to its box."""
    height, width = digit.shape
    large = np.asarray(Image.fromarray(digit).resize((width * factor, height * factor), Image.Resampling.BICUBIC))
    rows, columns = (np.flatnonzero((large > 100).any(axis=axis)) for axis in (1, 0))
    return large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def page(height: int, width: int, *placed: tuple[int, int, Pixels]) -> Pixels:
    """White paper with black ink at (top, left)."""
    paper = np.full((height, width), 255, np.uint8)
    for top, left, ink in placed:
        part = paper[top : top + ink.shape[0], left : left + ink.shape[1]]
        part[...] = np.minimum(part, 255 - ink)
    return paper


def test_images_of_the_data_set_come_back_as_they_are() -> None:
    likeness = []
    for digit in DIGITS:
        images, boxes, touching = from_image(digit)
        assert images.dtype == np.uint8 and images.shape == (1, 28, 28) and boxes.shape == (1, 4) and not touching.any()
        likeness.append(alike(images[0], digit))
    assert np.median(likeness) > 0.99 and min(likeness) > 0.85  # the thickest are made thinner


@few
@given(
    st.sampled_from(range(len(DIGITS))),
    st.integers(3, 9),
    st.integers(0, 60),
    st.integers(0, 60),
    st.booleans(),
    st.integers(60, 255),
)
def test_neither_size_nor_place_nor_colours_matter(
    index: int, factor: int, top: int, left: int, light_on_dark: bool, contrast: int
) -> None:
    ink = enlarged(DIGITS[index], factor)
    paper = page(ink.shape[0] + 80, ink.shape[1] + 80, (top + 10, left + 10, ink))
    shown = 255 - (255 - paper.astype(int)) * contrast // 255
    images, boxes, _ = from_image((255 - shown if light_on_dark else shown).astype(np.uint8))
    assert len(images) == 1
    assert alike(images[0], DIGITS[index]) > 0.9
    expected = left + 10, top + 10, left + 10 + ink.shape[1], top + 10 + ink.shape[0]
    assert np.abs(boxes[0] - expected).max() <= 1 + factor // 2


@pytest.mark.parametrize("width", [2, 4, 10, 30, 50])
@pytest.mark.parametrize("size", [100, 900])
def test_the_width_of_strokes_is_made_that_of_the_data_set(width: int, size: int) -> None:
    drawn = Image.new("L", (size, size), 255)
    radius = size // 3
    pen = max(1, round(width * radius / 100))
    box = [size // 2 - radius, size // 2 - radius, size // 2 + radius, size // 2 + radius]
    ImageDraw.Draw(drawn).ellipse(box, outline=0, width=pen)
    image = from_image(drawn).images[0].astype(float) / 255
    rows, columns = (np.flatnonzero((image > 0.2).any(axis=axis)) for axis in (1, 0))
    assert 19 <= np.ptp(rows) + 1 <= 21 and 19 <= np.ptp(columns) + 1 <= 21
    # the ring's area by its middle circle's length
    stroke = image.sum() / (np.pi * (20 - 3))
    assert 1.3 < stroke < 4
    assert image[13:15, 13:15].max() < 0.1  # the hole is open


def test_a_thick_stroke_with_hairs_is_no_blot() -> None:
    """What is left of ruled lines and grain at the edge of a thick stroke is not taken for the stroke's width."""
    one = np.pad(np.full((120, 30), 255, np.uint8), ((0, 0), (12, 12)))
    one[::4, 2:-2] = 255
    images, boxes, _ = from_image(page(200, 300, (40, 40, one), (40, 180, enlarged(DIGITS[3], 6))))
    assert len(images) == 2 and boxes[0].tolist() == [42, 40, 92, 160]


def test_the_centre_of_mass_is_in_the_middle() -> None:
    grid = np.arange(28) - 13.5
    for digit in DIGITS[:10]:
        image = from_image(page(200, 200, (20, 90, enlarged(digit, 4)))).images[0].astype(float)
        assert abs((image.sum(axis=1) @ grid) / image.sum()) < 1.1
        assert abs((image.sum(axis=0) @ grid) / image.sum()) < 1.1


@few
@given(st.lists(st.lists(st.sampled_from(range(len(DIGITS))), min_size=1, max_size=5), min_size=1, max_size=3))
def test_digits_come_row_by_row_from_the_left(rows: list[list[int]]) -> None:
    placed = [
        (20 + 110 * i, 20 + 100 * j, enlarged(DIGITS[index], 3))
        for i, row in enumerate(rows)
        for j, index in enumerate(row)
    ]
    images, boxes, touching = from_image(page(20 + 110 * len(rows), 20 + 100 * max(map(len, rows)), *placed))
    assert len(images) == len(placed) and not touching.any()
    for image, box, (top, left, ink), index in zip(images, boxes, placed, sum(rows, []), strict=True):
        assert alike(image, DIGITS[index]) > 0.88
        assert np.abs(box - (left, top, left + ink.shape[1], top + ink.shape[0])).max() <= 3


def test_rows_that_are_tilted_stay_rows() -> None:
    placed = [(60 + 100 * i, 20 + 80 * j, enlarged(DIGITS[6 * i + j], 3)) for i in range(3) for j in range(6)]
    turned = Image.fromarray(page(420, 520, *placed)).rotate(5, Image.Resampling.BICUBIC, fillcolor=255)
    _, boxes, _ = from_image(turned)
    assert len(boxes) == 18
    middles = (boxes[:, :2] + boxes[:, 2:]).reshape(3, 6, 2)
    assert (np.diff(middles[:, :, 0], axis=1) > 0).all() and (np.diff(middles[:, :, 1], axis=0) > 40).all()


def drawing(*strokes: list[tuple[int, int]], size: tuple[int, int] = (200, 200), pen: int = 10) -> Any:
    image = Image.new("L", size, 255)
    for stroke in strokes:
        ImageDraw.Draw(image).line(stroke, fill=0, width=pen, joint="curve")
    return image


@pytest.mark.parametrize(
    "strokes",
    [
        ([(80, 50), (78, 95), (110, 95), (120, 130), (75, 150)], [(92, 38), (130, 34)]),  # a 5 with its bar apart
        ([(70, 40), (60, 100), (125, 100)], [(118, 60), (112, 160)]),  # a 4 in two strokes
        ([(60, 40), (130, 40), (85, 160)], [(70, 105), (130, 100)]),  # a 7 with a bar
        ([(100, 30), (100, 88)], [(100, 97), (98, 160)]),  # a 1 that is broken
    ],
)
def test_the_strokes_of_one_digit_stay_together(strokes: tuple[list[tuple[int, int]], ...]) -> None:
    found = from_image(drawing(*strokes))
    points = np.array(sum(strokes, []))
    assert len(found.images) == 1
    assert np.abs(found.boxes[0] - [*points.min(axis=0), *points.max(axis=0)]).max() <= 12


def test_touching_digits_are_cut_and_said() -> None:
    three = [(30, 50), (80, 50), (55, 80), (85, 100), (70, 140), (25, 140)]
    joined = [[(x + 80 * i, y) for x, y in three] for i in (0, 1)]
    link = [(84, 100), (135, 80)]
    found = from_image(drawing(*joined, link))
    assert len(found.images) == 2 and found.touching.all()
    assert abs(found.boxes[0][2] - 100) < 30 and abs(found.boxes[1][0] - 100) < 30
    assert not from_image(drawing(*joined)).touching.any()


@pytest.mark.parametrize("pen", [4, 9])
def test_digits_that_touch_are_said_where_both_are_no_wider_than_one_may_be(pen: int) -> None:
    three = [(30, 50), (80, 50), (55, 80), (85, 100), (70, 140), (30, 140)]
    seven = [(95, 50), (135, 50), (110, 140)]
    both = three, seven, [(84, 100), (124, 92)]
    assert from_image(drawing(*both, pen=pen)).touching.all()
    beside = from_image(drawing(*both, [(x + 70, y) for x, y in seven], pen=pen, size=(240, 200)))
    assert beside.touching.tolist() == [True, True, False]
    assert abs(beside.boxes[0][2] - 95) < 25 and abs(beside.boxes[1][0] - 95) < 25


def test_what_cannot_be_cut_is_said() -> None:
    found = from_image(drawing(*[[(20, y), (180, y + 10)] for y in (60, 80, 100, 120)], [(20, 60), (180, 130)], pen=12))
    assert found.touching.all()


def test_specks_points_and_frames_are_left_out() -> None:
    paper = page(240, 240, (60, 70, enlarged(DIGITS[3], 5)))
    alone = from_image(paper)
    rng = np.random.default_rng(0)
    for y, x in rng.integers(0, 238, (60, 2)):
        paper[y : y + 2, x : x + 2] = 0
    paper[14:17, 14:226] = paper[223:226, 14:226] = paper[14:226, 14:17] = paper[14:226, 223:226] = 0
    found = from_image(paper)
    assert len(found.images) == 1 and np.abs(found.boxes - alone.boxes).max() <= 4
    assert alike(found.images[0], alone.images[0]) > 0.9


RAMP = np.linspace(0, 255, 300).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((100, 100), 255, np.uint8), "blank"),
        (np.zeros((1, 1), np.uint8), "1 x 1 pixels, too few"),
        (np.array([[3, 200, 40, 90]] * 3, np.uint8), "4 x 3 pixels, too few"),
        (np.full((100, 100), 250, np.uint8) - np.eye(100, dtype=np.uint8), "blank"),
        (np.random.default_rng(1).integers(0, 256, (300, 300), np.uint8), "noise|specks|marks"),
        (np.where(np.random.default_rng(1).random((200, 200)) < 0.002, 0, 255).astype(np.uint8), "specks|marks"),
        (np.tile(RAMP, (200, 1)), "blank|specks|marks"),
        (np.tile(240 - RAMP[:240] // 2, (200, 1)).repeat(3, axis=1), "blank"),
        (page(100, 300, (50, 40, np.full((6, 200), 255, np.uint8))), "line"),
        (page(100, 300, (50, 0, np.full((4, 300), 255, np.uint8))), "blank|line|marks|specks"),
        (page(200, 200, (50, 50, np.full((100, 100), 255, np.uint8))), "blots"),
    ],
)
def test_where_there_is_no_digit_it_says_what_there_is(pixels: Pixels, words: str) -> None:
    with pytest.raises(NoDigitError, match=words) as raised:
        from_image(pixels)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("from_image: ")


@few
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.floats(0, 4), st.booleans())
def test_any_pixels_give_digits_or_one_clear_error(
    seed: int, height: int, width: int, blur: float, two_levels: bool
) -> None:
    from scipy import ndimage

    values = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), blur)
    values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    try:
        found = from_image(np.where(values > 0.5, 1.0, 0.0) if two_levels else values)
    except NoDigitError:
        return
    assert found.images.any(axis=(1, 2)).all()
    assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= (width, height)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


@pytest.mark.parametrize("count, length", [(5_000, 14), pytest.param(1_500, 60, marks=pytest.mark.slow)])
def test_any_number_of_marks_is_found_or_refused_within_seconds(count: int, length: int) -> None:
    rng = np.random.default_rng(0)
    page = Image.new("L", (1600, 1600), 255)
    pen = ImageDraw.Draw(page)
    for (x, y), angle in zip(rng.uniform(0, 1600, (count, 2)), rng.uniform(0, np.pi, count), strict=True):
        pen.line([x, y, x + length * np.cos(angle), y + length * np.sin(angle)], 0, 3)
    started = time.process_time()
    with contextlib.suppress(NoDigitError):
        from_image(page)
    assert time.process_time() - started < 4  # it took up to 440 s


def test_parts_are_joined_as_by_comparing_all_of_them() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 20, 40):
        corners, sides = rng.integers(0, 150, (count, 2)), rng.integers(1, 50, (count, 2))
        parts = [
            segmentation.Found(y, x, y + h, x + w, np.ones((h, w), bool))
            for (y, x), (h, w) in zip(corners.tolist(), sides.tolist(), strict=True)
        ]
        found = segmentation._joined(parts, 40.0, 3.0)
        boxes = np.array([(part.top, part.left, part.bottom, part.right) for part in found])
        one, two = np.triu_indices(len(boxes), 1)
        assert not np.isfinite(segmentation._apartness(boxes, one, two, 40.0, 3.0)).any()  # none is left to join
        ink, joined = np.zeros((2, 200, 200), bool)
        for page, some in ((ink, parts), (joined, found)):
            for part in some:
                page[part.top : part.bottom, part.left : part.right] |= part.mask
        np.testing.assert_array_equal(joined, ink)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 500), (500, 1), (3, 500)])
def test_pictures_of_few_rows_or_columns_are_refused_in_words(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with pytest.raises(NoDigitError, match="from_image"):
        from_image(noise)


def test_a_checkerboard_of_single_pixels_has_no_digit() -> None:
    y, x = np.indices((300, 400))
    with pytest.raises(NoDigitError, match="specks|blank|noise"):
        from_image(np.uint8(255 * ((x + y) % 2)))
