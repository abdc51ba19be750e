"""Writing files so that whoever reads, also after a kill, finds the old one or the new one and never half of it."""

import errno
import os
import stat
from pathlib import Path

UNFINISHED = ".*.tmp"
"""What half-written files are called, as a glob; nobody else may be writing the same file."""


def exists(path: Path) -> bool:
    """Whether there is a file at ``path``; there is none where no file could be, as under too long a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_whole(path: Path) -> bytes:
    """All of the file ``path``.

    Raises:
        OSError: it cannot be read; or is a pipe or a device, which may never end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    return path.read_bytes()


def write_atomically(path: Path, data: bytes, *, beside: Path | None = None) -> None:
    """Replace ``path`` with ``data`` in one step; the half-written file lies beside it, or beside ``beside``.

    Raises:
        OSError: the folder cannot be written or is full, or ``path`` is a folder, a pipe or a device; ``path`` is as it
            was.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    place = beside or path
    unfinished = place.with_name(f".{place.name}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what a kill left half-written in ``folder``.

    Raises:
        OSError: it cannot be deleted.
    """
    for path in folder.glob(UNFINISHED):
        path.unlink()
