"""The IDX format of the MNIST files, raw or gzip; files are untrusted input.

A file is two zero bytes, a dtype code, the number of dimensions, each dimension as uint32, and the values in row-major
order; all big-endian.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..validation import integer
from .conversion import as_array

__all__ = ["IdxError", "decode_idx", "encode_idx", "read_header", "read_idx"]

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CODES = {np.dtype(dtype).newbyteorder("="): code for code, dtype in DTYPES.items()}
DEFLATE_RATIO = 1032  # no deflate stream expands to more than this many times its size
CHUNK = 1 << 20
GZIP_PIECE, GZIP_MEMBER, GZIP_SLACK = 1 << 16, 4096, 1 << 20  # bytes; see `_Gunzip`

Header = tuple[tuple[int, ...], np.dtype[Any]]


class IdxError(ValueError):
    """A file is not valid IDX, or not the data that was expected; the message names the file and both."""


def read_idx(path: str | os.PathLike[str], max_bytes: int = 1 << 32) -> npt.NDArray[Any]:
    """Read the array in an IDX file, raw or gzip-compressed (detected by content, not by name).

    Memory is allocated only for values that exist, and for at most `max_bytes` of them; a gzip file that promises more
    is refused by its header. Of a gzip file, at most 1/64 more bytes are read than values come out, and 1 MiB (each
    member counts as 4096 bytes more): header fields or empty members without end are refused there.

    Parameters
    ----------
    path : str or PathLike
    max_bytes : int
        Refuse a file whose values take more.

    Returns
    -------
    ndarray
        Of the file's shape, in native byte order, writable; uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist or is not a file.
    IdxError
        If the file is empty, truncated, damaged, longer than its header says, larger than `max_bytes`, or not IDX, or
        if its gzip data is longer than what it holds.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(encode_idx(np.array([7, 2, 1], np.uint8)))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    with _open(path) as file:
        return decode_idx(file, str(path), max_bytes)


def read_header(path: str | os.PathLike[str], max_bytes: int = 1 << 32) -> Header:
    """Read the shape and the dtype that an IDX file promises, no values; errors are those of `read_idx`."""
    with _open(path) as file:
        _, (shape, dtype) = _begin(file, str(path), max_bytes)
        return shape, dtype.newbyteorder("=")


def _open(path: str | os.PathLike[str]) -> io.BufferedReader:
    path = Path(path)
    if not path.is_file():  # reading from a pipe or a device may never end
        problem = "not a file" if path.exists() else "no such file"
        raise FileNotFoundError(f"{path}: {problem}; give one IDX file, raw or gzip")
    return open(path, "rb")


def decode_idx(file: io.BufferedIOBase, name: str, max_bytes: int = 1 << 32) -> npt.NDArray[Any]:
    """Read an IDX array from an open, seekable binary file; see `read_idx`. Errors call it `name`.

    Examples
    --------
    >>> decode_idx(io.BytesIO(encode_idx(np.array([[0.5, 2]]))), "in memory")
    array([[0.5, 2. ]])
    """
    read, (shape, dtype) = _begin(file, name, max_bytes)
    needed, promise = _promise(name, shape, dtype)
    values = bytearray()  # grows as data is read; frombuffer keeps it writable
    while len(values) < needed and (chunk := read(min(CHUNK, needed - len(values)))):
        values += chunk
    if len(values) < needed:
        raise IdxError(f"{promise}, only {len(values)} follow; fetch the file again")
    if read(1):  # at the end of a gzip file, this also compares the checksum
        raise IdxError(f"{promise}, more follow; fetch the file again")
    try:
        return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # more than 64 dimensions, or an empty array of impossible extent
        raise IdxError(f"{name}: NumPy holds no array of shape {shape} ({error})") from error


def _promise(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, str]:
    """Return how many bytes an array needs, and the beginning of an error that says so."""
    needed = math.prod(shape) * dtype.itemsize
    return needed, f"{name}: the header promises {needed} bytes ({dtype.name} {shape})"


def _begin(file: io.BufferedIOBase, name: str, max_bytes: int) -> tuple[Callable[[int], bytes], Header]:
    """Read the header; return it and a function that reads the next so many bytes of the values."""
    max_bytes, size = integer("read_idx", "max_bytes", max_bytes), file.seek(0, os.SEEK_END)
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    read = _Gunzip(file, name).read if compressed else file.read
    shape, dtype = _header(read, name)
    needed, promise = _promise(name, shape, dtype)
    if needed > max_bytes:
        raise IdxError(f"{promise}, more than the {max_bytes} accepted; raise max_bytes if that is meant")
    if needed > size * (DEFLATE_RATIO if compressed else 1):
        raise IdxError(f"{promise}, more than a file of this size can hold; fetch the file again")
    return read, (shape, dtype)


def _header(read: Callable[[int], bytes], name: str) -> Header:
    magic = read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] == 0:
        raise IdxError(
            f"{name}: not an IDX file; it begins with {magic.hex(' ') or 'nothing (it is empty)'}, expected 00 00, "
            f"one of {' '.join(f'{code:02x}' for code in DTYPES)}, and the number of dimensions"
        )
    ndim = magic[3]
    if len(header := read(4 * ndim)) < 4 * ndim:
        raise IdxError(f"{name}: cut off in the header ({ndim} dimensions promised); fetch the file again")
    return struct.unpack(f">{ndim}I", header), np.dtype(DTYPES[magic[2]])


class _Gunzip:
    """Unpack a gzip file, of one member or several, at a cost that what comes out bounds.

    The cost is the number of bytes read, and GZIP_MEMBER for each member; it may exceed the number of bytes that came
    out by 1/64 and GZIP_SLACK. What no gzip program writes is refused there: names without end, empty members.
    """

    def __init__(self, file: io.BufferedIOBase, name: str) -> None:
        self.file, self.name = file, name
        self.member: Any = None  # the decompressor of the member that has begun
        self.rest = b""
        self.cost = self.produced = 0

    def read(self, n: int) -> bytes:
        """Return `n` bytes, fewer only at the end."""
        data = bytearray()
        try:
            while len(data) < n and (self.rest or self._fetch()):
                part = self._unpack(n - len(data))
                data += part
                self.produced += len(part)
                if self.cost > GZIP_SLACK + self.produced + self.produced // 64:
                    raise IdxError(
                        f"{self.name}: the gzip data is damaged: {self.cost} bytes of it (with {GZIP_MEMBER} more for "
                        f"each member) hold only {self.produced}; fetch the file again"
                    )
        except (EOFError, zlib.error) as error:
            raise IdxError(
                f"{self.name}: the gzip data is damaged or cut off ({error}); fetch the file again"
            ) from error
        return bytes(data)

    def _fetch(self) -> bool:
        """Read a piece of the file; return whether there was one."""
        self.rest = self.file.read(GZIP_PIECE)
        self.cost += len(self.rest)
        if not self.rest and self.member is not None:
            raise EOFError("it ends within a member")
        return bool(self.rest)

    def _unpack(self, n: int) -> bytes:
        """Return at most `n` bytes of what `rest` holds; keep the remainder."""
        if self.member is None:
            self.rest = self.rest.lstrip(b"\0")  # zeros may follow a member
            if not self.rest:
                return b""
            self.member = zlib.decompressobj(wbits=31)  # 31: with the header and the checksum of gzip
            self.cost += GZIP_MEMBER
        part: bytes = self.member.decompress(self.rest, n)
        if self.member.eof:
            self.rest, self.member = self.member.unused_data, None
        else:
            self.rest = self.member.unconsumed_tail
        return part


def encode_idx(array: npt.ArrayLike) -> bytes:
    """Return the bytes of a raw IDX file that holds an array: the inverse of `decode_idx`.

    Raises
    ------
    TypeError, ValueError
        If IDX has no code for the dtype, or cannot hold the shape (1 to 255 dimensions, each below 2**32).

    Examples
    --------
    >>> encode_idx(np.array([7, 2, 1], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 03 07 02 01'
    """
    array = as_array("encode_idx", "array", array)
    native = array.dtype.newbyteorder("=")
    if native not in CODES:
        raise TypeError(f"encode_idx: IDX has no {array.dtype}; convert to one of {', '.join(map(str, CODES))}")
    if array.ndim < 1 or max(array.shape) >= 1 << 32:
        raise ValueError(f"encode_idx: IDX cannot hold shape {array.shape}; it takes 1 dimension or more, each < 2**32")
    return b"".join(idx_parts(array))


def idx_parts(array: npt.NDArray[Any]) -> tuple[bytes, memoryview]:
    """Return header and values of an IDX file; the values are not copied unless their byte order changes."""
    code = CODES[array.dtype.newbyteorder("=")]
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header, array.astype(DTYPES[code], order="C", copy=False).data
