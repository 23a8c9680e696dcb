"""Arrays by name in files: safetensors and .npz. Nothing is unpickled, nothing believed before it is checked.

A file that is written here carries a SHA-256 of all its bytes, so that damage anywhere is seen before anything is
loaded. Errors come before memory is taken: sizes and names are read from the header, and compared with the file's
length and with what is wanted.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..tensor import Array

__all__ = ["ENCODERS", "ArrayFile", "CheckpointError", "check_storable", "encode_npz", "encode_safetensors", "opened"]

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}
# before our checksum, in the one entry of our metadata (several would come in any order) or comment
NAME = b'tinygrad_mnist":"sha256:'
START = b'{"__metadata__":{"' + NAME
BLANK = b"0" * 64  # the checksum is that of the file with zeros in its own place
HEADER_LIMIT, CHUNK = 4 << 20, 1 << 18
DEFLATE_RATIO = 1032  # no deflate stream expands to more than this many times its size


class CheckpointError(ValueError):
    """A file of weights or a checkpoint that is damaged, or not what is wanted.

    The message says which, why, and what to do.
    """


class ArrayFile(NamedTuple):
    """An open file: what is in it, and how to read one array."""

    entries: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    read: Callable[[str], Array]


@contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[ArrayFile]:
    """Open a file of either format, told apart by content; whatever is wrong with it is a `CheckpointError`."""
    if not path.is_file():  # nor is a pipe or a device read, which may never end
        raise FileNotFoundError(
            f"{path} is {'no file' if path.exists() else 'not there'}; name a file of weights, or a checkpoint"
        )
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise CheckpointError(
                f"{path} has {size} bytes, more than the {max_bytes} accepted; raise max_bytes if that is meant"
            )
        format_ = _npz if file.read(2) == b"PK" else _safetensors
        file.seek(0)
        try:
            with format_(path, file, size, max_bytes) as found:
                yield ArrayFile(found.entries, lambda name: _check_finite(f"{path}: {name}", found.read(name)))
        except (CheckpointError, ImportError):
            raise
        except (
            Exception
        ) as error:  # on damaged bytes, NumPy's, zipfile's and safetensors' parsers raise nearly anything
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(
                f"{path} is damaged or no file of weights ({problem}); restore it, or train again"
            ) from error


@contextmanager
def _safetensors(path: Path, file: io.BufferedReader, size: int, max_bytes: int) -> Iterator[ArrayFile]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, HEADER_LIMIT):
        claim = f"a header of {length} bytes" if len(start) == 8 else "no header"
        raise CheckpointError(
            f"{path} is damaged or no file of weights: it has {claim} in {size} bytes; restore it, or train again"
        )
    header = file.read(length)
    if _resembles(header[len(START) - len(NAME) :], NAME):
        _check_digest(path, file, 8 + len(START))
    with _library().safe_open(path, framework="np") as opened:
        entries = {}
        for name in opened.keys():
            part = opened.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise CheckpointError(
                    f"{path}: {name} is {part.get_dtype()}, which NumPy does not have; convert it to F32"
                )
            entries[name] = tuple(part.get_shape()), np.dtype(DTYPES[part.get_dtype()])
        yield ArrayFile(entries, opened.get_tensor)


@contextmanager
def _npz(path: Path, file: io.BufferedReader, size: int, max_bytes: int) -> Iterator[ArrayFile]:
    file.seek(max(size - 22 - len(NAME + BLANK), 0))
    end = file.read()
    if _resembles(end[22:], NAME):
        _check_digest(path, file, size - len(BLANK))
    place = end.rfind(b"PK\x05\x06")  # the end record, of 22 bytes with the comment's length at its end
    if place >= 0 and place + 22 + int.from_bytes(end[place + 20 : place + 22], "little") != len(end):
        raise CheckpointError(f"{path} is damaged: it is cut off at the end; restore it, or train again")
    with zipfile.ZipFile(file) as archive:
        headers = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as opened:
                if np.lib.format.read_magic(opened) != (
                    1,
                    0,
                ):  # enough for arrays of numbers; others may have headers of gigabytes
                    raise CheckpointError(
                        f"{path}: {name} is no .npy of version 1, as NumPy writes numbers; store it anew with np.savez"
                    )
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(opened)
                needed = math.prod(shape) * dtype.itemsize
                room = member.compress_size * (DEFLATE_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1)
                if dtype.kind not in "biuf":
                    raise CheckpointError(
                        f"{path}: {name} holds {dtype} and no numbers, which is never read; store numbers"
                    )
                if (
                    name in headers
                    or not opened.tell() + needed == member.file_size <= room
                    or member.compress_size > size
                ):
                    raise CheckpointError(
                        f"{path} is damaged: {name} claims {needed} bytes ({dtype} {shape}) in too few; restore it"
                    )
                headers[name] = member, opened.tell(), shape, fortran, dtype
        if sum(math.prod(h[2]) * h[4].itemsize for h in headers.values()) > max_bytes:
            raise CheckpointError(
                f"{path} holds more than the {max_bytes} bytes accepted; raise max_bytes if that is meant"
            )

        def values(name: str) -> Array:
            member, begin, shape, fortran, dtype = headers[name]
            data = bytearray()  # grows with what arrives
            with archive.open(member) as opened:
                while chunk := opened.read(CHUNK):  # to the end, where the checksum is compared
                    data += chunk
            array: Array = np.frombuffer(memoryview(data)[begin:], dtype).reshape(shape, order="F" if fortran else "C")
            return array.astype(dtype.newbyteorder("="), copy=False)

        yield ArrayFile({name: (h[2], h[4].newbyteorder("=")) for name, h in headers.items()}, values)


def _check_digest(path: Path, file: io.BufferedReader, place: int) -> None:
    """Compare the SHA-256 that a file of ours states at `place` with that of its bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(CHUNK, place - file.tell())):
        digest.update(chunk)
    stated = file.read(len(BLANK))
    digest.update(BLANK)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    if digest.hexdigest().encode() != stated:
        raise CheckpointError(
            f"{path} is damaged: its bytes do not have the SHA-256 that it states; restore it, or use an older one"
        )


def _resembles(data: bytes, wanted: bytes) -> bool:
    """Whether data begins with what is wanted; it may be damaged, but not more than by half."""
    return 2 * sum(a == b for a, b in zip(data, wanted, strict=False)) > len(wanted)


def encode_npz(arrays: Mapping[str, Array]) -> bytearray:
    """Return the bytes of an .npz file with its own checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # not np.savez, which has names that are not for arrays
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = NAME + BLANK
    data = bytearray(buffer.getbuffer())
    data[-len(BLANK) :] = hashlib.sha256(data).hexdigest().encode()
    return data


def encode_safetensors(arrays: Mapping[str, Array]) -> bytearray:
    """Return the bytes of a safetensors file with its own checksum."""
    plain = {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}
    data = bytearray(_library().numpy.save(plain, {"tinygrad_mnist": "sha256:" + BLANK.decode()}))
    if (length := int.from_bytes(data[:8], "little")) > HEADER_LIMIT:
        raise ValueError(
            f"names and shapes of {len(plain)} arrays take {length} bytes, more than {HEADER_LIMIT}; join some of them"
        )
    if not data.startswith(START + BLANK, 8):
        raise RuntimeError(
            "this version of safetensors does not write metadata first, as all before it; install an older one"
        )
    place = 8 + len(START)
    data[place : place + len(BLANK)] = hashlib.sha256(data).hexdigest().encode()
    return data


def check_storable(what: str, name: str, array: Array) -> Array:
    """Return an array if it can be stored by this name, and read again."""
    if str(array.dtype.newbyteorder("=")) not in DTYPES.values():
        raise TypeError(f"{what} is {array.dtype}, and no array of numbers that any machine can read; convert it")
    if name == "__metadata__" or not name.isprintable() or len(name) > 1000:
        raise ValueError(f"{what} is no name to store an array by; use a shorter one, of printable characters")
    return _check_finite(what, array)


def _check_finite(what: str, array: Array) -> Array:
    """Return an array if it holds no NaN and no infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise CheckpointError(
            f"{what} has {count} of {array.size} values that are NaN or infinite; use one from before that"
        )
    return array


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            ".safetensors files need the library; pip install 'tinygrad_mnist[train]', or use .npz for weights"
        ) from error
    return safetensors


ENCODERS = {".npz": encode_npz, ".safetensors": encode_safetensors}
