"""The IDX format of the MNIST files, raw or gzip; files are untrusted input.

A file is two zero bytes, a dtype code, the number of dimensions, each dimension as uint32, and the values in row-major
order; all big-endian.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..validation import integer
from .conversion import as_array

__all__ = ["IdxError", "decode_idx", "encode_idx", "read_idx"]

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CODES = {np.dtype(dtype).newbyteorder("="): code for code, dtype in DTYPES.items()}
DEFLATE_RATIO = 1032  # no deflate stream expands to more than this many times its size
CHUNK = 1 << 20


class IdxError(ValueError):
    """A file is not valid IDX, or not the data that was expected; the message names the file and both."""


def read_idx(path: str | os.PathLike[str], max_bytes: int = 1 << 32) -> npt.NDArray[Any]:
    """Read the array in an IDX file, raw or gzip-compressed (detected by content, not by name).

    Memory is allocated only for values that exist, so that a false header or a compression bomb allocates none.

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
        If the file is empty, truncated, damaged, longer than its header says, larger than `max_bytes`, or not IDX.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(encode_idx(np.array([7, 2, 1], np.uint8)))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    if not path.is_file():
        problem = "not a file" if path.exists() else "no such file"
        raise FileNotFoundError(f"{path}: {problem}; give one IDX file, raw or gzip")
    with open(path, "rb") as file:
        return decode_idx(file, str(path), max_bytes)


def decode_idx(file: io.BufferedIOBase, name: str, max_bytes: int = 1 << 32) -> npt.NDArray[Any]:
    """Read an IDX array from an open, seekable binary file; see `read_idx`. Errors call it `name`.

    Examples
    --------
    >>> decode_idx(io.BytesIO(encode_idx(np.array([[0.5, 2]]))), "in memory")
    array([[0.5, 2. ]])
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not compressed:
        return _decode(file, name, size, max_bytes)
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _decode(unpacked, name, size * DEFLATE_RATIO, max_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IdxError(f"{name}: the gzip data is damaged or cut off ({error}); fetch the file again") from error


def _decode(file: io.BufferedIOBase, name: str, available: int, max_bytes: int) -> npt.NDArray[Any]:
    max_bytes, magic = integer("read_idx", "max_bytes", max_bytes), file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] == 0:
        raise IdxError(
            f"{name}: not an IDX file; it begins with {magic.hex(' ') or 'nothing (it is empty)'}, expected 00 00, "
            f"one of {' '.join(f'{code:02x}' for code in DTYPES)}, and the number of dimensions"
        )
    dtype, ndim = np.dtype(DTYPES[magic[2]]), magic[3]
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise IdxError(f"{name}: cut off in the header ({ndim} dimensions promised); fetch the file again")
    shape = struct.unpack(f">{ndim}I", header)
    needed = math.prod(shape) * dtype.itemsize
    promise = f"{name}: the header promises {needed} bytes ({dtype.name} {shape})"
    if needed > max_bytes:
        raise IdxError(f"{promise}, more than the {max_bytes} accepted; raise max_bytes if that is meant")
    if needed > available:
        raise IdxError(f"{promise}, more than a file of this size can hold; fetch the file again")
    values = bytearray()  # grows as data is read; frombuffer keeps it writable
    while len(values) < needed and (chunk := file.read(min(CHUNK, needed - len(values)))):
        values += chunk
    if len(values) < needed:
        raise IdxError(f"{promise}, only {len(values)} follow; fetch the file again")
    if file.read(1):  # at the end of a gzip file, this also compares the checksum
        raise IdxError(f"{promise}, more follow; fetch the file again")
    try:
        return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # more than 64 dimensions, or an empty array of impossible extent
        raise IdxError(f"{name}: NumPy holds no array of shape {shape} ({error})") from error


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
    header = struct.pack(f">4B{array.ndim}I", 0, 0, CODES[native], array.ndim, *array.shape)
    return b"".join((header, array.astype(DTYPES[CODES[native]], order="C", copy=False).data))
