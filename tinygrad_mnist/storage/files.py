"""Files that are written all or not at all, whatever ends the process or the disk in between."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from contextlib import suppress
from pathlib import Path

__all__ = ["leftovers", "read_whole", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write a file so that at any moment, also after a power cut, its name stands for the old content or the new one,
    both complete.

    The data goes to a temporary file beside it (``NAME.….part``), which is synced and then renamed. If the process is
    killed, that one is left behind: it is never read, and may be deleted (see `leftovers`).

    Parameters
    ----------
    path : str or PathLike
        In a folder that exists. Of a link, the target is written. A file that exists keeps its permissions.
    data : bytes-like

    Raises
    ------
    OSError
        Naming `path`, if it cannot be written; the old file is then untouched and the temporary one deleted.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "a.txt"), b"all of it")
    ...     [(file.name, file.read_bytes()) for file in Path(folder).iterdir()]
    [('a.txt', b'all of it')]
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a folder; or a device, which would be replaced
        raise OSError(errno.EINVAL, "not a file that can be written anew", str(path))
    part = path.parent / f"{path.name[:50]}.{uuid.uuid4().hex[:12]}.part"
    try:
        try:
            with open(part, "xb") as file:
                with suppress(FileNotFoundError):
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
            part.unlink(missing_ok=True)  # still there only if something failed
        _reached("renamed")
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(
            error.errno, error.strerror or str(error), str(path)
        ) from error  # a write's own error names no file


def leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """List the temporary files that killed processes have left in a folder."""
    return [file for file in Path(folder).iterdir() if re.fullmatch(r".+\.[0-9a-f]{12}\.part", file.name)]


def read_whole(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read a file that must not be longer.

    Raises
    ------
    FileNotFoundError
        Also if `path` is a folder, a pipe or a device, which may never end.
    ValueError
        If it has more than `max_bytes`.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is {'no file' if os.path.exists(path) else 'not there'}")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= max_bytes else b""  # a longer one if it has grown meanwhile
    if max(size, len(data)) > max_bytes:
        raise ValueError(f"{path} has more than the {max_bytes} bytes accepted; raise max_bytes if that is meant")
    return data


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, too, where folders can be synced."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reached(point: str) -> None:
    """Do nothing between the steps of a write: tests put a delay here, or the end of the process."""
