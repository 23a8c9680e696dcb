"""Where the data comes from: the order of the sources, mirrors that fail in every way, caches that are damaged."""

from __future__ import annotations

import doctest
import gzip
import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from damage import peak_below
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygrad_mnist.data import (
    Dataset,
    DataUnavailableError,
    IdxError,
    cache_dir,
    download,
    encode_idx,
    find_mnist,
    folders,
    load_mnist,
    mnist,
)
from tinygrad_mnist.storage import files
from tinygrad_mnist.storage.files import leftovers

REAL = os.environ.get("TINYGRAD_MNIST_DATA")  # the tests below run without it
NAMES = tuple(mnist.DIGESTS)
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES
Files = dict[str, npt.NDArray[Any]]


def small_set(seed: int = 0) -> Files:
    """A set of MNIST's shape with few rows."""
    rng = np.random.default_rng(seed)
    arrays = [(rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)) for n in (7, 3)]
    return dict(zip(NAMES, [*arrays[0], *arrays[1]], strict=True))


SET = small_set()
BODIES = {f"{name}.gz": gzip.compress(encode_idx(array), mtime=0) for name, array in SET.items()}


def put(
    folder: Path, files: Files = SET, name: Callable[[str], str] = str, pack: Callable[[bytes], bytes] = bytes
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in files.items():
        (folder / name(file)).write_bytes(pack(encode_idx(array)))
    return folder


def assert_is(data: Dataset | Sequence[npt.NDArray[np.uint8]], files: Files = SET) -> None:
    for found, expected in zip(data[:4], files.values(), strict=True):
        assert isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.flags.writeable
        np.testing.assert_array_equal(found, expected)


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache or settings, or a host other than this one; SET is the MNIST to be found."""

    def local(host: str, *rest: Any, **options: Any) -> Any:
        assert host.encode("idna") == b"127.0.0.1"
        return getaddrinfo(host, *rest, **options)

    def digits(n: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        return np.zeros((n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("NO_PROXY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TINYGRAD_MNIST_DATA", raising=False)
    monkeypatch.setenv("TINYGRAD_MNIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "DIGESTS", {n: hashlib.sha256(encode_idx(a)).hexdigest() for n, a in SET.items()})
    monkeypatch.setattr(mnist, "synthetic_digits", digits)
    return tmp_path / "cache"


class Mirrors(ThreadingHTTPServer):
    """One mirror for each way to answer: its address is ``mirrors["good"]`` and so on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.requests: list[str] = []
        self.over = threading.Event()
        self.meeting = threading.Barrier(2, timeout=60)

    def __getitem__(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{kind}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client may hang up."""


REDIRECTIONS = {
    "moved": "/good/",
    "flood": "/good/",  # and the page that says so has no end
    "circle": "/circle/",
    "to-file": "file:///etc/",
    "to-port": "http://127.0.0.1:99999999999999999999/",
    "to-brackets": "http://[/",
}
ENDLESS = ("flood", "endless")
GARBLED = "\x1b[2J\rall is well"


class Answer(BaseHTTPRequestHandler):
    server: Mirrors

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        _, kind, name = self.path.split("/")
        body = BODIES[name]
        if kind == "raw":
            body = gzip.decompress(body)
        if kind == "wrong":
            body = gzip.compress(encode_idx(small_set(1)[name.removesuffix(".gz")]))
        if kind == "html":
            body = b"<html>Sign in to the hotel's network</html>"
        if kind == "damaged":
            body = body[:-8] + bytes([body[-8] ^ 1]) + body[-7:]
        if kind == "long":
            body = gzip.compress(gzip.decompress(body) + b"more")
        if kind == "partial":
            kind = "lost" if name.startswith("t10k") else "good"
        if kind == "meeting":
            self.server.meeting.wait()
        if kind in ("silent", "late"):
            self.server.over.wait(10 if kind == "silent" else 0.05)
        while kind == "greeting" and not self.server.over.wait(0.01):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if kind == "mute":
            return
        status = 302 if kind in REDIRECTIONS else {"lost": 404, "busy": 503, "garbled": 500}.get(kind, 200)
        self.send_response(status, GARBLED if kind == "garbled" else None)
        if kind in REDIRECTIONS:
            self.send_header("Location", REDIRECTIONS[kind] + name)
        if kind == "chunk":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n" % len(body) + body[:9]
        elif kind != "unsized":
            length = {"short": len(body) - 9, "huge": 1 << 62}.get(kind, len(body))
            self.send_header("Content-Length", str(length if kind not in ENDLESS else 1 << 40))
        self.end_headers()
        if kind == "slow":
            self.server.over.wait(10)
        elif kind in ("cut", "reset"):
            self.wfile.write(body[: len(body) // 2])
        elif kind == "drip" or kind in ENDLESS:
            while not self.server.over.wait(0.01 if kind == "drip" else 0):
                self.wfile.write(bytes(1 if kind == "drip" else 1 << 16))
        else:
            self.wfile.write(body)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it holds the socket, too
            self.connection.close()  # by RST, not FIN

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def mirrors() -> Iterator[Mirrors]:
    with Mirrors() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def refused() -> Iterator[str]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening
        yield f"127.0.0.1:{unused.getsockname()[1]}"


CHILD = """
import os, resource, signal, sys, time
from tinygrad_mnist.storage import files
from tinygrad_mnist.data import encode_idx, mnist
mnist.DIGESTS = {digests}
{prelude}
sys.stdout.buffer.write(b"".join(map(encode_idx, mnist.load_mnist(mirrors=sys.argv[1:]))))
"""
LOADED = b"".join(map(encode_idx, SET.values()))
posix = pytest.mark.skipif(
    os.name != "posix", reason="the processes are killed with SIGKILL, and their files limited with resource"
)


def process(mirror: str, prelude: str = "") -> subprocess.Popen[bytes]:
    """Another process that loads SET, and writes it to its standard output."""
    command = [sys.executable, "-W", "error", "-c", CHILD.format(digests=mnist.DIGESTS, prelude=prelude), mirror]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


# A folder that is given -----------------------------------------------------------------------------------------------
def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


@pytest.mark.parametrize("rename", [str, dotted])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_folder_under_every_usual_naming(
    tmp_path: Path, rename: Callable[[str], str], pack: Callable[[bytes], bytes]
) -> None:
    suffix = ".gz" if pack is gzip.compress else ""
    folder = put(tmp_path / "set", name=lambda name: rename(name) + suffix, pack=pack)
    before = listing(folder)
    assert_is(load_mnist(folder, mirrors=()))
    assert_is(load_mnist(str(folder), mirrors=()))
    assert listing(folder) == before and not cache_dir().exists()


def test_a_folder_given_as_argument_beats_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = small_set(1)
    monkeypatch.setenv("TINYGRAD_MNIST_DATA", str(put(tmp_path / "env", other)))
    data = find_mnist(put(tmp_path / "arg"))
    assert_is(data)
    assert data.source == f"MNIST from {tmp_path / 'arg'} (the folder given)" and not data.synthetic
    data = find_mnist()
    assert_is(data, other)
    assert data.source == (
        f"DATA OF THE SHAPE OF MNIST, not MNIST itself, from {tmp_path / 'env'} (the folder from TINYGRAD_MNIST_DATA)"
    )


def test_home_is_expanded_and_an_empty_setting_is_none(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    put(tmp_path / "set")
    assert_is(load_mnist("~/set"))
    monkeypatch.setenv("TINYGRAD_MNIST_DATA", "")
    put(cache)
    assert str(cache) in find_mnist(mirrors=()).source


@pytest.mark.parametrize("missing", [[IMAGES], [LABELS, TEST_LABELS], list(NAMES)])
@pytest.mark.parametrize("by_environment", [False, True])
def test_an_incomplete_folder_is_an_error_that_lists_what_is_missing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str], by_environment: bool
) -> None:
    put(cache)  # would be a way out, and must not be taken
    folder = put(tmp_path / "set", {name: array for name, array in SET.items() if name not in missing})
    if by_environment:
        monkeypatch.setenv("TINYGRAD_MNIST_DATA", str(folder))
    with pytest.raises(
        FileNotFoundError, match=re.escape(f"lacks {', '.join(missing)} (each with or without .gz); looked ")
    ):
        find_mnist(None if by_environment else folder)


def test_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(
            FileNotFoundError,
            match=re.escape(f"{path} (the MNIST folder given) is not a folder, nor an .npz file. Pass path="),
        ):
            find_mnist(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({IMAGES: SET[LABELS], LABELS: SET[IMAGES]}, f"{IMAGES} holds labels and .*{LABELS} images: they are swapped"),
        (
            {TEST_IMAGES: SET[TEST_LABELS]},
            rf"{TEST_IMAGES}: found uint8 \(3,\); expected images, uint8 \(n > 0, 28, 28\)",
        ),
        ({IMAGES: SET[IMAGES].astype(np.int16)}, rf"{IMAGES}: found int16 \(7, 28, 28\)"),
        ({IMAGES: SET[IMAGES][:, 1:]}, rf"{IMAGES}: found uint8 \(7, 27, 28\)"),
        ({IMAGES: SET[IMAGES][:0], LABELS: SET[LABELS][:0]}, rf"{IMAGES}: found uint8 \(0, 28, 28\)"),
        ({LABELS: SET[LABELS][:, None]}, rf"{LABELS}: found uint8 \(7, 1\); expected labels, uint8 \(n,\)"),
        ({LABELS: SET[LABELS].astype(np.int32)}, rf"{LABELS}: found int32 \(7,\)"),
        ({LABELS: SET[LABELS][:-1]}, f"{IMAGES} holds 7 images, .*{LABELS} 6 labels"),
        ({TEST_LABELS: np.array([9, 23, 0], np.uint8)}, f"{TEST_LABELS}: label 23 at position 1; expected 0 to 9"),
    ],
)
def test_files_that_do_not_fit_together_are_named(tmp_path: Path, changes: Files, message: str) -> None:
    with pytest.raises(IdxError, match=message):
        find_mnist(put(tmp_path, SET | changes))


def test_a_damaged_file_in_a_folder_is_an_error(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / LABELS).write_bytes(b"\0\0\x08\x01\0\0\0\x09")
    with pytest.raises(IdxError, match=f"{LABELS}: the header promises 9 bytes .*, more than a file of this size"):
        find_mnist(tmp_path)


def idx_files(folder: Path) -> Path:
    return put(folder, name=lambda name: f"{name}.gz", pack=gzip.compress)


def test_gzip_files_that_are_remembered_are_not_unpacked_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listing(idx_files(tmp_path / "set"))
    first = find_mnist(tmp_path / "set", remember=True)
    assert_is(first)
    assert sorted(listing(cache)) == ["mnist.npz", "packed.txt"] and listing(tmp_path / "set") == before
    unpacked: list[Path] = []
    read = folders.read_idx
    monkeypatch.setattr(folders, "read_idx", lambda file: unpacked.append(file) or read(file))
    assert_is(again := find_mnist(tmp_path / "set", remember=True))
    assert again.source == first.source == f"MNIST from {tmp_path / 'set'} (the folder given)" and not unpacked
    assert_is(find_mnist(tmp_path / "set"))
    assert len(unpacked) == 4  # nothing is taken from the cache unless it is asked for
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert str(tmp_path / "copy") in find_mnist(tmp_path / "copy", remember=True).source
    assert len(unpacked) == 4
    assert_is(find_mnist(mirrors=()))  # what it stored is a cache like any other


def test_other_files_than_those_remembered_are_unpacked(tmp_path: Path, cache: Path) -> None:
    find_mnist(idx_files(tmp_path / "set"), remember=True)
    before, other = listing(cache), SET | {TEST_LABELS: np.uint8([9, 8, 7])}
    (tmp_path / "set" / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(encode_idx(other[TEST_LABELS])))
    data = find_mnist(tmp_path / "set", remember=True)
    assert_is(data, other)
    assert data.source.startswith("DATA OF THE SHAPE OF MNIST") and listing(cache) == before
    (tmp_path / "set" / f"{TEST_LABELS}.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(IdxError, match=f"{TEST_LABELS}.gz: the gzip data is damaged"):
        find_mnist(tmp_path / "set", remember=True)
    assert_is(find_mnist(put(tmp_path / "raw"), remember=True))  # reading these is as fast
    assert listing(cache) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_memory_of_gzip_files_is_never_believed(tmp_path: Path, cache: Path, data: st.DataObject) -> None:
    find_mnist(idx_files(tmp_path / "set"), remember=True)
    name = data.draw(st.sampled_from(["mnist.npz", "packed.txt"]))
    content = bytearray((cache / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (cache / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(2):
        assert_is(find_mnist(tmp_path / "set", remember=True))
    assert_is(find_mnist(mirrors=()))  # repaired
    shutil.rmtree(cache)


def test_only_so_many_files_are_remembered(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MAX_PACKED", 2)
    known = []
    for level in (1, 5, 9):
        folder = put(
            tmp_path / str(level), name=lambda name: f"{name}.gz", pack=partial(gzip.compress, compresslevel=level)
        )
        find_mnist(folder, remember=True)
        known.append((cache / "packed.txt").read_text().split())
    assert [len(keys) for keys in known] == [1, 2, 2]
    assert len({*known[1], *known[2]}) == 3 and known[2][0] == known[1][1]


@pytest.mark.parametrize("kind", ["file", "homeless"])
def test_a_folder_serves_where_nothing_can_be_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    if kind == "file":
        cache.touch()
    else:
        monkeypatch.setenv("TINYGRAD_MNIST_CACHE", "")
        monkeypatch.setattr(Path, "home", homeless)
    idx_files(tmp_path / "set")
    for _ in range(2):
        assert_is(find_mnist(tmp_path / "set", remember=True))
    assert not caplog.records  # the user asked for the folder, not for the cache


# Synthetic digits -----------------------------------------------------------------------------------------------------
def test_synthetic_digits_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data = find_mnist("synthetic", fallback=False)
    assert data.synthetic and data.source == "SYNTHETIC DIGITS, not MNIST (asked for by name)"
    assert data.images.shape == (60000, 28, 28) and data.test_images.shape == (10000, 28, 28)
    assert data.labels.shape == (60000,) and not np.array_equal(data.labels[:10000], data.test_labels)
    monkeypatch.setenv("TINYGRAD_MNIST_DATA", "synthetic")
    np.testing.assert_array_equal(load_mnist()[1], data.labels)


def test_synthetic_digits_stand_in_and_say_why(cache: Path) -> None:
    data = find_mnist(mirrors=())
    assert data.synthetic and data.source.startswith(
        f"SYNTHETIC DIGITS, not MNIST (MNIST was not found: the cache {cache} holds 0 of the 4 files. Pass path="
    )
    with pytest.raises(DataUnavailableError, match="set TINYGRAD_MNIST_DATA to the folder"):
        load_mnist(mirrors=())


# Mirrors --------------------------------------------------------------------------------------------------------------
def test_a_mirror_fills_the_cache_which_then_needs_none(
    cache: Path, mirrors: Mirrors, capsys: pytest.CaptureFixture[str]
) -> None:
    data = find_mnist(mirrors=[mirrors["good"], mirrors["raw"]])
    assert_is(data)
    assert data.source == f"MNIST from {mirrors['good']} (downloaded)" and not data.synthetic
    progress = capsys.readouterr().err
    assert all(f"downloading {mirrors['good']}{name}.gz " in progress for name in NAMES)
    assert sorted(listing(cache)) == sorted([*BODIES, "mnist.npz"])
    assert {name: body for name, body in listing(cache).items() if name != "mnist.npz"} == BODIES
    assert len(mirrors.requests) == 4
    for file in BODIES:
        (cache / file).unlink()  # the decoded arrays are enough
    data = find_mnist(mirrors=[mirrors["good"]])
    assert_is(data)
    assert data.source == f"MNIST from {cache} (the per-user cache)" and len(mirrors.requests) == 4


BAD = {
    "lost": "HTTP Error 404",
    "busy": "HTTP Error 503",
    "wrong": "content: not the train-images-idx3-ubyte of MNIST; uncompressed SHA-256 is",
    "html": "content: not an IDX file; it begins with 3c 68 74 6d",
    "damaged": "content: the gzip data is damaged",
    "cut": "content: the gzip data is damaged or cut off",
    "short": "content: the gzip data is damaged or cut off",
    "long": "more follow",
    "chunk": "IncompleteRead",
    "reset": "reset by peer",
    "mute": "closed connection without response",
    "silent": "timed out",
    "slow": "timed out",
    "drip": "not complete after 0.4 s",
    "greeting": "not complete after 0.4 s",
    "endless": "longer than 100000 bytes",
    "garbled": "HTTP Error 500:  [2J all is well",
    "circle": "infinite loop",
    "to-file": "Redirection to url 'file:///etc/train-images-idx3-ubyte.gz' is not allowed",
    "to-port": "",  # the words are up to the platform
    "to-brackets": "Invalid IPv6 URL",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_mirror_is_followed_by_the_next(
    cache: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(download, "MAX_TIMEOUTS", 2)
    monkeypatch.setattr(mnist, "MAX_BYTES", 100_000)
    waits = BAD[kind].startswith(("timed out", "not complete"))
    begin = time.monotonic()
    with pytest.raises(
        DataUnavailableError, match=re.escape(f"{mirrors[kind]}{IMAGES}.gz: ") + ".*" + re.escape(BAD[kind])
    ) as caught:
        load_mnist(mirrors=[mirrors[kind]], timeout=0.2 if waits else 10)
    assert time.monotonic() - begin < 8  # those who wait, wait for 10 s
    assert str(caught.value).isprintable()  # in one line, that is, and nothing that a terminal obeys
    assert not cache.exists()
    del mirrors.requests[:]
    assert_is(load_mnist(mirrors=[mirrors[kind], mirrors["good"]], timeout=0.5 if waits else 10))
    assert [path for path in mirrors.requests if kind not in path] == [f"/good/{name}" for name in BODIES]
    assert len(mirrors.requests) == 1 + 4 or kind == "circle"  # a mirror that failed is not asked again


@pytest.mark.parametrize("kind", ["moved", "flood", "late", "unsized", "huge", "raw"])
def test_a_mirror_may_answer_in_other_ways(cache: Path, mirrors: Mirrors, kind: str) -> None:
    assert_is(load_mnist(mirrors=[mirrors[kind]], timeout=10))
    assert sorted(listing(cache)) == sorted([*BODIES, "mnist.npz"])


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        ("", "unknown url type"),
        ("nonsense", "unknown url type"),
        ("gopher://127.0.0.1", "unknown url type: gopher"),
        ("http:", "no host given"),
        ("http://[", "Invalid IPv6 URL"),
        ("http://127.0.0.1:port", "InvalidURL: nonnumeric port"),
        ("http://127.0.0.1:99999999999999999999", ""),
        ("http://a..b", "label"),
        ("http://127.0.0.1/\n", "InvalidURL"),
        ("http://\ud800", "can't encode"),
        ("ftp://{refused}", "refused"),
        ("https://{refused}", "refused"),
        ("https://{served}", "SSL|timed out"),
        ("file:///nowhere", "No such file"),
    ],
)
def test_a_bad_address_is_followed_by_the_next(mirrors: Mirrors, refused: str, mirror: str, reason: str) -> None:
    mirror = mirror.format(refused=refused, served=f"127.0.0.1:{mirrors.server_port}")
    name = re.escape(re.sub("[\n\ud800]", " ", f"{mirror}/{IMAGES}.gz: "))
    with pytest.raises(DataUnavailableError, match=f"{name}.*({reason})") as caught:
        load_mnist(mirrors=[mirror], timeout=0.2)
    assert str(caught.value).isprintable()
    assert_is(load_mnist(mirrors=[mirror, mirrors["good"]], timeout=0.5))


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://{refused}", "refused"),
        ("http://{served}", "closed connection without response|Tunnel connection failed: 501"),
        ("http://127.0.0.1:port", "InvalidURL: nonnumeric port"),
    ],
)
def test_a_bad_proxy_is_named_for_each_mirror(
    mirrors: Mirrors, refused: str, monkeypatch: pytest.MonkeyPatch, proxy: str, reason: str
) -> None:
    monkeypatch.delenv("no_proxy")
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", proxy.format(refused=refused, served=f"127.0.0.1:{mirrors.server_port}"))
    with pytest.raises(DataUnavailableError, match=f"; http://a/{IMAGES}.gz: .*({reason}).*; https://b/.*({reason})"):
        load_mnist(mirrors=["http://a", "https://b"], timeout=10)


def test_all_mirrors_and_reasons_are_named(mirrors: Mirrors, refused: str) -> None:
    tried = [f"http://{refused}", mirrors["lost"], mirrors["html"]]
    with pytest.raises(DataUnavailableError) as caught:
        load_mnist(mirrors=tried, timeout=10)
    message = str(caught.value)
    positions = [message.index(f"{mirror.rstrip('/')}/{IMAGES}.gz: ") for mirror in tried]
    assert positions == sorted(positions) and "refused" in message and "\n" not in message


def test_what_one_mirror_has_is_kept_and_the_rest_comes_from_the_next(cache: Path, mirrors: Mirrors) -> None:
    with pytest.raises(DataUnavailableError, match=f"{TEST_IMAGES}.gz: HTTP Error 404"):
        load_mnist(mirrors=[mirrors["partial"]])
    assert sorted(listing(cache)) == sorted([f"{IMAGES}.gz", f"{LABELS}.gz"])
    data = find_mnist(mirrors=[mirrors["partial"], mirrors["raw"]])
    assert_is(data)
    assert data.source == f"MNIST from {mirrors['raw']} (downloaded)"
    assert mirrors.requests[3:] == [f"/partial/{TEST_IMAGES}.gz", f"/raw/{TEST_IMAGES}.gz", f"/raw/{TEST_LABELS}.gz"]


def test_many_at_once_share_one_cache(cache: Path, mirrors: Mirrors) -> None:
    with ThreadPoolExecutor(8) as pool:
        for data in pool.map(lambda _: load_mnist(mirrors=[mirrors["good"]]), range(24)):
            assert_is(data)
    assert sorted(listing(cache)) == sorted([*BODIES, "mnist.npz"])


@posix
def test_two_processes_share_one_cache(cache: Path, mirrors: Mirrors) -> None:
    prelude = "files._reached = lambda point: time.sleep(0.005)"
    with process(mirrors["meeting"], prelude) as one, process(mirrors["meeting"], prelude) as other:
        for each in (one, other):
            out, err = each.communicate()
            assert out == LOADED, err.decode()
    assert len(mirrors.requests) == 2 * 4  # each file was fetched by both at once
    assert sorted(listing(cache)) == sorted([*BODIES, "mnist.npz"])
    assert {name: body for name, body in listing(cache).items() if name != "mnist.npz"} == BODIES
    assert_is(load_mnist(mirrors=()))


@posix
@pytest.mark.parametrize(
    ("nth", "point"), [(1, "half written"), (2, "synced"), (4, "renamed"), (5, "half written"), (5, "synced")]
)
def test_a_process_killed_while_it_writes_damages_nothing(cache: Path, mirrors: Mirrors, nth: int, point: str) -> None:
    kill = f"point == {point!r} and next(turns) == {nth} and os.kill(os.getpid(), signal.SIGKILL)"
    with process(mirrors["good"], f"turns = iter(range(1, 9)); files._reached = lambda point: {kill}") as killed:
        _, err = killed.communicate()
    assert killed.returncode == -9, err.decode()
    intact = dict(list(BODIES.items())[: nth if point == "renamed" else nth - 1])
    left = listing(cache)
    assert {name: body for name, body in left.items() if not name.endswith(".part")} == intact
    assert len(left) == len(intact) + (point != "renamed")
    for addresses in ([mirrors["good"]], ()):
        assert_is(load_mnist(mirrors=addresses))
    assert sorted(listing(cache)) == sorted([*BODIES, "mnist.npz"])  # what it left is deleted
    assert len(mirrors.requests) == min(nth, 4) + 4 - len(intact)  # only what is missing is fetched
    assert {name: body for name, body in listing(cache).items() if name in BODIES} == BODIES


@posix
def test_the_temporary_files_of_a_process_that_still_writes_are_not_deleted(
    cache: Path, mirrors: Mirrors, tmp_path: Path
) -> None:
    waiting = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(tmp_path / 'go')!r}), True)]"
    with process(mirrors["good"], f"files._reached = lambda point: {waiting}") as child:
        deadline = time.monotonic() + 60
        while not (cache.is_dir() and leftovers(cache)):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.01)
        (other := cache / "run.bin.0123456789ab.part").touch()  # not ours
        (killed := cache / f"{LABELS}.gz.0123456789ab.part").touch()
        assert find_mnist(mirrors=()).synthetic
        assert killed.exists() and len(leftovers(cache)) == 3
        (tmp_path / "go").touch()
        out, err = child.communicate()
        assert out == LOADED and not err.count(b"cannot write"), err.decode()
    assert_is(load_mnist(mirrors=()))
    assert leftovers(cache) == [other]


def test_a_cache_that_stays_locked_only_gives_warnings(
    cache: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    cache.mkdir()
    descriptor = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert_is(load_mnist(mirrors=[mirrors["good"]]))
    finally:
        os.close(descriptor)
    assert caplog.text.count("locked by another process") == 5 and not listing(cache)
    monkeypatch.setattr(fcntl, "flock", lambda *args: os.stat("/nowhere"))  # a file system without locks
    (left := cache / f"{LABELS}.gz.0123456789ab.part").touch()
    assert_is(load_mnist(mirrors=[mirrors["good"]]))
    assert sorted(listing(cache)) == sorted([*BODIES, "mnist.npz", left.name])


# The cache ------------------------------------------------------------------------------------------------------------
def test_idx_files_put_into_the_cache_serve(cache: Path) -> None:
    put(cache, name=dotted)
    assert find_mnist(mirrors=()).source == f"MNIST from {cache} (the per-user cache)"
    assert (cache / "mnist.npz").exists()


@posix
@pytest.mark.parametrize("kind", ["file", "nothing", "folder", "device", "itself"])
def test_links_in_the_cache_are_replaced_and_not_written_through(
    cache: Path, mirrors: Mirrors, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "file").chmod(0o400)
    (tmp_path / "folder").mkdir()
    cache.mkdir()
    for name in (*BODIES, "mnist.npz"):
        target = cache / name if kind == "itself" else Path(os.devnull) if kind == "device" else tmp_path / kind
        (cache / name).symlink_to(target)
    assert_is(load_mnist(mirrors=[mirrors["good"]]))
    assert not any(file.is_symlink() for file in cache.iterdir())
    assert {name: body for name, body in listing(cache).items() if name != "mnist.npz"} == BODIES
    assert (tmp_path / "file").read_bytes() == b"precious" and not (tmp_path / "nothing").exists()
    assert not list((tmp_path / "folder").iterdir()) and not os.path.isfile(os.devnull)


@posix
def test_links_to_the_right_data_serve_and_stay(cache: Path, tmp_path: Path) -> None:
    put(cache)
    load_mnist(mirrors=())
    cache.rename(tmp_path / "shared")
    cache.mkdir()
    (cache / "mnist.npz").symlink_to(tmp_path / "shared" / "mnist.npz")
    assert_is(load_mnist(mirrors=()))
    assert (cache / "mnist.npz").is_symlink()


@posix
def test_pipes_and_folders_in_the_cache_are_not_opened(
    cache: Path, mirrors: Mirrors, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    for name in (*BODIES, "mnist.npz"):
        (os.mkdir if name.startswith(LABELS) else os.mkfifo)(cache / name)
    assert_is(load_mnist(mirrors=[mirrors["good"]]))
    assert caplog.text.count("not a file that can be replaced") == 5
    shutil.rmtree(cache)
    os.mkfifo(cache)
    assert_is(load_mnist(mirrors=[mirrors["good"]]))


def test_only_mnist_is_taken_from_the_cache(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(cache, small_set(1))
    assert find_mnist(mirrors=()).synthetic
    assert f"ignored in the cache: {cache / IMAGES}: not the {IMAGES} of MNIST" in caplog.text


def test_a_damaged_download_in_the_cache_is_replaced(
    cache: Path, mirrors: Mirrors, caplog: pytest.LogCaptureFixture
) -> None:
    load_mnist(mirrors=[mirrors["good"]])
    (cache / "mnist.npz").unlink()
    (cache / f"{LABELS}.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    assert_is(load_mnist(mirrors=[mirrors["good"]]))
    assert f"ignored in the cache: {cache / LABELS}.gz: the gzip data is damaged" in caplog.text
    assert listing(cache)[f"{LABELS}.gz"] == BODIES[f"{LABELS}.gz"] and len(mirrors.requests) == 5


# one cache for all examples will do: each of them writes the files anew
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_decoded_arrays_damaged_anywhere_are_never_accepted(cache: Path, data: st.DataObject) -> None:
    put(cache)
    load_mnist(mirrors=())
    intact = (cache / "mnist.npz").read_bytes()
    edges = [match.start() + i for match in re.finditer(b"PK|NUMPY", intact) for i in range(140)]  # of the headers
    position = data.draw(st.sampled_from(edges) | st.integers(0, len(intact) - 1)) % len(intact)
    damaged = data.draw(
        st.sampled_from([intact[:position], intact[:position] + intact[position + 1 :]])
        | st.integers(0, 255).map(lambda value: intact[:position] + bytes([value]) + intact[position + 1 :])
    )
    (cache / "mnist.npz").write_bytes(damaged)
    assert_is(load_mnist(mirrors=()))
    shutil.rmtree(cache)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is mapped there")
def test_decoded_arrays_are_mapped_and_the_cache_is_never_written_through(cache: Path) -> None:
    put(cache)
    load_mnist(mirrors=())
    before, found = listing(cache), load_mnist(mirrors=())
    assert all(isinstance(array.base, np.memmap) for array in found)
    for array in found:
        array[...] = 255 - array
    assert listing(cache) == before
    (cache / "new").write_bytes(b"other")
    os.replace(cache / "new", cache / "mnist.npz")  # as another process would
    assert_is([255 - array for array in found])
    assert_is(load_mnist(mirrors=()))


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("kind", ["npz", "npy", "pickle", "empty", "other arrays"])
def test_decoded_arrays_of_another_kind_are_replaced(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(cache)
    trap = np.array([Trap()], object)
    with open(cache / "mnist.npz", "wb") as file:
        if kind == "npz":
            np.savez(file, **dict.fromkeys(NAMES, trap))
        elif kind == "npy":
            np.save(file, np.zeros(3))
        elif kind == "pickle":
            file.write(trap.dumps())
        elif kind == "other arrays":
            np.savez(file, **small_set(1))
    assert_is(load_mnist(mirrors=()))
    assert f"{cache / 'mnist.npz'} is unusable and will be replaced" in caplog.text
    assert not (tmp_path / "sprung").exists()
    caplog.clear()
    assert_is(load_mnist(mirrors=()))
    assert not caplog.records


def test_decoded_arrays_larger_than_mnist_are_not_unpacked(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(cache)
    monkeypatch.setattr(mnist, "MAX_BYTES", 100_000)
    np.savez_compressed(cache / "mnist.npz", **SET | {IMAGES: np.zeros((8000, 28, 28), np.uint8)})
    with peak_below(2 << 20):
        assert_is(load_mnist(mirrors=()))
    assert "holds more than the 100000 bytes accepted" in caplog.text


def test_a_cache_that_cannot_be_created_only_gives_a_warning(
    cache: Path, mirrors: Mirrors, caplog: pytest.LogCaptureFixture
) -> None:
    cache.touch()  # a file where the folder would be
    assert_is(load_mnist(mirrors=[mirrors["good"]]))
    assert "the data is used from memory" in caplog.text and cache.is_file()


@pytest.mark.parametrize(
    "step",
    [
        "pathlib.Path.mkdir",
        "tinygrad_mnist.storage.files.open",
        "half written",
        "written",
        "os.fsync",
        "synced",
        "os.replace",
    ],
)
def test_a_write_that_fails_leaves_nothing_behind(
    cache: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        if "." in step or args == (step,):
            raise OSError(28, "No space left on device")

    put(cache, {name: array for name, array in SET.items() if name != LABELS})
    before = listing(cache)
    monkeypatch.setattr(step if "." in step else "tinygrad_mnist.storage.files._reached", fail, raising=False)
    assert_is(load_mnist(mirrors=[mirrors["good"]]))
    assert caplog.text.count("No space left on device") == 2  # the download, the decoded arrays
    assert listing(cache) == before


@posix
def test_a_full_disk_only_gives_warnings(cache: Path, mirrors: Mirrors) -> None:
    with process(mirrors["good"], "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))") as child:
        out, err = child.communicate()
    assert out == LOADED, err.decode()
    fitting = {name: body for name, body in BODIES.items() if len(body) <= 4096}
    assert listing(cache) == fitting and 0 < len(fitting) < 4
    for name in {*BODIES, "mnist.npz"} - {*fitting}:
        assert f"cannot write {cache / name} (" in err.decode()


def test_a_read_only_cache_only_gives_warnings(
    cache: Path, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    put(cache, {IMAGES: SET[IMAGES]})
    cache.chmod(0o500)
    if os.name != "posix" or os.geteuid() == 0:  # the mode means nothing to them
        monkeypatch.setattr("tinygrad_mnist.storage.files.open", fail, raising=False)
    try:
        assert_is(load_mnist(mirrors=[mirrors["good"]]))
    finally:
        cache.chmod(0o700)
    assert caplog.text.count("Permission denied") == 4 and list(listing(cache)) == [IMAGES]
    assert len(mirrors.requests) == 3


def test_an_interrupted_write_leaves_the_old_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    put(cache)
    (cache / "mnist.npz").write_bytes(b"old")
    before = listing(cache)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_mnist(mirrors=())
    assert listing(cache) == before


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "home/.cache/tinygrad_mnist"),
        ("linux", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg/tinygrad_mnist"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/tinygrad_mnist"),
        ("darwin", {"XDG_CACHE_HOME": "{}/xdg"}, "home/Library/Caches/tinygrad_mnist"),
        ("win32", {}, "home/AppData/Local/tinygrad_mnist/Cache"),
        ("win32", {"LOCALAPPDATA": "{}/local"}, "local/tinygrad_mnist/Cache"),
        ("win32", {"TINYGRAD_MNIST_CACHE": "{}/own"}, "own"),
        ("linux", {"TINYGRAD_MNIST_CACHE": "~/own"}, "home/own"),
    ],
)
def test_the_cache_is_where_the_platform_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("TINYGRAD_MNIST_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "{}/home", "USERPROFILE": "{}/home", **environment}.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_dir() == tmp_path / expected


def test_no_home_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("TINYGRAD_MNIST_CACHE", "~/own")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", lambda path: homeless())
    for _ in range(2):
        assert "Set TINYGRAD_MNIST_CACHE to a folder" in find_mnist().source
        monkeypatch.setenv("TINYGRAD_MNIST_CACHE", "")


def test_the_examples_run() -> None:
    assert doctest.testmod(mnist).failed == 0


# The real thing -------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not REAL or REAL == "synthetic", reason="set TINYGRAD_MNIST_DATA to a folder with the real MNIST")
def test_the_real_mnist(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REAL
    monkeypatch.undo()
    monkeypatch.setenv("TINYGRAD_MNIST_CACHE", str(cache))
    data = find_mnist(REAL)
    assert data.source == f"MNIST from {REAL} (the folder given)"
    images, labels, test_images, test_labels = data[:4]
    assert images.shape == (60000, 28, 28) and test_images.shape == (10000, 28, 28)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert labels[:5].tolist() == [5, 0, 4, 1, 9] and round(float(images.mean()), 4) == 33.3184
    cache.mkdir()
    for file in Path(REAL).iterdir():
        shutil.copyfile(file, cache / file.name)
    monkeypatch.setenv("TINYGRAD_MNIST_DATA", "")
    for _ in range(2):  # from the IDX files, then from the decoded arrays
        assert_is(load_mnist(mirrors=()), dict(zip(NAMES, data[:4], strict=True)))
    assert (cache / "mnist.npz").stat().st_size > 54_000_000
