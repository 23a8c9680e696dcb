"""Reading pictures: every form that one digit can come in is read alike; the damaged and too large are refused."""

from __future__ import annotations

import io
import os
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from damage import damaged, one_folder, peak_below
from hypothesis import given, settings
from likeness import alike

from tinygrad_mnist.data import Digits, ImageError, from_image

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("scipy")
ImageDraw = pytest.importorskip("PIL.ImageDraw")


def name_of(part: Any) -> str:
    """Name a case alike in every process, without addresses."""
    if isinstance(part, np.ndarray):
        return f"{part.dtype} {part.shape}"
    if isinstance(part, dict):
        return ", ".join(part)
    return str(getattr(part, "mode", part))


def seven(mode: str = "L", paper: Any = 255, ink: Any = 0) -> Any:
    image = Image.new(mode, (120, 160), paper)
    ImageDraw.Draw(image).line([(40, 40), (85, 40), (55, 120)], fill=ink, width=9, joint="curve")
    return image


SEVEN = from_image(seven())


def saved(image: Any, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def assert_same(found: Digits, wanted: Digits = SEVEN, pixels: int = 2) -> None:
    assert len(found.images) == len(wanted.images) == 1
    assert np.abs(found.boxes - wanted.boxes).max() <= pixels
    assert alike(found.images[0], wanted.images[0]) > 0.95


GREY = np.asarray(seven())


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        255 - GREY,
        GREY > 127,
        GREY.astype(np.uint16) * 257,
        GREY.astype(np.int64),
        GREY / 255,
        GREY.astype(np.float16) / np.float16(255),
        GREY[:, :, None],
        np.stack([GREY] * 3, axis=2),
        np.dstack([np.zeros((160, 120, 3), np.uint8), 255 - GREY]),  # black ink on nothing
        np.dstack([np.full((160, 120, 3), 255, np.uint8), 255 - GREY]),  # white ink on nothing
        np.asfortranarray(GREY)[:, ::1],
    ],
    ids=name_of,
)
def test_arrays_of_every_kind(image: npt.NDArray[Any]) -> None:
    assert_same(from_image(image))


@pytest.mark.parametrize(
    "image",
    [
        seven("1", 1, 0),
        seven("RGB", (255, 255, 255), (30, 60, 200)),
        seven("RGB", (250, 240, 200), (200, 20, 30)),
        seven("RGB", (20, 60, 40), (250, 250, 230)),
        seven("RGB", (120, 120, 120), (200, 90, 60)),  # told by its colour alone
        seven("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
        seven("RGBA", (255, 255, 255, 0), (255, 255, 255, 255)),
        seven("RGBA", (255, 255, 255, 255), (0, 0, 0, 255)),
        seven("LA", (0, 0), (255, 255)),
        seven("CMYK", (0, 0, 0, 0), (10, 20, 0, 240)),
        seven("I", 65535, 100),
        seven("I", 4095, 100),
        seven("F", 1.0, 0.1),
        seven("F", 200.0, 10.0),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        seven("RGB", (255, 255, 255), (0, 0, 0)).quantize(4),
        seven("HSV", (0, 0, 255), (0, 0, 0)),
        seven("YCbCr", (255, 128, 128), (0, 128, 128)),
    ],
    ids=name_of,
)
def test_pillow_images_of_every_mode(image: Any) -> None:
    before = image.tobytes()
    assert_same(from_image(image))
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("PNG", {}),
        ("PNG", {"transparency": 255}),
        ("JPEG", {"quality": 60}),
        ("GIF", {}),
        ("GIF", {"save_all": True, "append_images": [Image.new("L", (120, 160), 255)]}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("PCX", {}),
        ("WEBP", {}),
    ],
    ids=name_of,
)
def test_files_of_every_kind(tmp_path: Path, kind: str, how: dict[str, Any]) -> None:
    content = saved(seven(), kind, **how)
    path = tmp_path / "seven"
    path.write_bytes(content)
    with path.open("rb") as file:
        for image in (path, str(path), content, bytearray(content), file):
            assert_same(from_image(image))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int) -> None:
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # members of Image.Transpose that lead to each orientation
    image = seven().transpose(Image.Transpose(undone[orientation])) if orientation > 1 else seven()
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_same(from_image(saved(image, "JPEG", exif=exif)))


def test_boxes_are_in_pixels_of_the_picture_where_it_is_reduced() -> None:
    large = seven().resize((1800, 2400))
    for image in (saved(large, "JPEG"), np.asarray(large)):
        assert_same(from_image(image), SEVEN._replace(boxes=SEVEN.boxes * 15), 20)


def png(width: int, height: int) -> bytes:
    """A PNG whose header tells a size that its content does not have."""
    chunks = b""
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
        (b"IEND", b""),
    ):
        chunks += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "empty"),
        (b"no picture", "no picture that can be read"),
        (saved(seven(), "PNG")[:150], "damaged or cut short"),
        (saved(seven(), "JPEG")[:400], "damaged or cut short"),
        (png(20_000, 10), "20000 x 10 pixels; at most 16384"),
        (png(10_000, 9_000), "at most 50000000"),  # so many that Pillow warns
        (png(16_000, 16_000), "at most 50000000"),  # so many that Pillow refuses it
        (png(0, 5), "pixels|no picture"),
        (b"P5 20000 10 255 ", "20000 x 10 pixels"),
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.broadcast_to(np.uint8(0), (3, 20_000)), "20000 x 3"),
        (np.broadcast_to(np.uint8(0), (16_000, 16_000)), "at most 50000000"),
        (np.zeros((2, 3, 5), np.uint8), r"\(2, 3, 5\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (np.array([[0, np.nan]]), "finite"),
        (np.array([[0, np.inf]]), "finite"),
        (np.array([[0, 255.0]]), "from 0 to 1"),
        (np.array([[-5, 255]]), "from 0 to 255"),
        (np.array([["a"]]), "give uint8"),
        (np.full((9, 9), 1e300), "finite"),
        (np.ma.masked_array(np.zeros((9, 9), np.uint8)), "masked"),
        (memoryview(b"no picture" * 9)[::2], "the data is no picture"),
        ("a\0b", "no path"),
        (np.array([[1j]]), "give uint8"),
        (Image.new("F", (5, 5), float("nan")), "finite"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(image: Any, words: str) -> None:
    with warnings.catch_warnings(), peak_below(4_000_000), pytest.raises(ImageError, match=words) as raised:
        warnings.simplefilter("error")
        from_image(image)
    assert str(raised.value).startswith("from_image: ") and "\n" not in str(raised.value)


def test_the_largest_number_of_pixels_can_be_chosen() -> None:
    with pytest.raises(ImageError, match="120 x 160 pixels; at most 19199 .* raise max_pixels"):
        from_image(seven(), max_pixels=120 * 160 - 1)
    assert_same(from_image(seven(), max_pixels=120 * 160))


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        from_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is a folder"):
        from_image(tmp_path)
    with pytest.raises(TypeError, match="NoneType"):
        from_image(None)
    with pytest.raises(TypeError, match="binary"):
        from_image(io.StringIO("text"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ImageError, match="regular file"):
            from_image(tmp_path / "pipe")
    with (tmp_path / "large.png").open("wb") as file:  # a sparse file
        file.truncate(200_000_001)
    with pytest.raises(ImageError, match="200000001 bytes"):
        from_image(tmp_path / "large.png")


SMALL = seven().resize((30, 40))
FILES = [saved(SMALL, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "PCX")]
FILES.append(saved(SMALL.convert("RGB").quantize(4), "PNG", transparency=0))
FILES.append(saved(Image.fromarray(np.asarray(SMALL).astype(np.uint16)), "TIFF", compression="tiff_lzw"))


def check_damaged(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = from_image(content, max_pixels=1_000_000)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert found.images.shape[1:] == (28, 28) and found.images.any(axis=(1, 2)).all()


@given(damaged(*FILES))
def test_damaged_files_are_read_or_refused(content: bytes) -> None:
    check_damaged(content)


@pytest.mark.slow
@settings(one_folder, max_examples=1_000)
@given(damaged(*FILES))
def test_a_thousand_damaged_files_are_read_or_refused(content: bytes) -> None:
    check_damaged(content)


@pytest.mark.parametrize(
    "content",
    [
        b"P3 3000 3000 255 " + b"1 " * 1_000_000,
        b"P5 3000 3000 77 " + bytes(9_000_000),
        b"qoif" + struct.pack(">IIBB", 3000, 3000, 3, 0) + b"\1\2" * 4_500_000,
    ],
    ids=["plain PPM", "PGM of 77 levels", "QOI"],
)
def test_what_is_decoded_slowly_is_refused_where_it_is_large(content: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ImageError, match="at most 1000000 are accepted in .*; save it as PNG"):
        from_image(content)
    assert time.process_time() - started < 1
