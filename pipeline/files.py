"""Writing files so that whoever reads, also after a kill, finds the old one or the new one and never half of it."""

import os
from pathlib import Path

UNFINISHED = ".*.tmp"
"""What half-written files are called, as a glob; nobody else may be writing the same file."""


def write_atomically(path: Path, data: bytes, *, beside: Path | None = None) -> None:
    """Replace ``path`` with ``data`` in one step; the half-written file lies beside it, or beside ``beside``.

    Raises:
        OSError: the folder cannot be written or is full; ``path`` is as it was.
    """
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
