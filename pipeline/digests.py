"""SHA-256 of files and folders; a file that has not been touched since it was last read is not read again."""

import hashlib
import json
import os
import time
from pathlib import Path

from pipeline.files import write_atomically

Stamp = list[int]

_SETTLED_NS = 2_000_000_000
"""A file younger than this when it is read may change again within its file system's time resolution."""


class Digests:
    """Digests of files, remembered in ``cache`` by size, inode and the times of last change."""

    def __init__(self, cache: Path | None = None) -> None:
        """Read what ``cache`` remembers; a missing or damaged one is an empty one."""
        self._cache = cache
        self._known = _load(cache)
        self._dirty = False

    def file(self, path: Path, *, reread: bool = False) -> str:
        """Hex SHA-256 of the file's bytes; ``reread`` reads them even when the file looks untouched.

        Raises:
            OSError: the file cannot be read.
        """
        status = path.stat()
        stamp = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        key = str(path.absolute())
        known = self._known.get(key)
        if known is not None and known[0] == stamp and not reread:
            return known[1]
        digest = sha256(path)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
            if known != (stamp, digest):
                self._known[key] = (stamp, digest)
                self._dirty = True
        else:
            self._known.pop(key, None)
        return digest

    def tree(self, path: Path) -> str:
        """Hex SHA-256 of a file's bytes, or of the names and bytes of all files in a folder.

        Raises:
            OSError: something in it cannot be read.
        """
        if not path.is_dir():
            return self.file(path)
        whole = hashlib.sha256()
        for inner in files_in(path):
            whole.update(f"{inner.relative_to(path).as_posix()}\0{self.file(inner)}\n".encode())
        return whole.hexdigest()

    def save(self) -> None:
        """Write what is known to the cache file, when there is one and something is new."""
        if self._cache is not None and self._dirty:
            write_atomically(self._cache, json.dumps(self._known).encode())
            self._dirty = False


def sha256(path: Path) -> str:
    """Hex SHA-256 of the file's bytes, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files below ``folder``, sorted by their path; links to folders are followed once.

    Raises:
        OSError: a folder cannot be listed.
    """
    found = []
    for parent, _, names in os.walk(folder, onerror=_raise, followlinks=False):
        found += [Path(parent, name) for name in names]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _load(cache: Path | None) -> dict[str, tuple[Stamp, str]]:
    if cache is None:
        return {}
    try:
        known = json.loads(cache.read_bytes())
        return {str(path): (list(stamp), str(digest)) for path, (stamp, digest) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
