"""Folders of images by class: what is read, in which order, and what is refused by name."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from tinygrad_mnist.data import load_image_folder

Image = pytest.importorskip("PIL.Image")
Pixels = npt.NDArray[np.uint8]
anew = settings(max_examples=settings().max_examples // 2, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(file: Path, pixels: Pixels, **how: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **how)
    return file


@anew
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.just(3))),
    st.integers(1, 3),
    st.sampled_from([".png", ".BMP", ".tif", ".ppm"]),
)
def test_images_come_back_class_by_class(
    tmp_path_factory: pytest.TempPathFactory, pixels: Pixels, classes: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("images")
    names = [f"class {number}" for number in range(min(classes, len(pixels)))]
    expected: dict[str, list[Pixels]] = {name: [] for name in names}
    for number, image in enumerate(pixels):
        name = names[number % len(names)]
        save(folder / name / ("deeper" if number % 2 else "") / f"{number:03}{suffix}", image)
        expected[name].append(image)
    found = load_image_folder(folder)
    assert found.classes == names and found.labels.dtype == np.intp
    assert found.labels.tolist() == [i for i, name in enumerate(names) for _ in expected[name]]
    assert found.images.dtype == np.uint8 and found.images.shape == (len(pixels), 3, *pixels.shape[1:3])
    for number, name in enumerate(names):
        part = found.images[found.labels == number].transpose(0, 2, 3, 1)
        key = lambda image: image.tolist()  # noqa: E731  # of equal sets in another order
        assert sorted(map(key, part)) == sorted(map(key, expected[name]))
    assert tg.data.as_input(found.images).shape == found.images.shape


def test_grey_levels_are_those_of_the_standard_and_have_no_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    save(tmp_path / "a" / "colours.png", pixels)
    save(tmp_path / "a" / "levels.png", pixels[..., 0])
    images, _, _ = load_image_folder(tmp_path, grey=True)
    assert images.shape == (2, 5, 4) and np.array_equal(images[1], pixels[..., 0])
    assert abs(images[0] - pixels @ [0.299, 0.587, 0.114]).max() < 1
    images, _, _ = load_image_folder(tmp_path)
    assert np.array_equal(images[1], np.broadcast_to(pixels[..., 0], (3, 5, 4)))


def test_images_are_stretched_to_a_size_on_request(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(4, 8), (6, 6), (3, 5)]):
        levels = np.full((height, width, 3), 40 * number + 7, np.uint8)
        save(tmp_path / "a" / f"{number}.png", levels)
    with pytest.raises(ValueError, match="0.png has 4 x 8 pixels.*1.png has 6 x 6.*size=") as caught:
        load_image_folder(tmp_path)
    assert "2.png has 3 x 5 pixels" in str(caught.value)
    for size, shape in ((3, (3, 3)), ((2, 5), (2, 5))):
        images, _, _ = load_image_folder(tmp_path, size)
        assert images.shape == (3, 3, *shape) and images[:, 0, 0, 0].tolist() == [7, 47, 87]
        assert np.array_equal(images, np.broadcast_to(images[:, :1, :1, :1], images.shape))
    halves = np.repeat(np.array([[0, 200]], np.uint8), 2, axis=1)
    save(tmp_path / "b" / "halves.png", np.repeat(halves, 4, axis=0))
    images, labels, _ = load_image_folder(tmp_path, (2, 2), grey=True)
    assert images[labels == 1].tolist() == [[[images[3, 0, 0], images[3, 0, 1]]] * 2]
    assert images[3, 0, 0] < 50 < 150 < images[3, 0, 1], "columns are not taken for rows"


def test_photographs_are_turned_and_palettes_and_transparency_converted(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: the camera was turned by 90 degrees
    save(tmp_path / "a" / "1.png", pixels, exif=turned)
    images, _, _ = load_image_folder(tmp_path)
    assert images.shape == (1, 3, 4, 2) and images[0, :, 0, 1].tolist() == [255, 255, 255] and images.sum() == 3 * 255
    palette = Image.fromarray(pixels).quantize(2)
    palette.save(tmp_path / "a" / "1.png", transparency=bytes([0, 128]))
    images, _, _ = load_image_folder(tmp_path)
    assert np.array_equal(images[0].transpose(1, 2, 0), pixels)
    see_through = np.concatenate([pixels, np.full((2, 4, 1), 9, np.uint8)], axis=2)
    save(tmp_path / "a" / "1.png", see_through)
    assert np.array_equal(load_image_folder(tmp_path).images[0].transpose(1, 2, 0), pixels)


def test_other_files_and_what_is_hidden_are_left_out(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    for name in ("a/1.png", ".hidden/1.png", "a/.2.png"):
        save(tmp_path / name, image)
    for name in ("a/notes.txt", "notes.txt", "a/.DS_Store"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "a" / "folder.png").mkdir()
    assert load_image_folder(tmp_path).labels.tolist() == [0]


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "a" / "whole.png", np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    (tmp_path / "a" / "empty.png").touch()
    (tmp_path / "a" / "text.jpg").write_text("no image")
    (tmp_path / "a" / "cut.png").write_bytes(whole.read_bytes()[:400])
    save(tmp_path / "a" / "deep.png", np.zeros((2, 2), np.uint16))
    with pytest.raises(ValueError, match=r"load_image_folder: cannot read .*; mend or remove them") as caught:
        load_image_folder(tmp_path)
    for name in ("empty.png", "text.jpg", "cut.png", "deep.png has more than 8 bits"):
        assert str(tmp_path / "a" / name) in str(caught.value)
    assert "whole.png" not in str(caught.value)
    for number in range(9):
        (tmp_path / "a" / f"{number}.png").touch()
    with pytest.raises(ValueError, match="and 8 more; mend"):
        load_image_folder(tmp_path)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "is not a folder"), (tmp_path, "has no folders")):
        with pytest.raises(FileNotFoundError, match=f"load_image_folder: {re.escape(str(path))} {words}"):
            load_image_folder(path)
    save(tmp_path / "a" / "1.png", np.zeros((2, 2, 3), np.uint8))
    for name in "bc":
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="b, c have no images"):
        load_image_folder(tmp_path)


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"load_image_folder needs Pillow; pip install 'tinygrad_mnist\[images\]'"):
        load_image_folder(tmp_path)
