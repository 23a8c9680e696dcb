"""MNIST and other sets of its shape: from a folder, the per-user cache or the public mirrors, or synthetic."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..storage.files import write_atomically
from .idx import IdxError, decode_idx, encode_idx, read_idx

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
MAX_BYTES = 64 << 20  # of one MNIST file, compressed or not
SLOWEST = 30  # a download may take this many timeouts in all
REMEDY = "Give a folder with the four IDX files (--data DIR, TINYGRAD_MNIST_DATA=DIR) or use --data synthetic"
log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]


class DataUnavailableError(OSError):
    """MNIST is neither in the cache nor on any mirror. The message holds every reason and the remedies."""


class Dataset(NamedTuple):
    """Ten classes of grey 28×28 images, for training and for test, and where they come from."""

    images: Array  # (n, 28, 28)
    labels: Array  # (n,), each 0 to 9
    test_images: Array
    test_labels: Array
    source: str  # one line to show to people
    synthetic: bool  # True: not real data, its accuracy says nothing about MNIST


def load_mnist(
    path: str | os.PathLike[str] | None = None, *, mirrors: Sequence[str] = MIRRORS, timeout: float = 20.0
) -> tuple[Array, Array, Array, Array]:
    """MNIST as four arrays. Never synthetic digits, unless they are asked for by name.

    Parameters, errors and order of the sources are those of `find_mnist`; where that falls back on synthetic digits,
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
) -> Dataset:
    """MNIST from the first of: `path`, ``$TINYGRAD_MNIST_DATA``, the per-user cache, the mirrors, synthetic digits.

    A folder that is given is the source or an error: nothing else is tried, and nothing is written to it. Its images
    must be 28×28 with labels 0 to 9; how many, and of what (Fashion-MNIST, say), is up to it. What comes from the cache
    or a mirror is MNIST, verified by SHA-256; a download is kept in the cache if that can be written.

    Parameters
    ----------
    path : str or PathLike, optional
        Folder with the four IDX files under their usual names, raw or gzip; or ``"synthetic"``.
    fallback : bool
        With no data to be had, return synthetic digits (True) or raise (False).
    mirrors : sequence of str
        Base addresses, tried in this order. Empty: no network.
    timeout : float
        Seconds to wait for a connection or for the next bytes; a whole file may take 30 times as long.

    Returns
    -------
    Dataset
        Show its `source` to the user.

    Raises
    ------
    FileNotFoundError
        If the folder given lacks any of the files.
    IdxError
        If a file in the folder given is damaged, or the files do not fit together.
    DataUnavailableError
        If nothing was found and `fallback` is False.

    Examples
    --------
    >>> data = find_mnist("synthetic")
    >>> data.images.shape, data.synthetic, data.source
    ((60000, 28, 28), True, 'SYNTHETIC DIGITS, not MNIST (asked for by name)')
    """
    given = path if path is not None else os.environ.get("TINYGRAD_MNIST_DATA") or None
    if given == "synthetic":
        return _synthetic("asked for by name")
    if given is not None:
        return _from_folder(
            Path(os.path.expanduser(given)), "given" if path is not None else "from TINYGRAD_MNIST_DATA"
        )
    try:
        return _from_cache_or_mirrors(cache_dir(), mirrors, timeout)
    except DataUnavailableError as error:
        if not fallback:
            raise
        return _synthetic(str(error))


def cache_dir() -> Path:
    """Where downloads are kept: ``$TINYGRAD_MNIST_CACHE``, or the platform's per-user cache. It need not exist.

    Raises
    ------
    DataUnavailableError
        If there is no such home folder.

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
        raise DataUnavailableError(f"{error} Name a cache folder in TINYGRAD_MNIST_CACHE. {REMEDY}") from error
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "tinygrad_mnist" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "tinygrad_mnist"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else home / ".cache") / "tinygrad_mnist"


def _synthetic(reason: str) -> Dataset:
    from .synthetic import synthetic_digits

    train, test = synthetic_digits(60_000, np.random.default_rng(0)), synthetic_digits(10_000, np.random.default_rng(1))
    return Dataset._make([*train, *test, f"SYNTHETIC DIGITS, not MNIST ({reason})", True])


def _files(folder: Path, name: str) -> Iterator[Path]:
    """The files in `folder` that go by this name: raw first, then gzip; with the dash, then with the dot."""
    for variant in (name, name.replace("-idx", ".idx")):
        yield from (file for file in (folder / variant, folder / f"{variant}.gz") if os.path.isfile(file))


def _from_folder(folder: Path, how: str) -> Dataset:
    files = {name: file for name in DIGESTS if (file := next(_files(folder, name), None))}
    if missing := [name for name in DIGESTS if name not in files]:
        problem = f"lacks {', '.join(missing)} (each with or without .gz)" if folder.is_dir() else "is not a folder"
        raise FileNotFoundError(f"{folder} (the MNIST folder {how}) {problem}. {REMEDY}")
    paths = list(files.values())
    arrays = [read_idx(file) for file in paths]
    for i in (0, 2):
        _check_pair(arrays[i], arrays[i + 1], paths[i], paths[i + 1])
    original = all(_sha256(array) == digest for array, digest in zip(arrays, DIGESTS.values(), strict=True))
    kind = "MNIST" if original else "DATA OF THE SHAPE OF MNIST, not MNIST itself,"
    return Dataset._make([*arrays, f"{kind} from {folder} (the folder {how})", False])


def _check_pair(images: npt.NDArray[Any], labels: npt.NDArray[Any], images_file: Path, labels_file: Path) -> None:
    if images.ndim == 1 and labels.ndim == 3:
        raise IdxError(f"{images_file} holds labels and {labels_file} images: they are swapped; exchange their names")
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise IdxError(f"{images_file}: found {images.dtype} {images.shape}; expected images, uint8 (n > 0, 28, 28)")
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise IdxError(f"{labels_file}: found {labels.dtype} {labels.shape}; expected labels, uint8 (n,)")
    if len(images) != len(labels):
        raise IdxError(
            f"{images_file} holds {len(images)} images, {labels_file} {len(labels)} labels; expected one each"
        )
    if labels.max() > 9:
        worst = int(labels.argmax())
        raise IdxError(f"{labels_file}: label {labels[worst]} at position {worst}; expected 0 to 9")


def _from_cache_or_mirrors(folder: Path, mirrors: Sequence[str], timeout: float) -> Dataset:
    decoded, cached = folder / "mnist.npz", f"MNIST from {folder} (the per-user cache)"
    try:
        with open(decoded, "rb") as file, np.load(file, allow_pickle=False) as members:
            return Dataset._make([*(_verified(name, members[name], str(decoded)) for name in DIGESTS), cached, False])
    except FileNotFoundError:
        pass
    except Exception as error:  # on damaged bytes, NumPy's and zipfile's parsers raise nearly anything
        log.warning("%s is unusable and will be made anew (%s: %s)", decoded, type(error).__name__, error)

    arrays: dict[str, Any] = {name: array for name in DIGESTS if (array := _cached(folder, name)) is not None}
    reasons, used = [f"the cache {folder} holds {len(arrays)} of the 4 files"], []
    for mirror in mirrors:
        try:
            for name in [name for name in DIGESTS if name not in arrays]:
                url = f"{mirror.rstrip('/')}/{name}.gz"
                body = _download(url, timeout)
                arrays[name] = _verified(name, decode_idx(io.BytesIO(body), "content", MAX_BYTES), "content")
                _save(folder / f"{name}.gz", body)
                used.append(mirror)
        except (OSError, ValueError) as error:
            reasons.append(
                "".join(c if c.isprintable() else " " for c in f"{url}: {error}")
            )  # one line, whatever the mirror sent
    if len(arrays) < len(DIGESTS):
        raise DataUnavailableError(f"no MNIST to be had: {'; '.join(reasons)}. {REMEDY}")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    _save(decoded, buffer.getbuffer())
    source = f"MNIST from {', '.join(dict.fromkeys(used))} (downloaded)" if used else cached
    return Dataset._make([*(arrays[name] for name in DIGESTS), source, False])


def _cached(folder: Path, name: str) -> Array | None:
    for file in _files(folder, name):
        try:
            return _verified(name, read_idx(file, MAX_BYTES), str(file))
        except (OSError, IdxError) as error:
            log.warning("ignored in the cache: %s", error)
    return None


def _sha256(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(encode_idx(array)).hexdigest()  # that of the uncompressed IDX file: one encoding per array


def _verified(name: str, array: npt.NDArray[Any], where: str) -> Array:
    if (found := _sha256(array)) != DIGESTS[name]:
        raise IdxError(f"{where}: not the {name} of MNIST; uncompressed SHA-256 is {found}, expected {DIGESTS[name]}")
    return array


def _download(url: str, timeout: float) -> bytes:
    """What is at the address. The work is done by a thread, which after the last deadline is left to itself: no timeout
    of a socket
    ends a slow name server, or headers that never do."""
    body, over, errors = bytearray(), threading.Event(), []

    def work() -> None:
        try:
            _receive(url, timeout, body, over)
        except (OSError, ValueError) as error:
            errors.append(error)
        except Exception as error:  # HTTPException; OverflowError for a port, MemoryError for a length
            errors.append(OSError(f"{type(error).__name__}: {error}"))

    print(f"downloading {url} ", end="", file=sys.stderr, flush=True)
    thread, end = threading.Thread(target=work, daemon=True), time.monotonic() + SLOWEST * timeout
    try:
        thread.start()
        while thread.is_alive() and (left := end - time.monotonic()) > 0:
            thread.join(min(left, 0.2))  # in steps, because on Windows Ctrl+C waits for the end of each
        if thread.is_alive():
            raise TimeoutError(f"not complete after {SLOWEST * timeout:g} s")
    finally:
        over.set()
        print(f" {len(body) / 1e6:.1f} MB received", file=sys.stderr)
    if errors:
        raise errors[0]
    return bytes(body)


def _receive(url: str, timeout: float, body: bytearray, over: threading.Event) -> None:
    import urllib.request  # here, because importing it takes 25 ms and hardly a process downloads anything
    from http.client import HTTPResponse

    class Shorten(urllib.request.BaseHandler):
        """Close what comes with an error or a redirection, which would be read to the end first, and may have none."""

        def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
            if not 200 <= response.status < 300:
                response.close()
            return response

        https_response = http_response

    with urllib.request.build_opener(Shorten).open(url, timeout=timeout) as response:
        while (chunk := response.read1(1 << 16)) and not over.is_set():
            body += chunk
            if len(body) % (1 << 20) < len(chunk):  # one dot per MiB
                print(".", end="", file=sys.stderr, flush=True)
            if len(body) > MAX_BYTES:
                raise OSError(f"longer than {MAX_BYTES} bytes")


def _save(path: Path, data: bytes | memoryview) -> None:
    """Write all of it or nothing; to fail is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        log.warning("cannot write %s (%s); the data is used from memory", path, error)
