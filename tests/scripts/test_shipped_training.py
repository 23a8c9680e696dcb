"""The training of the shipped weights: fonts, pictures, and weights that need no arguments."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import train_shipped_weights
from PIL import Image, ImageFont
from training import fonts, pictures, prepared

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet

BUNDLED = Path(matplotlib.get_data_path(), "fonts", "ttf")
SANS = BUNDLED / "DejaVuSans.ttf"


def test_fonts_of_the_tests_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "STIXGeneral.ttf", "cmr10.ttf", "cmex10.ttf"):
        (tmp_path / name).write_bytes((BUNDLED / name).read_bytes())
    (tmp_path / "copy.ttf").write_bytes(SANS.read_bytes())
    (tmp_path / "damaged.ttf").write_bytes(SANS.read_bytes()[:1000])
    assert fonts.find_fonts(tmp_path) == []
    monkeypatch.setattr(fonts, "LEFT_OUT", re.compile("none"))
    found = fonts.find_fonts(tmp_path)  # each design once, and no symbols
    assert [font.family for font in found] == ["DejaVu Sans", "DejaVu Serif", "STIXGeneral", "cmr10"]


def test_plain_digits_are_told_from_symbols() -> None:
    font = ImageFont.truetype(SANS, 48)
    drawn = [fonts.draw_text(font, str(digit)) for digit in range(10)]
    assert all(fonts.is_plain(digit, image) for digit, image in enumerate(drawn))
    assert not fonts.is_plain(8, drawn[3]) and not fonts.is_plain(5, fonts.draw_text(font, "%"))
    assert not fonts.is_plain(1, fonts.draw_text(font, ""))


def test_a_moved_outline_keeps_the_pieces() -> None:
    ink = pictures.as_ink(fonts.draw_text(ImageFont.truetype(SANS, 60), "8"))
    wide, thin = (pictures.with_outline(np.pad(ink, 4), move) for move in (2, -30))
    assert wide.sum() > 1.2 * ink.sum() and 0 < thin.sum() < 0.9 * ink.sum()
    assert fonts.is_plain(8, np.asarray(255 * thin, np.uint8))


def test_pictures_show_their_digit() -> None:
    rng = np.random.default_rng(0)
    image = tg.data.synthetic_digits(1, rng)[0][0]
    for ink in pictures.printed(SANS, 4, rng), pictures.written(image, rng):
        for draw in pictures.clean, pictures.photographed:
            picture = draw(ink, rng)
            assert picture.dtype == np.uint8 and picture.shape[2] == 3 and np.ptp(picture) > 60
    assert Image.open(io.BytesIO(pictures.as_jpeg(picture, rng))).size == picture.shape[1::-1]


@pytest.mark.slow
def test_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "CHUNK", 20)
    images, labels = tg.data.synthetic_digits(60)
    once, twice = (prepared.prepare("some", images, labels, np.random.default_rng(5), n) for n in (1, 2))
    for first, second in zip(once, twice, strict=True):
        np.testing.assert_array_equal(first, second)
    assert len(once.images) > 50 and (labels[once.source] == once.labels).all()


def test_weights_fit_a_network_made_without_arguments() -> None:
    model = DeepConvNet(np.random.default_rng(0), rescale="train", logit_dropout=0)
    rng = np.random.default_rng(1)
    for parameter in tg.nn.parameters(model).values():
        parameter.data = parameter.data + rng.normal(0, 0.01, parameter.shape).astype(np.float32)
    images, _ = tg.data.synthetic_digits(30, rng)
    default = train_shipped_weights.with_default_arguments(model)
    np.testing.assert_array_equal(default(images).data, model(images).data)


def test_bad_arguments_are_told_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (["--epochs", "0"], ["--fonts", str(tmp_path)], ["--epoch", "some"]):
        with pytest.raises(SystemExit) as stopped:
            train_shipped_weights.main(arguments)
        told = capsys.readouterr().err
        assert stopped.value.code == 2 and told.count("\n") == 1 and told.startswith("train_shipped_weights.py: ")
