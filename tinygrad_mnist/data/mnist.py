"""MNIST and data sets of the same shape: from a folder, the per-user cache, public mirrors, or synthetic digits."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..storage.files import leftovers, lock_folder, read_whole, write_atomically
from ..validation import real
from .download import download
from .folders import check_labels, check_pair, files, on_threads, read_folder, read_npz
from .idx import Header, IdxError, decode_idx, idx_parts, read_idx
from .synthetic import synthetic_digits

__all__ = ["MIRRORS", "DataUnavailableError", "Dataset", "cache_dir", "find_mnist", "load_mnist"]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
DIGESTS = {  # SHA-256 of the uncompressed files; their order is that of Dataset's arrays
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MAX_BYTES = 64 << 20  # of one MNIST file, compressed or not, and of all arrays of MNIST together
NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '\|u1', 'fortran_order': False, 'shape': \(([\d, ]+)\), } *\n", re.DOTALL
)  # of an array of uint8
PACKED = "packed.txt"  # in the cache: see `_Packed`
MAX_PACKED = 100  # lines in it
MAX_IMAGES = 700_000  # in one file of a folder: 550 MB
MAX_TIMEOUT = 86_400.0  # a day
REMEDY = (
    "Pass path=FOLDER with the four IDX files, or set TINYGRAD_MNIST_DATA to the folder; "
    'path="synthetic" draws synthetic digits'
)
log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]


class DataUnavailableError(OSError):
    """MNIST is neither in the cache nor on any mirror; the message lists every reason and the remedies."""


class Dataset(NamedTuple):
    """Grayscale 28×28 images of ten classes, for training and test, and their source."""

    images: Array  # (n, 28, 28)
    labels: Array  # (n,), each 0 to 9
    test_images: Array
    test_labels: Array
    source: str  # one line for the user
    synthetic: bool  # not real data: accuracy on it says nothing about MNIST


def load_mnist(
    path: str | os.PathLike[str] | None = None, *, mirrors: Sequence[str] = MIRRORS, timeout: float = 20.0
) -> tuple[Array, Array, Array, Array]:
    """Load MNIST as four arrays; synthetic digits only with ``path="synthetic"``.

    Parameters, errors and order of the sources are those of `find_mnist`. Where that falls back to synthetic digits,
    this raises `DataUnavailableError`.

    Returns
    -------
    images, labels, test_images, test_labels : ndarray of uint8
        Of shapes (60000, 28, 28), (60000,), (10000, 28, 28), (10000,).

    Examples
    --------
    >>> images, labels, test_images, test_labels = load_mnist("synthetic")
    >>> images.shape, test_labels.shape
    ((60000, 28, 28), (10000,))
    """
    return find_mnist(path, fallback=False, mirrors=mirrors, timeout=timeout)[:4]


def find_mnist(
    path: str | os.PathLike[str] | None = None,
    *,
    fallback: bool = True,
    mirrors: Sequence[str] = MIRRORS,
    timeout: float = 20.0,
    remember: bool = False,
) -> Dataset:
    """Load MNIST from the first source that has it.

    The sources, in order: `path`, ``$TINYGRAD_MNIST_DATA``, the per-user cache, the mirrors, synthetic digits.

    If a folder is given, no other source is tried, and nothing is written to it. The files may lie in it as
    torchvision, Kaggle and Keras leave them. It may hold any data set of 28×28 images with labels 0 to 9, such as
    Fashion-MNIST, of at most 700,000 images for training and for test (550 MB each); `load_idx_folder` loads other
    ones. Data from the cache or a mirror is MNIST itself, verified by SHA-256, and takes 64 MiB at most; a download is
    stored in the cache if that is writable. A file whose header promises anything else is refused before memory is
    allocated for its values. What is no regular file, such as a pipe, is not opened. Symbolic links in the cache are
    read, never written through. Temporary files that killed processes have left there are deleted, unless a process
    writes to it at the moment (not on Windows).

    Parameters
    ----------
    path : str or PathLike, optional
        Folder with the four IDX files under their usual names, raw or gzip, in it or in ``MNIST/raw``, ``raw`` or
        ``archive``; a folder with ``mnist.npz``, or that file; or ``"synthetic"``.
    fallback : bool
        If no data is found, return synthetic digits (True) or raise an error (False).
    mirrors : sequence of str
        Base addresses, tried in this order. Empty: the network is not used.
    timeout : float
        Seconds to wait for a connection or for the next bytes; a whole file may take 30 times as long.
    remember : bool
        If the folder given holds MNIST itself in gzip files, store its arrays and the SHA-256 of these files in the
        per-user cache, if that is writable. The next time that files with this SHA-256 are found in a folder, they are
        not unpacked: the arrays come from the cache, verified as always.

    Returns
    -------
    Dataset
        Show its `source` to the user.

    Raises
    ------
    FileNotFoundError
        If the folder given lacks any of the files.
    IdxError
        If a file in the given folder is damaged, or the files do not belong together.
    DataUnavailableError
        If no source has the data and `fallback` is False.

    Examples
    --------
    >>> data = find_mnist("synthetic")
    >>> data.images.shape, data.synthetic, data.source
    ((60000, 28, 28), True, 'SYNTHETIC DIGITS, not MNIST (asked for by name)')
    """
    timeout = real("find_mnist", "timeout", timeout, above=0, most=MAX_TIMEOUT)
    given = path if path is not None else os.environ.get("TINYGRAD_MNIST_DATA") or None
    if given == "synthetic":
        return _synthetic("asked for by name")
    if given is not None:
        how = "given" if path is not None else "from TINYGRAD_MNIST_DATA"
        return _from_folder(Path(os.path.expanduser(given)), how, _Packed() if remember else None)
    try:
        return _from_cache_or_mirrors(cache_dir(), mirrors, timeout)
    except DataUnavailableError as error:
        if not fallback:
            raise
        return _synthetic(str(error))


def cache_dir() -> Path:
    """Return the folder of downloads: ``$TINYGRAD_MNIST_CACHE``, or the per-user cache of the platform.

    It need not exist.

    Raises
    ------
    DataUnavailableError
        If the home folder cannot be determined.

    Examples
    --------
    >>> cache_dir().is_absolute()
    True
    """
    try:
        if chosen := os.environ.get("TINYGRAD_MNIST_CACHE"):
            return Path(chosen).expanduser().absolute()
        home = Path.home()
    except RuntimeError as error:
        raise DataUnavailableError(f"{error} Set TINYGRAD_MNIST_CACHE to a folder. {REMEDY}") from error
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "tinygrad_mnist" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "tinygrad_mnist"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else home / ".cache") / "tinygrad_mnist"


def _synthetic(reason: str) -> Dataset:
    train, test = synthetic_digits(60_000, np.random.default_rng(0)), synthetic_digits(10_000, np.random.default_rng(1))
    return Dataset._make([*train, *test, f"SYNTHETIC DIGITS, not MNIST ({reason})", True])


def _from_folder(folder: Path, how: str, packed: _Packed | None) -> Dataset:
    recall = packed.recall if packed else lambda files: None
    try:
        arrays, names, place = read_folder(folder, list(DIGESTS), _check_headers, recall)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder} (the MNIST folder {how}) {error}. {REMEDY}") from None
    if packed and packed.recalled:
        return Dataset._make([*arrays, f"MNIST from {place} (the folder {how})", False])
    _check_headers([(array.shape, array.dtype) for array in arrays], names)  # files may change while they are read
    for labels, name in zip(arrays[1::2], names[1::2], strict=True):
        check_labels(labels, name, most=9)
    fits = all(array.nbytes <= MAX_BYTES for array in arrays)
    original = fits and on_threads(_sha256, arrays) == list(DIGESTS.values())
    if original and packed:
        packed.remember(arrays)
    kind = "MNIST" if original else "DATA OF THE SHAPE OF MNIST, not MNIST itself,"
    return Dataset._make([*arrays, f"{kind} from {place} (the folder {how})", False])


class _Packed:
    """What gzip files in folders hold, if it is MNIST itself: arrays in the cache in place of those to be unpacked.

    The file PACKED in the cache has a line for each set of files that held MNIST: the SHA-256 of the SHA-256 of each.
    What it says is used for files with these digests alone, and what they hold is verified by the digests of MNIST.
    """

    def __init__(self) -> None:
        self.key: str | None = None  # of the gzip files that were found
        self.recalled = False

    def recall(self, found: Sequence[Path]) -> list[Array] | None:
        """Return the arrays in these files if they are known."""
        try:
            if not all(file.suffix == ".gz" and file.stat().st_size <= MAX_BYTES for file in found):
                return None
            key = hashlib.sha256("".join(on_threads(_file_sha256, found)).encode()).hexdigest()
            self.key = key
            if key not in self._known():
                return None
            arrays = _decoded(cache_dir() / "mnist.npz")
        except (OSError, IdxError) as error:
            log.info("nothing is known about the files of the folder (%s)", error)
            return None
        self.recalled = True
        return arrays

    def remember(self, arrays: Sequence[Array]) -> None:
        """Store the arrays, if they come from gzip files, and those as known."""
        if self.key is None:
            return
        with suppress(DataUnavailableError):  # there is no home folder
            folder = cache_dir()
            _remove_leftovers(folder)
            _save_decoded(folder, dict(zip(DIGESTS, arrays, strict=True)), logging.INFO)
            known = [key for key in self._known() if key != self.key][1 - MAX_PACKED :]
            _save(folder / PACKED, "".join(f"{key}\n" for key in [*known, self.key]).encode(), logging.INFO)

    def _known(self) -> list[str]:
        try:
            return read_whole(cache_dir() / PACKED, 65 * MAX_PACKED).decode("ascii").split()
        except (OSError, ValueError):  # none yet, or another program's
            return []


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_headers(headers: Sequence[Header], names: Sequence[str]) -> None:
    """Raise an IdxError unless these are images and labels, for training and test, that belong together."""
    for i in (0, 2):
        check_pair(headers[i : i + 2], names[i : i + 2], (28, 28), MAX_IMAGES)


def _from_cache_or_mirrors(folder: Path, mirrors: Sequence[str], timeout: float) -> Dataset:
    _remove_leftovers(folder)
    decoded, cached = folder / "mnist.npz", f"MNIST from {folder} (the per-user cache)"
    try:
        return Dataset._make([*_decoded(decoded), cached, False])
    except FileNotFoundError:
        pass
    except (OSError, IdxError) as error:
        log.warning("%s is unusable and will be replaced (%s: %s)", decoded, type(error).__name__, error)

    arrays: dict[str, Any] = {name: array for name in DIGESTS if (array := _cached(folder, name)) is not None}
    reasons, used = [f"the cache {folder} holds {len(arrays)} of the 4 files"], []
    for mirror in mirrors:
        try:
            for name in [name for name in DIGESTS if name not in arrays]:
                url = f"{mirror.rstrip('/')}/{name}.gz"
                body = download(url, timeout, MAX_BYTES)
                arrays[name] = _verified(name, decode_idx(io.BytesIO(body), "content", MAX_BYTES), "content")
                _save(folder / f"{name}.gz", body)
                used.append(mirror)
        except (OSError, ValueError) as error:
            reason = f"{url}: {error}"
            reasons.append("".join(c if c.isprintable() else " " for c in reason))  # one line, whatever the mirror sent
    if len(arrays) < len(DIGESTS):
        raise DataUnavailableError(f"MNIST was not found: {'; '.join(reasons)}. {REMEDY}")
    _save_decoded(folder, arrays)
    source = f"MNIST from {', '.join(dict.fromkeys(used))} (downloaded)" if used else cached
    return Dataset._make([*(arrays[name] for name in DIGESTS), source, False])


def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of `_save` in processes that were killed, unless some process is writing now."""
    names = {"mnist.npz", PACKED, *(f"{name}.gz" for name in DIGESTS)}
    with suppress(OSError), lock_folder(folder, exclusive=True):
        for part in leftovers(folder):
            if part.name.rsplit(".", 2)[0] in names and part.is_file():
                part.unlink()


def _decoded(file: Path) -> list[Array]:
    """Read the arrays of MNIST from the file in the cache that holds them as they are."""
    found = _mapped(file) or read_npz(file, list(DIGESTS), _check_headers, MAX_BYTES)[0]
    return on_threads(_verified, DIGESTS, found, [str(file)] * len(DIGESTS))


def _mapped(file: Path) -> list[Array] | None:
    """Map the arrays of an uncompressed .npz file into memory, to be copied where they are written to.

    That takes half the time of reading. Nothing is mapped (None) where anything is not as `_save_decoded` writes it,
    and on Windows, where the file could not be replaced then.
    """
    if sys.platform == "win32" or not file.is_file() or file.stat().st_size > MAX_BYTES:
        return None
    from zipfile import BadZipFile, ZipFile  # imported here because it takes 10 ms

    arrays = []
    try:
        with ZipFile(file) as archive, open(file, "rb") as content:
            for name in DIGESTS:
                member = archive.getinfo(f"{name}.npy")
                content.seek(member.header_offset + 26)  # where a local header has the lengths of its last two fields
                content.seek(sum(struct.unpack("<2H", content.read(4))), os.SEEK_CUR)
                begin, header = content.tell(), NPY_HEADER.match(content.read(256))
                if header is None or member.compress_type:
                    return None
                shape = tuple(int(length) for length in header[1].rstrip(b",").split(b","))
                arrays.append(np.memmap(content, np.uint8, "c", begin + header.end(), shape).view(np.ndarray))
    except (OSError, KeyError, ValueError, OverflowError, BadZipFile, struct.error, NotImplementedError):
        return None
    return arrays


def _save_decoded(folder: Path, arrays: dict[str, Any], level: int = logging.WARNING) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    _save(folder / "mnist.npz", buffer.getbuffer(), level)


def _cached(folder: Path, name: str) -> Array | None:
    for file in files(folder, name):
        try:
            return _verified(name, read_idx(file, MAX_BYTES), str(file))
        except (OSError, IdxError) as error:
            log.warning("ignored in the cache: %s", error)
    return None


def _sha256(array: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()  # of the uncompressed IDX file
    for part in idx_parts(array):
        digest.update(part)
    return digest.hexdigest()


def _verified(name: str, array: npt.NDArray[Any], where: str) -> Array:
    if (found := _sha256(array)) != DIGESTS[name]:
        raise IdxError(f"{where}: not the {name} of MNIST; uncompressed SHA-256 is {found}, expected {DIGESTS[name]}")
    return array


def _save(path: Path, data: bytes | memoryview, level: int = logging.WARNING) -> None:
    """Write a file of the cache atomically, best effort: a failure is only logged. A link is replaced, not followed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock_folder(path.parent):
            write_atomically(path, data, follow_links=False)
    except OSError as error:
        log.log(level, "cannot write %s (%s); the data is used from memory", path, error)
