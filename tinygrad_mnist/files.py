"""Files that are written all or not at all, whatever ends the process or the disk in between."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write a file so that at any moment, also after a power cut, its name stands for the old content or the new one, both complete.

    The data goes to a temporary file beside it (``NAME.….part``), which is synced and then renamed. If the process is killed, that one
    is left behind: it is never read, and may be deleted.

    Parameters
    ----------
    path : str or PathLike
        In a folder that exists.
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
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        try:
            with open(part, "xb") as file:
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
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # a write's own error names no file


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
