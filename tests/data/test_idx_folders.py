"""IDX folders of any data set: EMNIST, KMNIST, Fashion-MNIST; images of any size, any number of classes."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygrad_mnist as tg
from tinygrad_mnist.data import IdxError, encode_idx, load_idx_folder

RNG = np.random.default_rng(0)
ARRAYS = [RNG.integers(0, 256, shape).astype(np.uint8) for shape in ((5, 4, 7), (3, 4, 7))]
LABELS = [np.array(labels, np.uint8) for labels in ([1, 26, 3, 1, 9], [26, 1, 2])]


def put(folder: Path, prefix: str = "", test: str = "t10k", packed: bool = False, **other: Any) -> Path:
    names = {
        f"{prefix}train-images-idx3-ubyte": ARRAYS[0],
        f"{prefix}train-labels-idx1-ubyte": LABELS[0],
        f"{prefix}{test}-images-idx3-ubyte": ARRAYS[1],
        f"{prefix}{test}-labels-idx1-ubyte": LABELS[1],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in {**names, **{name.replace("_", "-"): array for name, array in other.items()}}.items():
        data = encode_idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return folder


def equal(found: Any, expected: Any) -> None:
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert array.dtype == wanted.dtype and array.flags.c_contiguous and array.flags.writeable


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["", "raw", "FashionMNIST/raw", "KMNIST/raw", "archive", "gzip"])
def test_names_of_mnist_are_found_and_returned_as_they_are(tmp_path: Path, place: str, packed: bool) -> None:
    put(tmp_path / place, packed=packed)
    equal(load_idx_folder(tmp_path), (ARRAYS[0], LABELS[0], ARRAYS[1], LABELS[1]))


@pytest.mark.parametrize("place", ["", "gzip", "EMNIST/raw"])
@pytest.mark.parametrize("split, first", [("letters", 1), ("balanced", 0), ("byclass", 0)])
def test_emnist_stands_upright_and_counts_from_0(tmp_path: Path, place: str, split: str, first: int) -> None:
    put(tmp_path / place, f"emnist-{split}-", "test", packed=place == "gzip")
    expected = (ARRAYS[0].transpose(0, 2, 1), LABELS[0] - first, ARRAYS[1].transpose(0, 2, 1), LABELS[1] - first)
    equal(load_idx_folder(tmp_path), tuple(array.astype(np.uint8) for array in expected))
    equal(load_idx_folder(tmp_path, split), load_idx_folder(str(tmp_path)))


def test_of_several_sets_one_must_be_named(tmp_path: Path) -> None:
    put(tmp_path, "emnist-letters-", "test")
    put(tmp_path / "raw", "emnist-digits-", "test")
    put(tmp_path)
    with pytest.raises(ValueError, match=r"holds 3 sets; pass split, one of \['', 'digits', 'letters'\]"):
        load_idx_folder(tmp_path)
    assert load_idx_folder(tmp_path, "")[1].max() == load_idx_folder(tmp_path, "letters")[1].max() + 1 == 26
    with pytest.raises(
        FileNotFoundError, match=r"lacks emnist-mnist-train-images-idx3-ubyte, .*looked for them also in"
    ):
        load_idx_folder(tmp_path, "mnist")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # every example writes its files anew
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["uint8", "int16", "int32"]), st.integers(0, 127))
def test_any_size_and_any_labels(tmp_path: Path, height: int, width: int, dtype: str, label: int) -> None:
    images, labels = np.ones((2, height, width), np.uint8), np.array([label, 0], dtype)
    other = {"train_images_idx3_ubyte": images, "t10k_images_idx3_ubyte": images}
    other |= {"train_labels_idx1_ubyte": labels, "t10k_labels_idx1_ubyte": labels}
    equal(load_idx_folder(put(tmp_path, **other)), (images, labels, images, labels))


@pytest.mark.parametrize(
    "other, words",
    [
        ({"train_labels_idx1_ubyte": LABELS[1]}, "train-images-idx3-ubyte holds 5 images, .*train-labels.* 3 labels"),
        (
            {"train_labels_idx1_ubyte": np.array([1, 2, -3, 4, 5], np.int16)},
            "label -3 at position 2; expected at least 0",
        ),
        ({"train_labels_idx1_ubyte": np.ones(5, np.float32)}, "found float32 .*expected labels, integers"),
        (
            {"train_images_idx3_ubyte": ARRAYS[0][:, 0]},
            r"train-images-.*expected images, uint8 \(n > 0, height, width\)",
        ),
        ({"train_images_idx3_ubyte": ARRAYS[0][:0]}, r"found uint8 \(0, 4, 7\); expected images"),
        ({"train_images_idx3_ubyte": ARRAYS[0].astype(np.int32)}, "found int32 .*expected images"),
        ({"t10k_images_idx3_ubyte": ARRAYS[1][:, :3]}, r"images of \(4, 7\) pixels, .*of \(3, 7\); expected one size"),
        ({"t10k_labels_idx1_ubyte": ARRAYS[1], "t10k_images_idx3_ubyte": LABELS[1]}, "they are swapped"),
    ],
)
def test_what_does_not_belong_together_is_named(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    with pytest.raises(IdxError, match=words):
        load_idx_folder(put(tmp_path, **other))


def test_letters_count_from_1(tmp_path: Path) -> None:
    other = {"emnist_letters_test_labels_idx1_ubyte": np.array([1, 0, 2], np.uint8)}
    with pytest.raises(IdxError, match="test-labels-idx1-ubyte: label 0 at position 1; expected at least 1"):
        load_idx_folder(put(tmp_path, "emnist-letters-", "test", **other))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"load_idx_folder: {re.escape(str(tmp_path / 'no'))} is not a folder$"
    ):
        load_idx_folder(tmp_path / "no")
    (put(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="lacks t10k-labels-idx1-ubyte "):
        load_idx_folder(tmp_path)


def test_letters_are_learned_from_a_folder(tmp_path: Path) -> None:
    images = np.zeros((26, 5, 6), np.uint8)
    images.reshape(26, -1)[np.arange(26), np.arange(26)] = 255
    other: dict[str, Any] = {}
    for part in ("train", "test"):
        other[f"emnist_letters_{part}_images_idx3_ubyte"] = images
        other[f"emnist_letters_{part}_labels_idx1_ubyte"] = np.arange(1, 27, dtype=np.uint8)
    x, y, test_x, test_y = load_idx_folder(put(tmp_path, "emnist-letters-", "test", **other))

    class Model:
        def __init__(self) -> None:
            self.out = tg.nn.Linear(30, 26, rng=np.random.default_rng(0))

        def __call__(self, images: Any, rng: Any = None) -> tg.Tensor:
            return self.out(tg.data.as_input(images).reshape(len(images), -1))

    model = Model()
    optimizer = tg.optim.Adam(tg.nn.parameters(model), lr=0.3)
    for _ in tg.training.fit(model, optimizer, x, y, epochs=10, rng=np.random.default_rng(0)):
        pass
    assert tg.training.accuracy(model, test_x, test_y) == 1
