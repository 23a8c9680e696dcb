"""IDX files: round trips, and damage that is detected without a crash and without allocating memory."""

from __future__ import annotations

import doctest
import gzip
import io
import itertools
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from damage import damaged, peak_below, thousands
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_mnist.data import IdxError, decode_idx, encode_idx, idx, read_idx

dtypes = st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4))
SMALL = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 300  # values whose two bytes differ


def decode(data: bytes) -> npt.NDArray[Any]:
    return decode_idx(io.BytesIO(data), "a.idx")


@given(arrays)
def test_what_is_encoded_is_decoded_raw_and_gzip(array: npt.NDArray[Any]) -> None:
    data = encode_idx(array)
    for stored in (data, gzip.compress(data)):
        result = decode(stored)
        assert (result.dtype, result.shape, result.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert result.dtype.isnative and result.flags.writeable and result.flags.c_contiguous


@given(arrays, st.data())
def test_memory_order_and_byte_order_of_the_source_do_not_matter(array: npt.NDArray[Any], data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(array.ndim)))
    view = array.transpose(axes)
    assert encode_idx(view) == encode_idx(view.copy()) == encode_idx(view.astype(view.dtype.newbyteorder(">")))


def test_the_bytes_are_those_of_the_format() -> None:
    assert encode_idx(np.array([[1, -2]], np.int32)) == bytes.fromhex("00000c02 00000001 00000002 00000001 fffffffe")
    assert encode_idx(np.array([1.0], np.float32)) == bytes.fromhex("00000d01 00000001 3f800000")
    codes = {encode_idx(np.zeros(1, dtype))[2]: dtype for dtype in ("u1", "i1", "i2", "i4", "f4", "f8")}
    assert codes == {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_truncation_is_detected(pack: Any) -> None:
    data = pack(encode_idx(SMALL))
    for length in range(len(data)):
        with pytest.raises(IdxError, match=r"^a\.idx: "):
            decode(data[:length])


@given(st.binary(min_size=1, max_size=40))
def test_anything_after_the_end_is_detected(extra: bytes) -> None:
    data = encode_idx(SMALL)
    with pytest.raises(IdxError, match="more follow"):
        decode(data + extra)
    with pytest.raises(IdxError, match="more follow"):
        decode(gzip.compress(data + extra))
    if extra.strip(b"\0"):  # gzip allows padding with zeros
        with pytest.raises(IdxError, match="gzip data is damaged|more follow"):
            decode(gzip.compress(data) + extra)


def test_every_damaged_header_byte_gives_an_error_or_the_array_that_the_file_describes() -> None:
    data = encode_idx(SMALL)
    for position in range(16):
        for value in range(256):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                assert encode_idx(decode(damaged)) == damaged
            except IdxError as error:
                assert str(error).startswith("a.idx: ") and "\n" not in str(error)


@given(
    st.sampled_from([8, 9, 11, 12, 13, 14]),
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), min_size=1),
    st.binary(),
)
@example(8, [0] + [2**32 - 1] * 3, b"")  # no values, yet NumPy cannot hold the shape
@example(8, [1] * 65, b"x")
def test_a_drawn_file_is_refused_or_fully_described(code: int, shape: list[int], values: bytes) -> None:
    data = struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + values
    try:
        assert encode_idx(decode(data)) == data
    except IdxError:
        pass


def check_damaged(data: bytes) -> None:
    """A file is refused in one line, or is complete and as its header says; neither takes much memory."""
    try:
        with peak_below(1_500_000 + 8 * len(data)):
            found = decode(data)
    except IdxError as error:
        assert str(error).startswith("a.idx: ") and "\n" not in str(error)
    else:
        assert encode_idx(found) == (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)


WHOLE = (
    encode_idx(SMALL),
    gzip.compress(encode_idx(SMALL)),
    encode_idx(np.zeros((3, 0, 2), np.uint8)),
    gzip.compress(bytes(100)),
)


@given(damaged(*WHOLE))
def test_damaged_files_are_refused_or_fully_described(data: bytes) -> None:
    check_damaged(data)


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
@thousands
@given(damaged(*WHOLE))
def test_thousands_of_damaged_files(data: bytes) -> None:
    check_damaged(data)


def test_every_damaged_gzip_byte_gives_an_error_or_the_same_array() -> None:
    data = gzip.compress(encode_idx(SMALL), mtime=0)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            try:
                np.testing.assert_array_equal(decode(bytes(damaged)), SMALL)
            except IdxError as error:
                assert str(error).startswith("a.idx: ") and "\n" not in str(error)


def test_a_header_that_promises_too_much_allocates_no_memory() -> None:
    huge = struct.pack(">4B3I", 0, 0, 0x0E, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    large = struct.pack(">4B1I", 0, 0, 8, 1, 900 << 20)
    noise = np.random.default_rng(0).bytes(1 << 20)
    packed = gzip.compress(large + noise)  # could hold the promise by its size
    assert len(packed) * idx.DEFLATE_RATIO > 900 << 20
    for data in (huge, gzip.compress(huge), large + noise, packed):
        with peak_below(8 << 20), pytest.raises(IdxError, match="the header promises"):
            decode(data)


def test_a_gzip_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(encode_idx(SMALL) + bytes(64 << 20))
    with peak_below(4 << 20), pytest.raises(IdxError, match="more follow"):
        decode(bomb)
    zeros = gzip.compress(encode_idx(np.zeros(16 << 20, np.uint8)))
    assert len(decode(zeros)) == 16 << 20  # the best compression that there is, and no bomb
    with peak_below(4 << 20), pytest.raises(IdxError, match="more than the 1000 accepted; raise max_bytes"):
        decode_idx(io.BytesIO(zeros), "a.idx", max_bytes=1000)


START = b"\x1f\x8b\x08%c\0\0\0\0\0\xff"  # of a gzip member, with its flags
EMPTY = gzip.compress(b"", mtime=0)
PACKED = gzip.compress(encode_idx(SMALL), mtime=0)
COSTLY = {  # about 4 MB each, of which the standard library reads every byte by itself
    "a name without end": START % 8 + b"n" * (4 << 20),
    "a long name": START % 8 + b"n" * (4 << 20) + b"\0" + PACKED[10:],
    "a comment without end": START % 16 + b"n" * (4 << 20),
    "extra fields": (START % 4 + b"\xff\xff" + bytes(65535) + EMPTY[10:]) * 64 + PACKED,
    "empty members": EMPTY * 200_000 + PACKED,
    "empty members at the end": PACKED + EMPTY * 200_000,
    "empty blocks": PACKED[:10] + b"\0\0\0\xff\xff" * 800_000 + PACKED[10:],
    "zeros at the end": PACKED + bytes(4 << 20),
    "members of a byte": b"".join(gzip.compress(bytes([b]), 0, mtime=0) for b in encode_idx(np.zeros(256, np.uint8)))
    * 600,
}


@pytest.mark.parametrize("kind", COSTLY)
def test_gzip_data_that_holds_nothing_is_not_read_to_its_end(kind: str) -> None:
    begin = time.process_time()
    with peak_below(1 << 20), pytest.raises(IdxError, match=r"^a\.idx: the gzip data is damaged: \d+ bytes of it"):
        decode(COSTLY[kind])
    assert time.process_time() - begin < 0.5


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 9), st.integers(0, 100))
def test_several_members_are_one_file(cuts: list[int], level: int, zeros: int) -> None:
    data, edges = encode_idx(np.arange(20, dtype=np.uint8)), [0, *sorted(cuts), 30]
    members = [gzip.compress(data[a:b], level) for a, b in itertools.pairwise(edges)]
    assert encode_idx(decode(b"".join(members) + bytes(zeros))) == data


@pytest.mark.parametrize("level", [0, 6])
def test_what_gzip_programs_write_is_read(level: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)  # grows by compression
    for array in (noise, noise // 255 * 255, np.zeros(1 << 20, np.uint8)):
        data = encode_idx(array)
        blocks = b"".join(gzip.compress(data[at : at + 65280], level) for at in range(0, len(data), 65280))  # as bgzip
        for packed in (gzip.compress(data, level), blocks):
            np.testing.assert_array_equal(decode(packed), array)


@pytest.mark.parametrize("name", ["raw-named.gz", "gzip-named-idx3-ubyte"])
def test_a_file_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    data = encode_idx(SMALL)
    (tmp_path / name).write_bytes(data if name.startswith("raw") else gzip.compress(data))
    np.testing.assert_array_equal(read_idx(tmp_path / name), SMALL)
    np.testing.assert_array_equal(read_idx(str(tmp_path / name)), SMALL)


def test_what_is_no_file_or_no_idx_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'none'}: no such file; give")):
        read_idx(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path}: not a file; give")):
        read_idx(tmp_path)
    if os.name == "posix":  # to open them would wait for ever
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("pipe")
        with socket.socket(socket.AF_UNIX) as server, monkeypatch.context() as patch:
            patch.chdir(tmp_path)  # the address of a socket is short
            server.bind("socket")
            for special in (tmp_path / "pipe", tmp_path / "link", tmp_path / "socket", Path("/dev/zero")):
                with pytest.raises(FileNotFoundError, match=re.escape(f"{special}: not a file; give")):
                    read_idx(special)
    for content, complaint in {
        b"": "begins with nothing (it is empty), expected 00 00",
        b"<html>": "not an IDX file; it begins with 3c 68 74 6d, expected 00 00, one of 08 09 0b 0c 0d 0e",
        bytes([0, 0, 8, 0]): "not an IDX file",
        bytes([0, 0, 10, 1, 0, 0, 0, 0]): "not an IDX file",
        bytes([0, 0, 8, 2, 0, 0]): "cut off in the header (2 dimensions promised)",
        gzip.compress(b""): "it is empty",
    }.items():
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(IdxError, match=re.escape(f"{tmp_path / 'bad'}: ") + ".*" + re.escape(complaint)):
            read_idx(tmp_path / "bad")


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.bool_, np.float16])
def test_a_dtype_without_a_code_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="encode_idx: IDX has no .*; convert to one of uint8, int8, int16"):
        encode_idx(np.zeros(3, dtype))


@pytest.mark.parametrize("dtype", [np.complex64, np.str_, object])
def test_what_is_no_array_of_numbers_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="encode_idx: array, of type ndarray, is read by NumPy as"):
        encode_idx(np.zeros(3, dtype))


@pytest.mark.parametrize("shape", [(), (0, 2**32)])
def test_a_shape_that_idx_cannot_hold_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="encode_idx: IDX cannot hold shape"):
        encode_idx(np.zeros(shape, np.uint8))


def test_the_examples_run() -> None:
    assert doctest.testmod(idx).failed == 0
