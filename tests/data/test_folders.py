"""Folders as torchvision, Kaggle and Keras leave them; files that are damaged or malicious."""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import peak_below
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist.data import IdxError, encode_idx, find_mnist, mnist

REAL = os.environ.get("TINYGRAD_MNIST_DATA")
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
KERAS = ("x_train", "y_train", "x_test", "y_test")
RNG = np.random.default_rng(0)
ARRAYS = [RNG.integers(0, 9, shape).astype(np.uint8) for shape in ((5, 28, 28), 5, (3, 28, 28), 3)]


def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


LAYOUTS: dict[str, Callable[[str], str]] = {
    "torchvision": lambda name: f"MNIST/raw/{name}",
    "torchvision, packed": lambda name: f"MNIST/raw/{name}.gz",
    "Kaggle": dotted,
    "Kaggle, unpacked here": lambda name: f"archive/{dotted(name)}",
    "Kaggle, a folder each": lambda name: f"archive/{name}/{name}",
    "a folder each": lambda name: f"{dotted(name)}/{dotted(name)}",
    "a folder each, spelled otherwise": lambda name: f"{dotted(name)}/{name}.gz",
}


def put(folder: Path, layout: Callable[[str], str], arrays: list[Any] = ARRAYS) -> Path:
    for name, array in zip(NAMES, arrays, strict=True):
        file = folder / layout(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        data = encode_idx(array)
        file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return folder


def assert_found(path: Path, place: Path) -> None:
    data = find_mnist(path)
    for found, expected in zip(data[:4], ARRAYS, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert data.source == f"DATA OF THE SHAPE OF MNIST, not MNIST itself, from {place} (the folder given)"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_and_named(tmp_path: Path, layout: str) -> None:
    place = (put(tmp_path, LAYOUTS[layout]) / LAYOUTS[layout](NAMES[0])).parent
    place = place.parent if "a folder each" in layout else place
    for path in (place, *place.parents):  # each folder on the way will do
        assert_found(path, place)
        if path == tmp_path:
            break


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_file_of_keras_is_found(tmp_path: Path, save: Callable[..., None]) -> None:
    (tmp_path / "datasets").mkdir()
    file = tmp_path / "datasets" / "mnist.npz"
    save(file, **dict(zip(KERAS, ARRAYS, strict=True)))
    for path in (tmp_path, tmp_path / "datasets", file):
        assert_found(path, file)
    put(tmp_path, str)
    assert_found(tmp_path, tmp_path)  # IDX files come first


def test_the_nearest_set_is_the_one_that_is_named(tmp_path: Path) -> None:
    put(tmp_path, LAYOUTS["torchvision"])
    (tmp_path / "MNIST" / "raw" / NAMES[3]).unlink()
    for path, where in ((tmp_path, " in MNIST/raw"), (tmp_path / "MNIST", " in raw"), (tmp_path / "MNIST" / "raw", "")):
        words = (
            f"{path} (the MNIST folder given) lacks {NAMES[3]}{where} (each with or without .gz); looked for them also"
        )
        with pytest.raises(
            FileNotFoundError, match=re.escape(words) + " in raw, MNIST/raw, archive, and for mnist.npz"
        ):
            find_mnist(path)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


GOOD = dict(zip(KERAS, ARRAYS, strict=True))


class Malicious:
    """Unpickled, it would make a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def bomb() -> bytes:
    """A member that promises a terabyte, and holds nothing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in KERAS:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)}
            )
            archive.writestr(f"{name}.npy", header.getvalue())
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in KERAS:
            archive.writestr(f"{name}.npy", pickle.dumps(Malicious()))
    return buffer.getvalue()


WRONG: dict[str, tuple[bytes, str]] = {
    "objects": (npz(**GOOD | {"y_train": np.array([Malicious()] * 5, object)}), "only numbers are read"),
    "a pickle": (pickled(), "cannot be read as arrays"),
    "a bomb": (bomb(), "needs .* bytes"),
    "empty": (b"", "not an .npz file"),
    "HTML": (b"<html>", "not an .npz file"),
    "other names": (npz(images=ARRAYS[0]), "lacks x_train, y_train, x_test, y_test; it holds 'images'"),
    "no arrays": (npz(), "it holds nothing|cannot be read"),
    "one is missing": (npz(**{name: GOOD[name] for name in KERAS[:3]}), ": lacks y_test; it holds 'x_train'"),
    "cut off": (npz(**GOOD)[:-60], "cannot be read as arrays"),
    "floats": (npz(**GOOD | {"x_train": ARRAYS[0] / 255}), "x_train: found float64"),
    "swapped": (npz(**GOOD | {"x_train": ARRAYS[1], "y_train": ARRAYS[0]}), "they are swapped"),
    "a label of 10": (npz(**GOOD | {"y_test": np.uint8([0, 10, 1])}), "y_test: label 10 at position 1"),
    "too few labels": (npz(**GOOD | {"y_train": ARRAYS[1][1:]}), "5 images, .* 4 labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_damaged_or_malicious_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = WRONG[name]
    (tmp_path / "mnist.npz").write_bytes(content)
    for path in (tmp_path, tmp_path / "mnist.npz"):
        with pytest.raises(IdxError, match=f"mnist.npz.*({words})") as caught:
            find_mnist(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "unpickled").exists()


def packed_npz(arrays: dict[str, tuple[int, ...]], method: int = zipfile.ZIP_DEFLATED, claim: int = 0) -> bytes:
    """An .npz file of zeros; a header that states other sizes than the data has, if `claim` says so."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, shape in arrays.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(claim or math.prod(shape)))
    return buffer.getvalue()


def idx_header(*shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


SHAPES = dict(zip(KERAS, [array.shape for array in ARRAYS], strict=True))
MANY = 8_000  # images: 6 MB, packed in 6 kB
HONEST: dict[
    str, tuple[Callable[[], dict[str, bytes]], str]
] = {  # with a limit of 5,000 images and the data that the header states
    "images": (
        lambda: {f"{NAMES[0]}.gz": gzip.compress(idx_header(MANY, 28, 28) + bytes(784 * MANY))},
        "at most 5000 are",
    ),
    "large images": (
        lambda: {f"{NAMES[0]}.gz": gzip.compress(idx_header(5, 1000, 1000) + bytes(5_000_000))},
        "expected images",
    ),
    "labels": (
        lambda: {f"{NAMES[3]}.gz": gzip.compress(idx_header(784 * MANY) + bytes(784 * MANY))},
        "3 images, .* labels",
    ),
    "npz of images": (lambda: {"mnist.npz": packed_npz(SHAPES | {"x_train": (MANY, 28, 28)})}, "at most 5000 are"),
    "npz of labels": (lambda: {"mnist.npz": packed_npz(SHAPES | {"y_train": (784 * MANY,)})}, "5 images, .* labels"),
    "npz in LZMA": (
        lambda: {"mnist.npz": packed_npz(SHAPES, zipfile.ZIP_LZMA, 10_000)},
        "another method than NumPy's",
    ),
    "npz in bzip2": (
        lambda: {"mnist.npz": packed_npz(SHAPES, zipfile.ZIP_BZIP2, 10_000)},
        "another method than NumPy's",
    ),
    "npz of more than it says": (lambda: {"mnist.npz": packed_npz(SHAPES, claim=784 * MANY)}, "needs .* bytes"),
    "npz of many": (
        lambda: {"mnist.npz": packed_npz({str(i): (0,) for i in range(2000)})},
        "2000 arrays, more than the 100",
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_files_that_hold_more_than_the_loader_wants_are_refused_by_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(mnist, "MAX_IMAGES", 5000)
    build, words = HONEST[name]
    files = build()
    if "mnist.npz" not in files:
        put(tmp_path, str)
    for file, content in files.items():
        (tmp_path / file.removesuffix(".gz")).unlink(missing_ok=True)
        (tmp_path / file).write_bytes(content)
    begin = time.process_time()
    with peak_below(3 << 20), pytest.raises(IdxError, match=words):
        find_mnist(tmp_path)
    assert time.process_time() - begin < 0.5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["mnist.npz", NAMES[0], f"{NAMES[2]}.gz"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, name: str) -> None:
    if "npz" not in name:
        put(tmp_path, str)
    (tmp_path / name.removesuffix(".gz")).unlink(missing_ok=True)
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):
        make(tmp_path / name)
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(FileNotFoundError, match=r"lacks|is not a folder"):
                find_mnist(path)
        (tmp_path / name).rename(tmp_path / f"other {len(os.listdir(tmp_path))}")


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_no_damage_is_read_silently(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    content = bytearray(npz(**GOOD))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("damaged") / "mnist.npz"
    file.write_bytes(content)
    try:
        found = find_mnist(file)
    except IdxError:
        return
    for array, expected in zip(found[:4], ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)  # what was damaged is not read: a date, for instance


@pytest.mark.skipif(not REAL or REAL == "synthetic", reason="set TINYGRAD_MNIST_DATA to a folder with the real MNIST")
def test_the_real_mnist_in_every_layout(tmp_path: Path) -> None:
    assert REAL
    real = find_mnist(REAL)
    np.savez(tmp_path / "mnist.npz", **dict(zip(KERAS, real[:4], strict=True)))
    put(tmp_path / "torch", LAYOUTS["torchvision"], list(real[:4]))
    for path in (tmp_path, tmp_path / "torch"):
        data = find_mnist(path)
        assert data.source.startswith(f"MNIST from {path}") and np.array_equal(data.images, real.images)
