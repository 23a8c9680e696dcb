"""Atomic writes: a file has its old content or its new one, whenever the process or the machine stops."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..validation import integer

if sys.platform != "win32":
    import fcntl

__all__ = ["leftovers", "lock_folder", "read_whole", "write_atomically"]

LOCK_SECONDS = 5.0  # deleting some files takes less


def write_atomically(
    path: str | os.PathLike[str],
    data: bytes | bytearray | memoryview,
    *,
    follow_links: bool = True,
    sync_folder: bool = True,
) -> None:
    """Write a file atomically: at any moment, also after a power failure, it is complete, with old or new content.

    The data is written to a temporary file in the same folder (``NAME.….part``), which is synced and then renamed. A
    process that is killed leaves the temporary file; it is never read, and may be deleted (see `leftovers`,
    `lock_folder`).

    Parameters
    ----------
    path : str or PathLike
        Its folder must exist. An existing file keeps its permissions.
    data : bytes-like
    follow_links : bool
        If `path` is a symbolic link, write its target (True), or replace the link by a file (False).
    sync_folder : bool
        Sync the folder, too, so that a power failure cannot bring the old content back. Where several files are written
        at once, the last one can do that for all.

    Raises
    ------
    OSError
        Naming `path`, if it cannot be written; the old file is then unchanged and the temporary one deleted.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "a.txt"), b"all of it")
    ...     [(file.name, file.read_bytes()) for file in Path(folder).iterdir()]
    [('a.txt', b'all of it')]
    """
    path = Path(os.path.realpath(path) if follow_links else path)
    if not path.is_symlink() and path.exists() and not path.is_file():  # a folder, or a device, which would be replaced
        raise OSError(errno.EINVAL, "not a file that can be replaced", str(path))
    part = path.parent / f"{path.name[:50]}.{uuid.uuid4().hex[:12]}.part"
    try:
        try:
            with open(part, "xb") as file:
                with suppress(FileNotFoundError):
                    if not path.is_symlink():
                        os.chmod(part, stat.S_IMODE(os.stat(path).st_mode))
                half = len(data) // 2
                file.write(data[:half])
                _reached("half written")
                file.write(data[half:])
                _reached("written")
                file.flush()
                os.fsync(file.fileno())
            _reached("synced")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)  # it exists only if something failed
        _reached("renamed")
        if sync_folder:
            _sync_folder(path.parent)
    except OSError as error:
        # the error of a write does not name the file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """List the temporary files that killed processes have left in a folder."""
    return [file for file in Path(folder).iterdir() if re.fullmatch(r".+\.[0-9a-f]{12}\.part", file.name)]


@contextmanager
def lock_folder(folder: str | os.PathLike[str], exclusive: bool = False) -> Iterator[None]:
    """Lock a folder that several processes write to, so that none of them deletes another's temporary files.

    Any number of processes may write at once, under a lock that is not exclusive; leftovers are deleted under one that
    is. The lock ends with the block or with the process. File systems without locks, and Windows, have no exclusive
    ones, and the others do nothing there.

    Raises
    ------
    OSError
        If there is no such folder, no exclusive lock, or others hold it: for 5 seconds, or, if `exclusive`, now.
    """
    if sys.platform == "win32":
        if exclusive:
            raise OSError(errno.ENOTSUP, "folders cannot be locked", str(folder))
        yield
        return
    deadline = time.monotonic() + (0 if exclusive else LOCK_SECONDS)
    with _opened(folder) as descriptor:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH))
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
                raise OSError(errno.EBUSY, "locked by another process", str(folder)) from None
            except OSError:  # a file system without locks
                if exclusive:
                    raise
            break
        yield


def read_whole(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read a file of at most `max_bytes` bytes.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist or is not a regular file: reading from a pipe or a device may never end.
    ValueError
        If the file is longer.
    """
    max_bytes = integer("read_whole", "max_bytes", max_bytes)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} {'is not a file' if os.path.exists(path) else 'does not exist'}")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= max_bytes else b""  # one byte more: the file may have grown
    if max(size, len(data)) > max_bytes:
        raise ValueError(f"{path} has more than the {max_bytes} bytes accepted; raise max_bytes if that is meant")
    return data


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, where folders can be synced."""
    if os.name != "posix":
        return
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(folder: str | os.PathLike[str]) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reached(point: str) -> None:
    """Mark a stage of a write; tests replace this function to delay or kill the process there."""
