"""Weights and checkpoints.

Round trips are bit for bit; damaged, malicious and unsuitable files are refused before memory is allocated.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from damage import damaged, one_folder, peak_below, thousands
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_mnist as tg
from models.mlp import MLP
from tinygrad_mnist.storage import arrayfiles, checkpoint, files
from tinygrad_mnist.storage.checkpoint import (
    CheckpointError,
    CheckpointManager,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from tinygrad_mnist.train.runs import Run, read_metrics

FORMATS = ["w.npz", "w.safetensors"]
both = pytest.mark.parametrize("name", FORMATS)

dtypes = st.sampled_from(sorted(arrayfiles.DTYPES.values()))
finite = {"allow_nan": False, "allow_infinity": False}
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements=finite if np.dtype(dtype).kind == "f" else None,
    )
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
keys = texts.filter(
    lambda key: key.isprintable() and key not in (checkpoint.ARRAY, checkpoint.STATE) and "/" not in key
)
states = st.dictionaries(
    keys,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(**finite) | texts | arrays,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def assert_same(a: Any, b: Any) -> None:
    """Equal in structure, types and every bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert a == b and str(a) == str(b)


# Round trips ----------------------------------------------------------------------------------------------------------
@one_folder
@given(states)
def test_a_state_comes_back_to_the_bit(tmp_path: Path, state: dict[str, Any]) -> None:
    save_checkpoint(tmp_path / "c.safetensors", state)
    assert_same(load_checkpoint(tmp_path / "c.safetensors"), state)
    first = (tmp_path / "c.safetensors").read_bytes()
    save_checkpoint(tmp_path / "c.safetensors", state)
    assert (tmp_path / "c.safetensors").read_bytes() == first, "the same state must give the same bytes"


@both
@one_folder
@given(st.dictionaries(st.sampled_from("abcd"), arrays))
def test_weights_come_back_to_the_bit(tmp_path: Path, name: str, weights: dict[str, Any]) -> None:
    save_weights(tmp_path / name, weights)
    found = load_weights(tmp_path / name)
    assert_same(found, {key: weights[key] for key in found})
    assert found.keys() == weights.keys() and all(array.flags.writeable for array in found.values())


@both
def test_order_in_memory_and_of_bytes_does_not_matter(tmp_path: Path, name: str) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    save_weights(tmp_path / name, {"a": x.transpose(2, 0, 1), "b": x.astype(">f8"), "c": x[:, ::2], "d": tg.Tensor(x)})
    found = load_weights(tmp_path / name)
    for key, expected in {"a": x.transpose(2, 0, 1), "b": x, "c": x[:, ::2], "d": x}.items():
        np.testing.assert_array_equal(found[key], expected)
        assert found[key].dtype.isnative


def test_tuples_become_lists_and_numpy_numbers_pythons(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"betas": (0.9, 0.99), "n": np.int64(3), "x": np.float32(0.5), "yes": np.True_})
    assert_same(load_checkpoint(tmp_path / "c"), {"betas": [0.9, 0.99], "n": 3, "x": 0.5, "yes": True})


def test_every_kind_of_generator_continues(tmp_path: Path) -> None:
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM):
        rng, again = np.random.Generator(kind(1)), np.random.Generator(kind(2))
        rng.random(5), rng.integers(9, dtype=np.int32)
        save_checkpoint(tmp_path / "c", {"rng": rng.bit_generator.state})
        again.bit_generator.state = load_checkpoint(tmp_path / "c")["rng"]
        assert again.integers(9, dtype=np.int32) == rng.integers(9, dtype=np.int32) and again.random() == rng.random()


@pytest.mark.parametrize(
    "state, words",
    [
        ({"a": {"b": {1, 2}}}, "cannot store a/b, a set"),
        ([1], "the state is a list"),
        ({"a": [0, float("nan")]}, "a/1 is nan"),
        ({"a": np.array([1, np.inf])}, "save_checkpoint: 'a' has 1 of 2 values that are NaN or infinite"),
        ({"a": {3: 4}}, "the key 3 in a"),
        ({checkpoint.ARRAY: "a"}, "cannot be stored"),
        ({"a/b": np.zeros(1), "a": {"b": np.zeros(1)}}, "two arrays have the path a/b"),
        ({"a": np.array([None])}, "not a dtype of numbers"),
        ({"a": np.zeros(1, np.longdouble)}, "not a dtype of numbers"),
        ({"__metadata__": np.zeros(1)}, "is not a name for an array"),
        ({"a\0b": np.zeros(1)}, "is not a name for an array"),
        ({"a" * 1001: np.zeros(1)}, "is not a name for an array"),
    ],
)
def test_the_path_of_what_cannot_be_stored_is_given_and_nothing_written(
    tmp_path: Path, state: dict[str, Any], words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        save_checkpoint(tmp_path / "c", state)
    assert not list(tmp_path.iterdir())


@both
@pytest.mark.parametrize(
    "key", ["a\0b", "__metadata__", "a" * 70_000, "\ud800"], ids=["NUL", "metadata", "long", "surrogate"]
)
def test_weights_with_a_name_that_cannot_be_stored_are_refused(tmp_path: Path, name: str, key: str) -> None:
    with pytest.raises(ValueError, match="is not a name for an array"):
        save_weights(tmp_path / name, {key: np.zeros(1)})
    assert not list(tmp_path.iterdir())


@both
def test_any_other_name_is_allowed(tmp_path: Path, name: str) -> None:
    weights = {
        key: np.full(3, i)
        for i, key in enumerate(["allow_pickle", "file", "../up", "a.npy", "", "weiß/層", "tinygrad_mnist"])
    }
    save_weights(tmp_path / name, weights)
    found = load_weights(tmp_path / name)
    assert_same({key: found[key] for key in weights}, weights)
    if name == "w.npz":
        with np.load(tmp_path / name) as archive:
            assert archive["allow_pickle"].tolist() == [0, 0, 0]


def test_a_name_without_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends in .safetensors or .npz"):
        save_weights(tmp_path / "weights.pkl", {"a": np.zeros(1)})


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    for action in (lambda: save_weights(tmp_path / "w.safetensors", {}), lambda: save_checkpoint(tmp_path / "c", {})):
        with pytest.raises(ImportError, match=r"tinygrad_mnist\[train\]"):
            action()


# A file that does not fit ---------------------------------------------------------------------------------------------
@both
def test_every_difference_from_the_model_is_listed(tmp_path: Path, name: str) -> None:
    model = MLP(np.random.default_rng(0))
    weights = {key: p.data for key, p in tg.nn.parameters(model).items()}
    save_weights(tmp_path / name, weights)
    found = load_weights(tmp_path / name, like=model)
    assert_same(found, {key: weights[key] for key in found})
    first, second, third, *_ = weights
    del weights[first]
    weights |= {second: weights[second].astype(np.float64), third: weights[third][:1], "extra": np.zeros(1)}
    save_weights(tmp_path / name, weights)
    with pytest.raises(CheckpointError, match="does not fit the model") as caught:
        load_weights(tmp_path / name, like=tg.nn.parameters(model))
    message = str(caught.value)
    for part in (f"{first} is missing", "extra is not in the model", f"{second} is float64", f"{third} has shape"):
        assert part in message
    assert message.count(";") == 4 and "\n" not in message


def test_other_programs_files_are_read(tmp_path: Path) -> None:
    x = {"a": np.arange(3, dtype=np.float32), "b": np.zeros((2, 0))}
    for metadata in ({"source": "sha256:" + "a" * 64}, {"tinygrad": "x"}, None, {"format": "pt"}):
        safetensors.numpy.save_file(x, tmp_path / "w", metadata=metadata)
        assert_same(load_weights(tmp_path / "w"), x)
    for names in (list("ab"), ["tinygrad_mnist.a", "sha256:b"]):
        y = dict(zip(names, x.values(), strict=True))
        np.savez_compressed(tmp_path / "z.npz", **y)
        assert_same(load_weights(tmp_path / "z.npz"), y)
    with pytest.raises(CheckpointError, match="is not a checkpoint, but a file of weights"):
        load_checkpoint(tmp_path / "w")
    save_checkpoint(tmp_path / "c", {"weights": x})
    with pytest.raises(CheckpointError, match="is a checkpoint; load it with load_checkpoint"):
        load_weights(tmp_path / "c")


# Damage ---------------------------------------------------------------------------------------------------------------
WEIGHTS = {
    "a": np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 6),
    "b": np.arange(4.0),
    "c": np.zeros((0, 2), np.float16),
}
STATE = {"weights": WEIGHTS, "rng": np.random.default_rng(0).bit_generator.state, "rows": [1, 2.5, "x", None]}


def written(save: Callable[..., None], name: str, tmp_path: Path, content: Any) -> bytes:
    save(tmp_path / name, content)
    return (tmp_path / name).read_bytes()


@pytest.fixture(scope="module")
def intact_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    found = {name: written(save_weights, name, folder, WEIGHTS) for name in FORMATS}
    np.savez_compressed(folder / "z.npz", **WEIGHTS)
    load_weights(folder / "w.safetensors")  # imports what reading needs: its memory is not the file's fault
    return found | {
        "z.npz": (folder / "z.npz").read_bytes(),
        "checkpoint": written(save_checkpoint, "c", folder, STATE),
    }


def read_or_refused(path: Path, data: bytes) -> Any:
    """What is read from these bytes, or None.

    Nothing but the documented error may come of them, in one line and without much memory.
    """
    path.write_bytes(data)
    found = []
    for load in (load_weights, load_checkpoint):
        try:
            with peak_below(600_000 + 4 * len(data)):
                found.append(load(path))
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)
    return found


def matches_what_was_saved(found: Any) -> bool:
    """Whether arrays are those that were written, all of them.

    Other programs' .npz have no checksum of the whole file, and may lack some.
    """
    plain = found.get("weights", found)
    assert_same({key: plain[key] for key in sorted(plain)}, {key: WEIGHTS[key] for key in sorted(plain)})
    return len(plain) == len(WEIGHTS)


@pytest.mark.parametrize("name", [*FORMATS, "z.npz", "checkpoint"])
def test_every_truncation_is_detected(intact_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    intact = intact_files[name]
    for length in range(0, len(intact), 3):
        assert not read_or_refused(tmp_path / "d", intact[:length]), f"{length} of {len(intact)} bytes were accepted"
    assert all(map(matches_what_was_saved, read_or_refused(tmp_path / "d", intact)))


@pytest.mark.parametrize("name", [*FORMATS, "checkpoint"])
def test_every_flipped_bit_is_detected(intact_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    intact = intact_files[name]
    for position in range(len(intact)):
        flipped = bytearray(intact)
        flipped[position] ^= 1 << position % 8
        assert not read_or_refused(tmp_path / "d", bytes(flipped)), f"a flipped bit in byte {position} was accepted"


def test_no_flipped_bit_in_another_programs_npz_changes_values(intact_files: dict[str, bytes], tmp_path: Path) -> None:
    intact = intact_files["z.npz"]
    for position in range(len(intact)):  # some, as in the dates, mean nothing
        flipped = bytearray(intact)
        flipped[position] ^= 1 << position % 8
        list(map(matches_what_was_saved, read_or_refused(tmp_path / "d", bytes(flipped))))


@one_folder
@given(st.data())
def test_damaged_files_are_refused_or_hold_what_was_written(
    intact_files: dict[str, bytes], tmp_path: Path, data: st.DataObject
) -> None:
    check_damaged(intact_files, tmp_path / "d", data)


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
@thousands
@given(st.data())
def test_thousands_of_damaged_files(intact_files: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    check_damaged(intact_files, tmp_path / "d", data)


def check_damaged(intact_files: dict[str, bytes], path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(intact_files)))
    found = read_or_refused(path, data.draw(damaged(intact_files[name])))
    assert all(list(map(matches_what_was_saved, found))) or name == "z.npz"


# Malicious files ------------------------------------------------------------------------------------------------------
def crafted(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def signed(text: str) -> bytes:
    """A checkpoint with a right checksum and any state."""
    header = {
        "__metadata__": {"tinygrad_mnist": f"sha256:{'0' * 64}"},
        checkpoint.STATE: entry([len(text)], 0, len(text), "U8"),
    }
    data = crafted(json.dumps(header, separators=(",", ":")).encode(), text.encode())
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode())


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def npz(*members: tuple[str, bytes], claim: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        if claim is not None:
            archive.infolist()[0].file_size = claim
    return buffer.getvalue()


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


MALICIOUS = {
    "empty": b"",
    "text": b"no weights at all",
    "pickle": pickle.dumps({"a": 1}),
    "header of a terabyte": crafted({}, length=1 << 40),
    "header as long as the file": crafted({}, bytes(20), length=1 << 63),
    "long header": crafted(b"{" + b" " * (5 << 20) + b"}"),
    "no json": crafted(b"{'a'}"),
    "nested": crafted(b"[" * 100_000),
    "gigabytes claimed": crafted({"a": entry([1 << 30], 0, 1 << 32)}, bytes(8)),
    "overflow": crafted({"a": entry([1 << 40, 1 << 40], 0, 4)}, bytes(4)),
    "overlap": crafted({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "hole": crafted({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "beyond the end": crafted({"a": entry([4], 0, 16)}, bytes(12)),
    "backwards": crafted({"a": entry([1], 4, 0)}, bytes(4)),
    "bytes left over": crafted({"a": entry([1], 0, 4)}, bytes(8)),
    "shape and bytes differ": crafted({"a": entry([3], 0, 8)}, bytes(8)),
    "negative shape": crafted({"a": entry([-1], 0, 4)}, bytes(4)),
    "unknown dtype": crafted({"a": entry([1], 0, 4, "Q32")}, bytes(4)),
    "bfloat16": crafted({"a": entry([2], 0, 4, "BF16")}, bytes(4)),
    "NaN": crafted({"a": entry([1], 0, 4)}, struct.pack("<f", float("nan"))),
    "infinite": crafted({"a": entry([1], 0, 4)}, struct.pack("<f", float("inf"))),
    "checksum of something else": signed("{}").replace(b"}", b" ", 1),
    "checksum under another name": signed("{}").replace(b"sha256:", b"SHA256:"),
    "state nested too deep": signed("[" * 200_000),
    "state of a huge number": signed('{"a": ' + "9" * 10_000 + "}"),
    "array that is not there": signed('{"a": {"$array": "b"}}'),
    "array of no name": signed('{"a": {"$array": ["b"]}}'),
    "state that is no dict": signed("[1]"),
    "npz cut off": npz(("a.npy", npy("'<f4'", "(1,)", bytes(4))))[:-10],
    "npz of a pickle": npz(("a.npy", npy("'|O'", "(1,)", pickle.dumps([1])))),
    "npz that claims a terabyte": npz(("a.npy", npy("'<f4'", f"({1 << 38},)", bytes(4)))),
    "npz whose size is false, too": npz(("a.npy", npy("'<f4'", f"({1 << 30},)", bytes(4))), claim=(1 << 32) + 70),
    "npz with a negative shape": npz(("a.npy", npy("'<f4'", "(-1,)", bytes(4)))),
    "npz with code in the header": npz(("a.npy", npy("__import__('os').mkdir('sprung')", "(1,)", bytes(4)))),
    "npz with a long header": npz(("a.npy", npy("'<f4'", "(" + "1," * 30_000 + ")", bytes(4)))),
    "npz with one name twice": npz(("a.npy", npy("'<f4'", "(1,)", bytes(4))), ("a", npy("'<f4'", "(1,)", bytes(4)))),
    "npz with a header of a gigabyte": npz(
        ("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 30) + bytes(1 << 24))
    ),
    "npz with no array": npz(("a.txt", b"hello")),
    "npz with text": npz(("a.npy", npy("'<U1'", "(1,)", b"\xff\xff\xff\xff"))),
    "npz with NaN": npz(("a.npy", npy("'<f4'", "(1,)", struct.pack("<f", float("nan"))))),
}


@pytest.mark.parametrize("kind", MALICIOUS)
def test_malicious_files_are_refused_before_memory_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(MALICIOUS[kind])
    load = load_checkpoint if "state" in kind or "array that" in kind or "array of" in kind else load_weights
    limit = 8_000_000 if "long header" in kind or "state" in kind else 600_000
    with peak_below(limit), pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "sprung").exists()


def test_a_compression_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(npz(("a.npy", npy("'<f4'", f"({1 << 22},)", bytes(1 << 24)))))
    with peak_below(2_000_000), pytest.raises(CheckpointError, match="more than the 1000000 bytes accepted"):
        load_weights(tmp_path / "bomb", max_bytes=1_000_000)
    with peak_below(2_000_000), pytest.raises(CheckpointError, match="does not fit"):
        load_weights(tmp_path / "bomb", like={"a": np.zeros(3, np.float32)})


def test_a_file_larger_than_accepted_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "w", "wb") as file:
        file.truncate(1 << 33)  # takes no room on the disk
    with peak_below(400_000), pytest.raises(CheckpointError, match="more than the"):
        load_weights(tmp_path / "w")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_reading_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for load in (load_weights, load_checkpoint, read_metrics):
        with pytest.raises(FileNotFoundError, match="is not a file"):
            load(tmp_path / "pipe")


def test_what_is_no_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_weights(os.devnull)


# Writes that fail -----------------------------------------------------------------------------------------------------
POINTS = ["half written", "written", "synced", "renamed"]


@pytest.mark.parametrize("point", POINTS)
def test_a_write_that_stops_anywhere_leaves_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def stop(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"n": 1})
    monkeypatch.setattr(files, "_reached", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"n": 2})
    assert load_checkpoint(path) == {"n": 2 if point == "renamed" else 1} and os.listdir(tmp_path) == [path.name]


def test_a_link_keeps_its_target_and_a_file_its_permissions(tmp_path: Path) -> None:
    path, link = tmp_path / "c.npz", tmp_path / ("n" * 240)
    path.touch(0o600)
    link.symlink_to(path)
    files.write_atomically(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o600
    files.write_atomically(tmp_path / ("m" * 255), b"")
    with pytest.raises(OSError, match="."):
        files.write_atomically(tmp_path / "missing" / "c", b"x")
    for wrong in ("", tmp_path, os.devnull):
        with pytest.raises(OSError, match="not a file that can be replaced"):
            files.write_atomically(wrong, b"x")
    assert not os.path.isfile(os.devnull)
    assert not files.leftovers(tmp_path)


def test_the_folder_is_synced_after_the_last_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[set[str]] = []
    monkeypatch.setattr(files, "_sync_folder", lambda folder: synced.append({*os.listdir(folder)}))
    files.write_atomically(tmp_path / "a", b"1", sync_folder=False)
    assert not synced
    files.write_atomically(tmp_path / "b", b"2")
    assert synced == [{"a", "b"}]
    Run.create(tmp_path / "run", {}).close()
    assert synced[-1] >= {"config.json", "metrics.jsonl", "times.jsonl"}


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_file_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"n": 1})
    with monkeypatch.context() as patch, pytest.raises(OSError, match=f"No space left on device.*{path.name}"):
        patch.setattr(call, full)
        save_checkpoint(path, {"n": 2})
    assert load_checkpoint(path) == {"n": 1} and os.listdir(tmp_path) == [path.name]


# Several checkpoints --------------------------------------------------------------------------------------------------
def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    assert manager.restore() is None
    for step in (9, 10, 100_000_000, 11):
        manager.save(step, {"step": step})
    assert [file.name for file in manager.files()] == [
        "checkpoint-100000000.safetensors",
        "checkpoint-00000011.safetensors",
    ]
    assert manager.restore() == {"step": 100_000_000}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "nothing"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_previous_one_used(tmp_path: Path, damage: str) -> None:
    manager, warnings = CheckpointManager(tmp_path), []
    for step in (1, 2):
        newest = manager.save(step, {"step": step})
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= damage == "flip"
    newest.write_bytes({"cut": data[:-1], "flip": data, "empty": b"", "nothing": bytes(len(data))}[damage])
    assert manager.restore(warnings.append) == {"step": 1}
    assert (
        len(warnings) == 1
        and newest.name in warnings[0]
        and "going on from the one before, checkpoint-00000001.safetensors" in warnings[0]
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint-00000001.safetensors",
        "checkpoint-00000002.damaged",
    ]
    manager.save(2, {"step": 2})
    assert manager.restore(warnings.append) == {"step": 2} and len(warnings) == 1


def test_a_manager_keeps_what_it_has_just_written(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep=1)
    for step in (5, 7, 3):
        assert load_checkpoint(manager.save(step, {"step": step})) == {"step": step}
    for wrong in (lambda: CheckpointManager(tmp_path, keep=0), lambda: manager.save(-1, {})):
        with pytest.raises(ValueError, match="at least"):
            wrong()


def test_if_all_are_damaged_that_is_an_error_and_nothing_is_moved(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    for step in (1, 2):
        manager.save(step, {"step": step}).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be read") as caught:
        manager.restore()
    assert all(file.name in str(caught.value) for file in manager.files()) and len(manager.files()) == 2
