"""Files of named arrays: safetensors and .npz. Files are untrusted input, and nothing is unpickled.

A file that is written here contains the SHA-256 of all its bytes, so that damage anywhere is detected before anything
is loaded. Sizes and names in the header are compared with the length of the file, and with what the caller expects,
before memory is allocated.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..validation import integer

__all__ = [
    "ArrayFile",
    "CheckpointError",
    "check_metadata",
    "check_storable",
    "encode_npz",
    "encode_safetensors",
    "open_arrays",
]

Array = npt.NDArray[Any]
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
# what precedes the checksum, in the first entry of the metadata or in the zip comment
CHECKSUM_NAME = "tinygrad_mnist"
CHECKSUM_KEY = b'tinygrad_mnist":"sha256:'
HEADER_START = b'{"__metadata__":{"' + CHECKSUM_KEY
BLANK = b"0" * 64  # stands in place of the checksum while it is computed
HEADER_LIMIT, CHUNK = 4 << 20, 1 << 18
DEFLATE_RATIO = 1032  # no deflate stream expands to more than this many times its size


class CheckpointError(ValueError):
    """A file of weights or a checkpoint is damaged or does not fit; the message names file, reason and remedy."""


class ArrayFile(NamedTuple):
    """An open file: shape and dtype of its arrays by name, and functions that read one of them, and the metadata."""

    entries: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    read: Callable[[str], Array]
    metadata: Callable[[], dict[str, str]] = dict


@contextmanager
def open_arrays(path: Path, max_bytes: int, max_arrays: float = math.inf) -> Iterator[ArrayFile]:
    """Open a file of either format, detected by content.

    Headers are read, and compared with the limits; arrays are unpacked when they are asked for.

    Raises
    ------
    FileNotFoundError
        If it does not exist, or is not a regular file.
    CheckpointError
        If anything is wrong with its content, it or its arrays are larger than `max_bytes`, or there are more than
        `max_arrays` (of .npz only: each takes time).
    """
    max_bytes = integer("open_arrays", "max_bytes", max_bytes)
    if not path.is_file():  # reading from a pipe or a device may never end
        problem = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {problem}; pass a file of weights or a checkpoint")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise CheckpointError(
                f"{path} has {size} bytes, more than the {max_bytes} accepted; raise max_bytes if that is meant"
            )
        format_ = _npz if file.read(2) == b"PK" else _safetensors
        file.seek(0)
        try:
            with format_(path, file, size, max_bytes, max_arrays) as found:
                yield found._replace(read=lambda name: _check_finite(f"{path}: {name}", found.read(name)))
        except (CheckpointError, ImportError):
            raise
        except Exception as error:  # on damaged bytes, the parsers of NumPy, zipfile and safetensors raise any error
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(
                f"{path} is damaged or not a file of weights ({problem}); restore it, or train again"
            ) from error


@contextmanager
def _safetensors(path: Path, file: BinaryIO, size: int, max_bytes: int, max_arrays: float) -> Iterator[ArrayFile]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, HEADER_LIMIT):
        found = f"a header of {length} bytes" if len(start) == 8 else "no header"
        raise CheckpointError(
            f"{path} is damaged or not a file of weights: it has {found} in {size} bytes; restore it, or train again"
        )
    header = file.read(length)
    if _resembles(header[len(HEADER_START) - len(CHECKSUM_KEY) :], CHECKSUM_KEY):
        _check_digest(path, file, 8 + len(HEADER_START))
    with _library().safe_open(path, framework="np") as file_:
        entries = {}
        for name in file_.keys():
            part = file_.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise CheckpointError(
                    f"{path}: {name} is {part.get_dtype()}, which NumPy does not have; convert it to F32"
                )
            entries[name] = tuple(part.get_shape()), np.dtype(DTYPES[part.get_dtype()])

        def metadata() -> dict[str, str]:
            found = file_.metadata() or {}
            if found.get(CHECKSUM_NAME, "").startswith("sha256:"):
                del found[CHECKSUM_NAME]
            return dict(sorted(found.items()))  # safetensors gives them in any order

        yield ArrayFile(entries, file_.get_tensor, metadata)


@contextmanager
def _npz(path: Path, file: BinaryIO, size: int, max_bytes: int, max_arrays: float) -> Iterator[ArrayFile]:
    file.seek(max(size - 22 - len(CHECKSUM_KEY + BLANK), 0))
    end = file.read()
    if _resembles(end[22:], CHECKSUM_KEY):
        _check_digest(path, file, size - len(BLANK))
    record = end.rfind(b"PK\x05\x06")  # the end record: 22 bytes, the last two of which are the length of the comment
    if record >= 0 and record + 22 + int.from_bytes(end[record + 20 : record + 22], "little") != len(end):
        raise CheckpointError(f"{path} is damaged: it is truncated; restore it, or train again")
    with zipfile.ZipFile(file) as archive:
        headers, members = {}, archive.infolist()
        if len(members) > max_arrays:
            raise CheckpointError(f"{path} holds {len(members)} arrays, more than the {max_arrays} accepted")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without limit
                raise CheckpointError(
                    f"{path}: {name} is compressed by another method than NumPy's; save it with np.savez_compressed"
                )
            with archive.open(member) as opened:
                version = np.lib.format.read_magic(opened)
                if version != (1, 0):  # which is enough for arrays of numbers; later ones allow headers of gigabytes
                    raise CheckpointError(
                        f"{path}: {name} is not .npy of version 1, as NumPy writes numbers; save it with np.savez"
                    )
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(opened)
                needed = math.prod(shape) * dtype.itemsize
                room = member.compress_size * (DEFLATE_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1)
                if dtype.kind not in "biuf":
                    raise CheckpointError(
                        f"{path}: {name} has dtype {dtype}; only numbers are read: convert it before it is saved"
                    )
                if (
                    name in headers
                    or not opened.tell() + needed == member.file_size <= room
                    or member.compress_size > size
                ):
                    raise CheckpointError(
                        f"{path} is damaged: {name} needs {needed} bytes ({dtype} {shape}), but has fewer; restore it"
                    )
                headers[name] = member, opened.tell(), shape, fortran, dtype
        if sum(math.prod(h[2]) * h[4].itemsize for h in headers.values()) > max_bytes:
            raise CheckpointError(
                f"{path} holds more than the {max_bytes} bytes accepted; raise max_bytes if that is meant"
            )

        def values(name: str) -> Array:
            member, begin, shape, fortran, dtype = headers[name]
            stored = member.compress_type == zipfile.ZIP_STORED
            # the file is as long as what is stored in it; what is unpacked is only promised: its room grows with it
            data: Any = np.empty(member.file_size, np.uint8) if stored else bytearray()
            with archive.open(member) as opened:
                position = 0
                while chunk := opened.read(CHUNK):  # up to the end, where zipfile compares the CRC
                    data[position : position + len(chunk)] = memoryview(chunk)
                    position += len(chunk)
            array: Array = np.frombuffer(memoryview(data)[begin:], dtype).reshape(shape, order="F" if fortran else "C")
            return array.astype(dtype.newbyteorder("="), copy=False)

        yield ArrayFile({name: (h[2], h[4].newbyteorder("=")) for name, h in headers.items()}, values)


def _check_digest(path: Path, file: BinaryIO, offset: int) -> None:
    """Compare the SHA-256 that a file contains at an offset with that of its bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(CHUNK, offset - file.tell())):
        digest.update(chunk)
    stated = file.read(len(BLANK))
    digest.update(BLANK)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    if digest.hexdigest().encode() != stated:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is not the one that was saved with it; restore it, or use an older one"
        )


def _resembles(data: bytes, wanted: bytes) -> bool:
    """Return whether data begins with what is wanted, up to damage of half of its bytes."""
    return 2 * sum(a == b for a, b in zip(data, wanted, strict=False)) > len(wanted)


def encode_npz(arrays: Mapping[str, Array]) -> bytearray:
    """Return the bytes of an .npz file that contains its checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # np.savez has parameters, whose names no array could have
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = CHECKSUM_KEY + BLANK
    data = bytearray(buffer.getbuffer())
    data[-len(BLANK) :] = hashlib.sha256(data).hexdigest().encode()
    return data


def encode_safetensors(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytearray:
    """Return the bytes of a safetensors file that contains its checksum, and metadata behind it."""
    plain = {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}
    data = bytearray(_library().numpy.save(plain, {CHECKSUM_NAME: f"sha256:{BLANK.decode()}"}))
    if not data.startswith(HEADER_START + BLANK + b'"}', 8):
        raise RuntimeError(
            "this version of safetensors does not write the metadata first, as earlier ones do; install an older one"
        )
    offset = 8 + len(HEADER_START)
    if metadata:  # safetensors would not keep the order of several entries
        end = 8 + int.from_bytes(data[:8], "little")
        header = data[8:end].rstrip()
        behind = offset - 8 + len(BLANK) + 1
        header[behind:behind] = b"," + json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]
        header += b" " * (-len(header) % 8)  # what follows stays aligned
        data[:end] = len(header).to_bytes(8, "little") + header
    if (length := int.from_bytes(data[:8], "little")) > HEADER_LIMIT:
        raise ValueError(
            f"the metadata, names and shapes of {len(plain)} arrays take {length} bytes, more than {HEADER_LIMIT}; "
            "shorten the metadata, or concatenate arrays"
        )
    data[offset : offset + len(BLANK)] = hashlib.sha256(data).hexdigest().encode()
    return data


def check_metadata(caller: str, metadata: Mapping[str, str]) -> None:
    """Raise an error for metadata that cannot be stored: it is text by name, without lone surrogates."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"{caller}: metadata is a {type(metadata).__name__}; pass a dict of str to str")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(
                f"{caller}: metadata has {key!r}: {value!r:.50}; names and values must be str: convert them"
            )
        if key == CHECKSUM_NAME:
            raise ValueError(f"{caller}: metadata has {key!r}, where the checksum of the file is; use another name")
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{caller}: metadata {key!r} is not valid Unicode ({error.reason}); mend it") from error


def check_storable(what: str, name: str, array: Array) -> Array:
    """Return an array if it can be stored by this name and read again, else raise an error that calls it `what`."""
    if str(array.dtype.newbyteorder("=")) not in DTYPES.values():
        raise TypeError(f"{what} is {array.dtype}, not a dtype of numbers that every machine has; convert it")
    if name == "__metadata__" or not name.isprintable() or len(name) > 1000:
        raise ValueError(f"{what} is not a name for an array; use at most 1000 printable characters")
    return _check_finite(what, array)


def _check_finite(what: str, array: Array) -> Array:
    """Return an array if all its values are finite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise CheckpointError(
            f"{what} has {count} of {array.size} values that are NaN or infinite; use an earlier state (a constant, "
            "such as a mask of infinities, can be a plain array)"
        )
    return array


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            ".safetensors files need safetensors; pip install 'tinygrad_mnist[train]', or use .npz for weights"
        ) from error
    return safetensors
