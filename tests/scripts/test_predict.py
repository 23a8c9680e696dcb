"""`scripts/predict.py`: what it says of pictures, files that are none, and what it draws."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import predict
import pytest
import terminal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageShow
from predicting import drawing, reading, telling

import tinygrad_mnist as tg
from models.deep_convnet import DeepConvNet
from models.lenet import LeNet5
from models.pretrained import SHIPPED, describe

IMAGES, LABELS = tg.data.synthetic_digits(20, rng=np.random.default_rng(3))
ANSWER = r"(\d) \((\d\.\d\d); next (\d), (\d\.\d\d)\)(, unsure)?"
TEMPERATURE = 0.5
ABOUT = "deep_convnet.DeepConvNet, accuracy 0.1, trained on few digits"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights that say little about digits, but always the same."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    model = DeepConvNet(rng=np.random.default_rng(5), depth=4)
    about = {**describe("deep_convnet.DeepConvNet", depth=4), "temperature": str(TEMPERATURE)}
    about |= {"accuracy": "0.1", "data": "few digits"}
    tg.checkpoint.save_weights(path, tg.nn.state_dict(model), about)
    return path


@pytest.fixture
def call(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Any]:
    """Call the script in an empty folder; its code, the lines of its output and those of its errors come back."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, use: Path | None = weights) -> Any:
        try:
            code = predict.main([*arguments, *(["--weights", str(use)] if use else [])])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out.splitlines(), err=err.splitlines())

    return run


def picture(name: str, *rows: list[int]) -> str:
    """Write a picture with rows of digits, dark on white, of four times their size."""
    page = 255 - np.concatenate([np.concatenate(list(IMAGES[row]), axis=1) for row in rows])
    Image.fromarray(page.repeat(4, axis=0).repeat(4, axis=1)).save(name)
    return name


def expected(name: str) -> np.ndarray:
    """The probabilities, computed apart from the script."""
    model = DeepConvNet(rng=np.random.default_rng(5), depth=4)
    powers = np.exp(np.float64(model(tg.data.from_image(name).images).data) / TEMPERATURE)
    return powers / powers.sum(axis=1, keepdims=True)


# What it says ---------------------------------------------------------------------------------------------------------
def test_a_digit_is_one_line(call: Any, weights: Path) -> None:
    name = picture("seven.png", [1])
    done = call(name)
    assert done.code == 0 and done.err == [f"weights: {weights} ({ABOUT})"]
    (line,) = done.out
    digit, probability, following, its = re.fullmatch(rf"seven\.png: {ANSWER}", line).groups()[:4]
    (row,) = expected(name)
    assert [int(following), int(digit)] == row.argsort()[-2:].tolist()
    assert [probability, its] == [f"{row.max():.2f}", f"{np.sort(row)[-2]:.2f}"]


def test_rows_of_digits_are_read_as_they_stand(call: Any) -> None:
    name = picture("sheet.png", [0, 1, 2], [3, 4, 5])
    head, *lines = call(name).out
    found, row = tg.data.from_image(name), expected(name)
    assert len(lines) == len(found.images) == 6
    digits = "".join(map(str, row.argmax(axis=1)))
    assert head == f"sheet.png: {digits[:3]} / {digits[3:]} (6 digits)"
    for line, p, (left, top, right, bottom) in zip(lines, row, found.boxes, strict=True):
        assert re.fullmatch(rf"  {ANSWER}, at x {left} to {right}, y {top} to {bottom}", line), line
        assert line.startswith(f"  {p.argmax()} ({p.max():.2f}")
    (line,) = call("--json", name).out
    assert json.loads(line)["text"] == f"{digits[:3]}\n{digits[3:]}"


def test_json(call: Any, weights: Path) -> None:
    done = call("--json", picture("two.png", [0, 2]), "none.png", picture("one.png", [4]))
    two, none, one = map(json.loads, done.out)
    assert done.code == 1 and len(done.err) == 2
    assert none == {"image": "none.png", "text": "", "digits": [], "error": none["error"], "weights": str(weights)}
    assert none["error"] in done.err[1] and two["error"] is one["error"] is None
    for name, found in (("two.png", two), ("one.png", one)):
        assert found.keys() == none.keys() and found["image"] == name
        for digit, p, box in zip(found["digits"], expected(name), tg.data.from_image(name).boxes, strict=True):
            np.testing.assert_allclose(digit["probabilities"], p, atol=1e-6)
            assert digit["digit"] == p.argmax() and digit["runner_up"] == p.argsort()[-2]
            assert digit["probability"] == digit["probabilities"][digit["digit"]]
            assert digit["runner_up_probability"] == digit["probabilities"][digit["runner_up"]]
            assert digit["box"] == box.tolist() and digit["touching"] is False
            assert digit["unsure"] is (digit["probability"] < telling.UNSURE)


def test_a_row_ends_where_the_next_digit_is_below_or_back_at_the_left() -> None:
    def shown(*boxes: tuple[int, int, int, int]) -> str:
        digits = tg.data.Digits(IMAGES[: len(boxes)], np.array(boxes), np.zeros(len(boxes), bool))
        return telling.text(telling.answers(reading.Reading("a.png", digits, probabilities=np.eye(10)[: len(boxes)])))

    assert shown((0, 0, 9, 9), (0, 10, 9, 19), (2, 20, 9, 29)) == "0\n1\n2", "a column"
    assert shown((0, 0, 9, 9), (8, 3, 19, 12), (20, 6, 29, 15), (0, 14, 9, 23)) == "012\n3", "rows that slope"
    assert shown((10, 0, 29, 19), (9, 3, 40, 20)) == "01", "a stroke reaches back"


@given(st.lists(st.floats(0.001, 1), min_size=10, max_size=10))
def test_an_answer_is_unsure_below_the_threshold(row: list[float]) -> None:
    p = np.array([row]) / sum(row)
    digits = tg.data.Digits(IMAGES[:1], np.array([[0, 0, 28, 28]]), np.array([True]))
    found = reading.Reading("a.png", digits, probabilities=p)
    line = telling.as_lines(found)
    assert ("unsure" in line) == (round(p.max(), 6) < telling.UNSURE)
    assert "touches" in line and json.loads(telling.as_json(found, ""))["digits"][0]["touching"]


def test_pictures_classified_together_are_answered_as_alone(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [picture(f"{i}.png", [i, i + 1][: 1 + i % 2]) for i in range(7)]
    names.insert(2, "none.png")
    together = call(*names)
    batches: list[int] = []
    outputs = tg.training.outputs
    monkeypatch.setattr(tg.training, "outputs", lambda model, x: batches.append(len(x)) or outputs(model, x))
    monkeypatch.setattr(predict, "TOGETHER", 3)
    parted = call(*names)
    assert (parted.out, parted.err) == (together.out, together.err) and len(batches) == 3


def test_the_shipped_weights_read_digits(call: Any) -> None:
    done = call(picture("row.png", [0, 1, 2, 3, 4]), use=None)
    assert done.out[0] == f"row.png: {''.join(map(str, LABELS[:5]))} (5 digits)"
    assert str(SHIPPED) in done.err[0]
    example = Path(predict.__file__).parent / "predicting" / "digits.jpg"  # the one of the README
    assert call(str(example), use=None).out[0].endswith("digits.jpg: 314159 (6 digits)")


# Files that are no pictures -------------------------------------------------------------------------------------------
def png(width: int, height: int) -> bytes:
    """A PNG whose header states any size; it lacks the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "no picture"),
    "cut": (b"", "damaged|cut"),
    "wide": (png(20_000, 30), "20000"),
    "bomb": (png(60_000, 60_000), "60000|far too many"),
    "blank": (b"", "blank"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_and_the_others_are_read(kind: str, call: Any) -> None:
    content, word = BAD[kind]
    if kind in ("cut", "blank"):
        noise = np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)
        Image.fromarray(noise if kind == "cut" else np.full_like(noise, 250)).save("it.png")
        content = Path("it.png").read_bytes()[: 4000 if kind == "cut" else None]
    Path("bad.png").write_bytes(content)
    done = call("bad.png", picture("good.png", [1]))
    assert done.code == 1 and len(done.out) == 1 and done.out[0].startswith("good.png: ")
    _, error = done.err
    assert error.startswith("predict.py: bad.png: ") and re.search(word, error), error
    assert error.count("bad.png") == 1 and "from_image" not in error


def test_what_is_no_file_is_one_line(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder").mkdir()
    names = ["none.png", "folder", "a" * 300, ""]
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        names.append("pipe")
    done = call(*names)
    assert done.code == 1 and not done.out and len(done.err) == 1 + len(names)
    assert done.err[1] == "predict.py: none.png: No such file or directory"

    def refuse(image: Any) -> None:
        raise PermissionError(13, "Permission denied", image) if image == "locked.png" else MemoryError

    monkeypatch.setattr(tg.data, "from_image", refuse)
    locked, large = call("locked.png", "large.png").err[1:]
    assert locked == "predict.py: locked.png: Permission denied" and "not enough memory" in large


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names of this system are text")
def test_any_name_is_shown_on_one_line(call: Any) -> None:
    names = ["a\nb.png", "caf\udce9.png", "-7.png", "\x1b[31m.png"]
    for name in names:
        picture(f"./{name}", [1])
    done = call("--json", "./-7.png", *names[:2])
    assert done.code == 0 and [json.loads(line)["image"] for line in done.out] == ["./-7.png", *names[:2]]
    done = call(*names[:2], names[3], "x\ny.png")
    assert [line.partition(": ")[0] for line in done.out] == ["a\\nb.png", "caf\\udce9.png", "\\x1b[31m.png"]
    assert done.err[1:] == ["predict.py: x\\ny.png: No such file or directory"]


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes, terminal: bool = False) -> None:
    stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stream)


def test_standard_input(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = picture("one.png", [1])
    (line,) = call(name).out
    stdin(monkeypatch, Path(name).read_bytes())
    done = call("-", name, "--save", "drawing.png")
    assert done.code == 0 and done.out == [line.replace("one.png", "standard input"), line]
    stdin(monkeypatch, b"")
    assert re.search("^predict.py: standard input: .*empty", call("-").err[1])
    stdin(monkeypatch, b"", terminal=True)
    assert "no picture comes from there" in call("-").err[1]
    monkeypatch.setattr(sys, "stdin", None)
    assert "no picture comes from there" in call("-").err[1]
    stdin(monkeypatch, b"1" * 2000)
    monkeypatch.setattr("tinygrad_mnist.data.preparation.reading.MAX_BYTES", 1000)
    assert "at most 1000" in call("-").err[1]
    done = call("-", "-")
    assert done.code == 2 and len(done.err) == 1


# Weights, options -----------------------------------------------------------------------------------------------------
def test_weights_that_cannot_be_used_are_refused_in_one_line(call: Any, weights: Path, tmp_path: Path) -> None:
    name, other, nan = picture("one.png", [1]), tmp_path / "other.safetensors", tmp_path / "nan.safetensors"
    tg.checkpoint.save_weights(
        other, tg.nn.state_dict(LeNet5(rng=np.random.default_rng(0))), describe("deep_convnet.DeepConvNet")
    )
    model = DeepConvNet()
    tg.nn.parameters(model)["layers.0.weight"].data[:] = 3e38
    tg.checkpoint.save_weights(nan, tg.nn.state_dict(model), describe("deep_convnet.DeepConvNet"))
    refused = [(other, "DeepConvNet"), (tmp_path / "none", "none"), (nan, "not finite"), (tmp_path, str(tmp_path))]
    for use, words in refused:
        done = call(name, use=use)
        assert done.code == 2 and not done.out and words in done.err[-1] and "Traceback" not in "".join(done.err)
    assert call(name, "--run", "runs/1").code == call(name, "--run", "runs/1", use=None).code == 2


def test_the_latest_run_is_the_default(call: Any, weights: Path) -> None:
    run = Path("runs/1")
    run.mkdir(parents=True)
    (run / "weights.safetensors").write_bytes(weights.read_bytes())
    name = picture("one.png", [1])
    assert call(name, use=None).err == [f"weights: {run / 'weights.safetensors'} ({ABOUT})"]
    assert call(name, "--run", str(run), use=None).out == call(name).out


def test_a_missing_extra_is_named(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    for module in ("PIL", "scipy", "tqdm", "safetensors"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, gone=module: None if name == gone else find(name))
        done = call("one.png")
        assert done.code == 2 and len(done.err) == 1 and not done.out
        assert re.search(rf"{module}: pip install 'tinygrad_mnist\[images\]'", done.err[0])


def test_the_bar_is_for_several_pictures_and_a_terminal(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for names, screen, bar in ((["a", "b"], True, True), (["a"], True, False), (["a", "b"], False, False)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda screen=screen: screen)
        monkeypatch.setattr(sys, "stderr", stream)
        call(*names)
        assert ("picture/s" in stream.getvalue()) == bar


# The drawing ----------------------------------------------------------------------------------------------------------
def test_the_drawing_shows_what_the_network_saw(call: Any) -> None:
    name = picture("four.png", [0, 1, 2, 4])
    assert call(name, "none.png", "--save", "out.png").code == 1
    with Image.open("out.png") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    found = tg.data.from_image(name)
    columns = np.flatnonzero((pixels == drawing.BOX).all(axis=-1).sum(axis=0) > 10)  # the sides of the boxes
    sides = np.sort(found.boxes[:, [0, 2]].ravel()) * reading.SIDE / (4 * 28 * 4)
    np.testing.assert_allclose(columns, drawing.GAP + sides, atol=0.6)
    grey = np.where(np.ptp(pixels, axis=-1) == 0, pixels[..., 0], 255)
    for seen in found.images:
        cell = seen.repeat(drawing.SCALE, axis=0).repeat(drawing.SCALE, axis=1)
        places = np.argwhere(grey[: -len(cell), : -len(cell)] == 0)
        assert any(np.array_equal(grey[y : y + len(cell), x : x + len(cell)], cell) for y, x in places)


def test_the_drawing_has_limits(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PICTURES", 2)
    monkeypatch.setattr(drawing, "DIGITS", 3)
    names = [picture(f"{i}.png", [i, i + 1, i + 2, i + 3]) for i in range(3)]
    done = call(*names, "--save", "out.png")
    assert done.code == 0 and done.err[1:] == ["predict.py: the drawing shows the first 2 of 3 pictures"]
    drawings = [Path("out.png").read_bytes()]
    for count in (2, 1):
        assert call(*names[:count], "--save", "out.png").err[1:] == []
        drawings.append(Path("out.png").read_bytes())
    assert drawings[0] == drawings[1] != drawings[2]


def test_a_picture_that_is_gone_before_it_is_drawn(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = tg.data.from_image
    monkeypatch.setattr(tg.data, "from_image", lambda image: (find(image), os.remove(image))[0])
    done = call(picture("one.png", [1]), picture("two.png", [2]), "--save", "out.png")
    assert done.code == 1 and not done.out and done.err[1] == "predict.py: one.png: No such file or directory"


def test_drawings_that_are_refused_or_fail(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = picture("one.png", [1])
    before = Path(name).read_bytes()
    Path("folder.png").mkdir()
    for out in (name, "./one.png", "out.jpg", "none/out.png", "folder.png", ""):
        done = call(name, "--save", out)
        assert done.code == 2 and len(done.err) == 1 and not done.out, out
    assert Path(name).read_bytes() == before
    done = call("none.png", "--save", "out.png")
    assert done.code == 1 and done.err[-1] == "predict.py: there is no drawing: no picture was read"
    monkeypatch.setattr(
        drawing, "write_atomically", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    done = call(name, "--save", "out.png")
    assert done.code == 1 and len(done.out) == 1 and "No space left" in done.err[-1]


def test_the_drawing_is_opened(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, shown = picture("one.png", [1]), []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(ImageShow, "_viewers", [])
    assert "no viewer" in call(name, "--show").err[-1]
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(image.size) or True)
    assert call(name, "--show").code == 0 and len(shown) == 1
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = call(name, "--show")
    assert done.code == 2 and len(done.err) == 1 and "--save" in done.err[0] and len(shown) == 1


# As a process ---------------------------------------------------------------------------------------------------------
def start(*arguments: Any, **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, predict.__file__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how
    )


def test_a_process_reads_standard_input_from_any_folder(weights: Path, tmp_path: Path) -> None:
    name = picture(str(tmp_path / "one.png"), [1])
    process = start("-", name, "--json", "--weights", weights, stdin=subprocess.PIPE, cwd=tmp_path)
    out, err = process.communicate(Path(name).read_bytes(), timeout=60)
    given, named = map(json.loads, out.splitlines())
    assert process.returncode == 0 and given["digits"] == named["digits"] and given["image"] == "-", err
    assert err.splitlines() == [f"weights: {weights} ({ABOUT})".encode()]


def test_a_stream_tells_why_it_lost_something() -> None:
    reading_end, writing_end = os.pipe()
    pipe = open(writing_end, "w", encoding="ascii")
    stream = terminal.forgiving(pipe)
    print("read", file=stream)
    assert terminal.lost(stream) is None
    os.close(reading_end)
    print("not read", file=stream)
    assert isinstance(terminal.lost(stream), BrokenPipeError) and terminal.lost(sys.stdout) is None
    pipe.close()


def test_it_ends_when_nobody_reads_and_says_when_output_is_lost(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, names = picture("one.png", [1]), []
    monkeypatch.setattr(predict, "TOGETHER", 2)
    monkeypatch.setattr(predict, "read", lambda name, small: names.append(name) or reading.read(name, small))
    monkeypatch.setattr(predict, "lost", lambda stream: BrokenPipeError())
    done = call(*[name] * 9)
    assert done.code == 0 and len(names) == 2 and len(done.err) == 1
    done = call(*[name] * 9, "--save", "out.png")
    assert done.code == 0 and len(names) == 11 and Path("out.png").exists(), "it is wanted all the same"
    monkeypatch.setattr(predict, "lost", lambda stream: OSError(28, "No space left"))
    done = call(name)
    assert done.code == 1 and done.err[1:] == ["predict.py: standard output cannot be written: No space left"]


@pytest.mark.slow
def test_a_reader_who_leaves_and_ctrl_c(weights: Path, tmp_path: Path) -> None:
    names = [picture(str(tmp_path / "one.png"), [1])] * 500
    with start("--weights", weights, *names) as process:
        process.stdout.readline()
        process.stdout.close()
        assert len(process.stderr.read().splitlines()) == 1 and process.wait(60) == 0
    with start("--weights", weights, *names) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and err.splitlines()[1:] == [b"predict.py: interrupted"]


@pytest.mark.slow
def test_hundreds_of_damaged_files(weights: Path, tmp_path: Path) -> None:
    """Each is read or named in one line, and nothing is exhausted."""
    draws = np.random.default_rng(0)
    names = []
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"):
        file = io.BytesIO()
        Image.fromarray((255 - IMAGES[:3].reshape(84, 28)).repeat(4, axis=0).repeat(4, axis=1)).save(file, kind)
        for i in range(30):
            content = bytearray(file.getvalue())
            for _ in range(draws.integers(1, 5)):
                at = draws.integers(0, min(len(content), 200 if i % 2 else len(content)))  # also in the header
                content[at : at + 4] = draws.bytes(4) if i % 3 else b"\xff\xff\xff\xff"
            del content[draws.integers(len(content) // 4, len(content)) if i % 5 == 0 else len(content) :]
            (tmp_path / f"{i}.{kind}").write_bytes(content)
            names.append(f"{i}.{kind}")
    resource = pytest.importorskip("resource", reason="this system cannot limit the memory of a process")
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))  # noqa: E731
    process = start("--weights", weights, "--json", "--save", "out.png", *names, cwd=tmp_path, preexec_fn=limit)
    out, err = process.communicate(timeout=100)
    found = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 1 and [line["image"] for line in found] == names
    bad = [f"predict.py: {line['image']}: {line['error']}" for line in found if line["error"]]
    assert [line for line in err.decode().splitlines()[1:] if "the drawing shows" not in line] == bad
    assert 30 < len(bad) < len(names) - 20 and not any("memory" in line for line in bad)
    assert all(bool(line["digits"]) != bool(line["error"]) for line in found)
