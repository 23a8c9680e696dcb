"""Weights and checkpoints on disk: safetensors, or .npz for weights. Nothing is unpickled, nothing believed before it is checked.

A file that is written here carries a SHA-256 of all its bytes, so that damage anywhere is seen before anything is loaded. Errors come
before memory is taken: sizes and names are read from the header, and compared with the file's length and with what is wanted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .files import write_atomically
from .nn import misfits, parameters
from .tensor import Array, Operand, Tensor, as_tensor

__all__ = ["CheckpointError", "CheckpointManager", "load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16", "I32": "int32",
    "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
NAME = b'tinygrad_mnist":"sha256:'  # before our checksum, in the one entry of our metadata (several would come in any order) or comment
START = b'{"__metadata__":{"' + NAME
BLANK = b"0" * 64  # the checksum is that of the file with zeros in its own place
HEADER_LIMIT, STATE_LIMIT, MAX_BYTES, CHUNK = 4 << 20, 64 << 20, 1 << 32, 1 << 18
DEFLATE_RATIO = 1032  # no deflate stream expands to more than this many times its size
ARRAY, STATE = "$array", "$state"  # the key that stands for an array in a checkpoint's state; the array with that state, as JSON
log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A file of weights or a checkpoint that is damaged, or not what is wanted: the message says which, why, and what to do."""


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Operand]) -> None:
    """Write arrays by name; an interruption leaves the old file, or none, never half of one.

    Parameters
    ----------
    path : str or PathLike
        Ending in ``.safetensors`` (needs the ``train`` extra) or ``.npz``.
    weights : dict of str to Tensor or ndarray
        For instance ``tg.nn.parameters(model)``.

    Raises
    ------
    ValueError
        If the name ends in something else, or a value is NaN or infinite.
    OSError
        If the file cannot be written; what was there before is still there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "weights.npz")
    ...     save_weights(path, {"bias": np.zeros(3)})
    ...     load_weights(path)
    {'bias': array([0., 0., 0.])}
    """
    path, arrays = Path(path), {name: as_tensor(value).data for name, value in weights.items()}
    encoders = {".npz": _npz_bytes, ".safetensors": _safetensors_bytes}
    if path.suffix not in encoders:
        raise ValueError(f"save_weights: {path.name} says no format; let its name end in .safetensors or .npz")
    for name, array in arrays.items():
        _check_storable(f"save_weights: {name!r}", name, array)
    write_atomically(path, encoders[path.suffix](arrays))


def load_weights(path: str | os.PathLike[str], like: Any = None, *, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Read a file of weights, safetensors or .npz (told apart by content, whatever the name); give it to ``tg.nn.load_parameters``.

    Parameters
    ----------
    path : str or PathLike
        Also from other programs. A checksum is compared if there is one: `save_weights` writes it.
    like : model or dict of str to Tensor, optional
        What the weights are for. The file must have exactly its names, shapes and dtypes; this is found out before values are read.
    max_bytes : int
        Refuse a larger file, or values that would take more.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged, holds Python objects, NaN or infinity, or does not fit `like`: then every difference is listed.
    """
    with _opened(Path(path), max_bytes) as file:
        if STATE in file.entries:
            raise CheckpointError(f"{path} is a checkpoint; read it with load_checkpoint, and take its weights")
        if like is not None:
            wanted = like if isinstance(like, Mapping) else parameters(like)
            if wrong := misfits({name: (p.shape, p.dtype) for name, p in wanted.items()}, file.entries):
                raise CheckpointError(f"{path} does not fit the model: {'; '.join(wrong)}")
        return {name: file.read(name) for name in file.entries}


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write everything that is needed to go on later into one safetensors file, all or nothing (needs the ``train`` extra).

    Parameters
    ----------
    path : str or PathLike
    state : dict
        Nested dicts with string keys, lists, Tensors, arrays, numbers, strings, booleans and None: whatever `load_checkpoint` is to give
        back (arrays bit for bit; Tensors as arrays, tuples as lists).

    Raises
    ------
    TypeError, ValueError
        If something cannot be stored, or a number is NaN or infinite; the message says where it is.
    OSError
        If the file cannot be written; what was there before is still there.

    Examples
    --------
    A loop of your own, that can go on where it was:

    >>> import pathlib, tempfile, tinygrad_mnist as tg
    >>> layer, rng = tg.nn.Linear(2, 1), np.random.default_rng(0)
    >>> optimizer = tg.optim.AdaGrad(tg.nn.parameters(layer))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "checkpoint.safetensors")
    ...     save_checkpoint(path, {"weights": tg.nn.parameters(layer), "optimizer": optimizer.state_dict(),
    ...                            "rng": rng.bit_generator.state, "step": 7})
    ...     state = load_checkpoint(path)
    >>> tg.nn.load_parameters(layer, state["weights"])
    >>> optimizer.load_state_dict(state["optimizer"])
    >>> rng.bit_generator.state = state["rng"]
    >>> state["step"]
    7
    """
    arrays: dict[str, Array] = {}
    text = json.dumps(_taken_apart(state, "", arrays), allow_nan=False).encode()
    if len(text) > STATE_LIMIT:
        raise ValueError(f"save_checkpoint: beside arrays a state may take {STATE_LIMIT} bytes, not {len(text)}; store lists as arrays")
    write_atomically(path, _safetensors_bytes({**arrays, STATE: np.frombuffer(text, np.uint8)}))


def load_checkpoint(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is damaged anywhere, or is no checkpoint.
    """
    with _opened(Path(path), max_bytes) as file:
        if math.prod(file.entries.get(STATE, ((0,),))[0]) not in range(1, STATE_LIMIT + 1):
            raise CheckpointError(f"{path} is no checkpoint but a file of weights, or another program's; read it with load_weights")
        state = json.loads(file.read(STATE).tobytes())
        arrays = {name: file.read(name) for name in file.entries if name != STATE}
        try:
            if not isinstance(found := _put_together(state, arrays), dict):
                raise TypeError("it is no dict")
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: its state does not fit its arrays ({error}); use an older one") from error
        return found


class CheckpointManager:
    """The newest checkpoints in a folder: the last one, and those before it to fall back on.

    Parameters
    ----------
    folder : str or PathLike
        Exists. Its files are called ``checkpoint-STEP.safetensors``.
    keep : int
        How many to keep, at least 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"CheckpointManager: keep is {keep}; keep at least 1 checkpoint")
        self.folder, self.keep = Path(folder), keep

    def files(self) -> list[Path]:
        """List the checkpoints, the newest first."""
        found = [file for file in self.folder.iterdir() if re.fullmatch(r"checkpoint-[0-9]{8,18}\.safetensors", file.name)]
        return sorted(found, key=lambda file: int(file.stem.split("-")[1]), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then delete those with the lowest numbers that are not to be kept."""
        if step < 0:
            raise ValueError(f"CheckpointManager: step is {step}; it must be at least 0")
        path = self.folder / f"checkpoint-{step:08d}.safetensors"
        save_checkpoint(path, state)
        for old in [file for file in self.files() if file != path][self.keep - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, say: Callable[[str], None] = log.warning) -> dict[str, Any] | None:
        """Read the newest checkpoint that is whole; None if there is none at all.

        Damaged ones are told to `say`, and renamed to ``….damaged`` once an older one has been read in their place.

        Raises
        ------
        CheckpointError
            If there are checkpoints, and all of them are damaged.
        """
        reasons: dict[Path, str] = {}
        for file in self.files():
            try:
                state = load_checkpoint(file)
            except (CheckpointError, OSError) as error:
                reasons[file] = str(error)
                continue
            for damaged, reason in reasons.items():
                os.replace(damaged, damaged.with_suffix(".damaged"))
                say(f"{reason}; going on from the one before, {file.name}")
            return state
        if reasons:
            raise CheckpointError(f"no checkpoint in {self.folder} can be read: {'; '.join(reasons.values())}; begin the run again")
        return None


# Both formats, opened: what is there is known from headers, values are read one array at a time -------------------------------------------
class _File(NamedTuple):
    entries: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    read: Callable[[str], Array]


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[_File]:
    if not path.is_file():  # nor is a pipe or a device read, which may never end
        raise FileNotFoundError(f"{path} is {'no file' if path.exists() else 'not there'}; name a file of weights, or a checkpoint")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise CheckpointError(f"{path} has {size} bytes, more than the {max_bytes} accepted; raise max_bytes if that is meant")
        format_ = _npz if file.read(2) == b"PK" else _safetensors
        file.seek(0)
        try:
            with format_(path, file, size, max_bytes) as found:
                yield _File(found.entries, lambda name: _check_finite(f"{path}: {name}", found.read(name)))
        except (CheckpointError, ImportError):
            raise
        except Exception as error:  # on damaged bytes, NumPy's, zipfile's and safetensors' parsers raise nearly anything
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(f"{path} is damaged or no file of weights ({problem}); restore it, or train again") from error


@contextmanager
def _safetensors(path: Path, file: io.BufferedReader, size: int, max_bytes: int) -> Iterator[_File]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, HEADER_LIMIT):
        claim = f"a header of {length} bytes" if len(start) == 8 else "no header"
        raise CheckpointError(f"{path} is damaged or no file of weights: it has {claim} in {size} bytes; restore it, or train again")
    header = file.read(length)
    if _resembles(header[len(START) - len(NAME) :], NAME):
        _check_digest(path, file, 8 + len(START))
    with _library().safe_open(path, framework="np") as opened:
        entries = {}
        for name in opened.keys():
            part = opened.get_slice(name)
            if part.get_dtype() not in DTYPES:
                raise CheckpointError(f"{path}: {name} is {part.get_dtype()}, which NumPy does not have; convert it to F32")
            entries[name] = tuple(part.get_shape()), np.dtype(DTYPES[part.get_dtype()])
        yield _File(entries, opened.get_tensor)


@contextmanager
def _npz(path: Path, file: io.BufferedReader, size: int, max_bytes: int) -> Iterator[_File]:
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
                if np.lib.format.read_magic(opened) != (1, 0):  # enough for arrays of numbers; others may have headers of gigabytes
                    raise CheckpointError(f"{path}: {name} is no .npy of version 1, as NumPy writes numbers; store it anew with np.savez")
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(opened)
                needed = math.prod(shape) * dtype.itemsize
                room = member.compress_size * (DEFLATE_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1)
                if dtype.kind not in "biuf":
                    raise CheckpointError(f"{path}: {name} holds {dtype} and no numbers, which is never read; store numbers")
                if name in headers or not opened.tell() + needed == member.file_size <= room or member.compress_size > size:
                    raise CheckpointError(f"{path} is damaged: {name} claims {needed} bytes ({dtype} {shape}) in too few; restore it")
                headers[name] = member, opened.tell(), shape, fortran, dtype
        if sum(math.prod(h[2]) * h[4].itemsize for h in headers.values()) > max_bytes:
            raise CheckpointError(f"{path} holds more than the {max_bytes} bytes accepted; raise max_bytes if that is meant")

        def values(name: str) -> Array:
            member, begin, shape, fortran, dtype = headers[name]
            data = bytearray()  # grows with what arrives
            with archive.open(member) as opened:
                while chunk := opened.read(CHUNK):  # to the end, where the checksum is compared
                    data += chunk
            array: Array = np.frombuffer(memoryview(data)[begin:], dtype).reshape(shape, order="F" if fortran else "C")
            return array.astype(dtype.newbyteorder("="), copy=False)

        yield _File({name: (h[2], h[4].newbyteorder("=")) for name, h in headers.items()}, values)


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
        raise CheckpointError(f"{path} is damaged: its bytes do not have the SHA-256 that it states; restore it, or use an older one")


def _resembles(data: bytes, wanted: bytes) -> bool:
    """Whether data begins with what is wanted; it may be damaged, but not more than by half."""
    return 2 * sum(a == b for a, b in zip(data, wanted, strict=False)) > len(wanted)


def _npz_bytes(arrays: Mapping[str, Array]) -> bytearray:
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


def _safetensors_bytes(arrays: Mapping[str, Array]) -> bytearray:
    """Return the bytes of a safetensors file with its own checksum."""
    plain = {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}
    data = bytearray(_library().numpy.save(plain, {"tinygrad_mnist": "sha256:" + BLANK.decode()}))
    if (length := int.from_bytes(data[:8], "little")) > HEADER_LIMIT:
        raise ValueError(f"names and shapes of {len(plain)} arrays take {length} bytes, more than {HEADER_LIMIT}; join some of them")
    if not data.startswith(START + BLANK, 8):
        raise RuntimeError("this version of safetensors does not write metadata first, as all before it; install an older one")
    place = 8 + len(START)
    data[place : place + len(BLANK)] = hashlib.sha256(data).hexdigest().encode()
    return data


def _taken_apart(value: Any, where: str, arrays: dict[str, Array]) -> Any:
    """Return what JSON can hold of `value`, and put its arrays into `arrays` by their paths."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"save_checkpoint: {where} is {value}; only finite numbers are kept")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.data if isinstance(value, Tensor) else value
        if where in arrays:
            raise ValueError(f"save_checkpoint: there are two arrays of the name {where}; use keys without /")
        arrays[where] = _check_storable(f"save_checkpoint: {where!r}", where, array)
        return {ARRAY: where}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str) or key in (ARRAY, STATE)]:
            raise TypeError(f"save_checkpoint: the key {wrong[0]!r} in {where or 'the state'} cannot be stored; use other strings")
        return {key: _taken_apart(part, f"{where}/{key}".lstrip("/"), arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_taken_apart(part, f"{where}/{position}", arrays) for position, part in enumerate(value)]
    raise TypeError(f"save_checkpoint: cannot store {where}, a {type(value).__name__}; pass dicts, lists, arrays, numbers, strings")


def _put_together(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        return arrays[value[ARRAY]] if ARRAY in value else {key: _put_together(part, arrays) for key, part in value.items()}
    return [_put_together(part, arrays) for part in value] if isinstance(value, list) else value


def _check_storable(what: str, name: str, array: Array) -> Array:
    if str(array.dtype.newbyteorder("=")) not in DTYPES.values():
        raise TypeError(f"{what} is {array.dtype}, and no array of numbers that any machine can read; convert it")
    if name == "__metadata__" or not name.isprintable() or len(name) > 1000:
        raise ValueError(f"{what} is no name to store an array by; use a shorter one, of printable characters")
    return _check_finite(what, array)


def _check_finite(what: str, array: Array) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise CheckpointError(f"{what} has {count} of {array.size} values that are NaN or infinite; use one from before that")
    return array


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(".safetensors files need the library; pip install 'tinygrad_mnist[train]', or use .npz for weights") from error
    return safetensors
