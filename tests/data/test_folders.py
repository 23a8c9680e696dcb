"""Folders as torchvision, Kaggle and Keras leave them; files that are damaged or malicious."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist.data import IdxError, encode_idx, find_mnist

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
