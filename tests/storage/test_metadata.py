"""What files of weights say about themselves: it comes back as it was, is read by others, and damage is detected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from damage import one_folder
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoint import assert_same, crafted, entry

from tinygrad_mnist.storage.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_metadata,
    load_weights,
    save_checkpoint,
    save_weights,
)

WEIGHTS = {"a": np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 6), "b": np.arange(4.0), "": np.zeros((0, 2))}
ABOUT = {"model": "mlp.MLP", 'ärger "\\\n': "層\u2028\0\x7f🙂", "": ""}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@one_folder
@given(st.dictionaries(texts.filter(lambda key: key != "tinygrad_mnist"), texts, max_size=6))
def test_metadata_comes_back_and_safetensors_reads_the_same(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, WEIGHTS, metadata)
    found = load_metadata(path)
    assert found == metadata and list(found) == sorted(found)
    with safetensors.safe_open(path, framework="np") as file:
        theirs = file.metadata()
        assert re.fullmatch("sha256:[0-9a-f]{64}", theirs.pop("tinygrad_mnist")) and theirs == metadata
        assert_same({name: file.get_tensor(name) for name in WEIGHTS}, WEIGHTS)
    assert_same({name: load_weights(path)[name] for name in WEIGHTS}, WEIGHTS)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0, "arrays begin at a multiple of 8 bytes"


def test_the_order_of_metadata_is_that_in_which_it_was_given(tmp_path: Path) -> None:
    """So that the same metadata gives the same bytes."""
    path = tmp_path / "w.safetensors"
    files = []
    for _ in range(2):
        save_weights(path, WEIGHTS, {str(number): "x" for number in range(30)})
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert [int(key) for key in re.findall(rb'"(\d+)":"x"', files[0])] == list(range(30))


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, WEIGHTS, ABOUT)
    intact = path.read_bytes()
    for position in range(len(intact)):
        flipped = bytearray(intact)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
            load_metadata(path)
        assert "\n" not in str(caught.value)


def test_files_without_metadata_have_none(tmp_path: Path) -> None:
    save_weights(tmp_path / "old.safetensors", WEIGHTS)
    save_weights(tmp_path / "old.npz", WEIGHTS)
    save_checkpoint(tmp_path / "checkpoint", {"step": 1})
    (tmp_path / "other").write_bytes(crafted({"a": entry([1], 0, 4)}, bytes(4)))
    for name in ("old.safetensors", "old.npz", "checkpoint", "other"):
        assert load_metadata(tmp_path / name) == {}
    for nothing in (None, {}):
        save_weights(tmp_path / "w.npz", WEIGHTS, nothing)
        save_weights(tmp_path / "w.safetensors", WEIGHTS, nothing)
        assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "old.safetensors").read_bytes()


def test_other_programs_metadata_is_shown_whole(tmp_path: Path) -> None:
    theirs = {"format": "pt", "tinygrad_mnist": "their own"}
    (tmp_path / "w").write_bytes(crafted({"__metadata__": theirs, "a": entry([1], 0, 4)}, bytes(4)))
    assert load_metadata(tmp_path / "w") == theirs


@pytest.mark.parametrize(
    "metadata", [b'{"a": 1}', b'{"a": null}', b'{"a": "\\ud800"}', b'["a"]', b'"a"', b'{"a": "\xff"}', b"{1: 2}"]
)
def test_what_is_no_metadata_is_refused(tmp_path: Path, metadata: bytes) -> None:
    (tmp_path / "w").write_bytes(crafted(b'{"__metadata__":' + metadata + b"}"))
    with pytest.raises(CheckpointError, match="is damaged or not a file of weights"):
        load_metadata(tmp_path / "w")


@pytest.mark.parametrize(
    "metadata, error, words",
    [
        ([("a", "b")], TypeError, "metadata is a list; pass a dict of str to str"),
        (0, TypeError, "metadata is a int"),
        ({"epoch": 3}, TypeError, "metadata has 'epoch': 3; names and values must be str"),
        ({3: "epoch"}, TypeError, "metadata has 3: 'epoch'"),
        ({"a": None}, TypeError, "metadata has 'a': None"),
        ({"tinygrad_mnist": "x"}, ValueError, "where the checksum of the file is; use another name"),
        ({"a": "\ud800"}, ValueError, "is not valid Unicode"),
        ({"\udfff": "a"}, ValueError, "is not valid Unicode"),
        ({"a": "x" * (4 << 20)}, ValueError, "more than 4194304; shorten the metadata"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_cannot_be_stored_is_refused_and_nothing_written(
    tmp_path: Path, metadata: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        save_weights(tmp_path / "w.safetensors", WEIGHTS, metadata)
    assert not list(tmp_path.iterdir())


def test_npz_refuses_metadata_and_says_what_has_room_for_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"w.npz cannot hold metadata; use a name that ends in .safetensors"):
        save_weights(tmp_path / "w.npz", WEIGHTS, ABOUT)
    assert not list(tmp_path.iterdir())


def test_the_longest_metadata_that_is_accepted_is_read_again(tmp_path: Path) -> None:
    long = {"a": "x" * ((4 << 20) - 1000)}
    save_weights(tmp_path / "w.safetensors", WEIGHTS, long)
    assert load_metadata(tmp_path / "w.safetensors") == long
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "w.safetensors")
