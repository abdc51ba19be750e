"""A bundle: the one file that is deployed. Written, opened and verified here, in both directions.

``NAME.npub`` is a zip file (``runtime.archive``: stored, sorted, fixed dates; the same input gives the same bytes):

==========================  ===================================================================================
``manifest.json``           ``runtime.manifest.Manifest``, strict, with size and SHA-256 of every other file
``programs/<i>.npup``       the compiled program of partition i, for NPU partitions
``models/<i>.onnx``         partition i as ONNX
``golden/inputs.npz``       golden vectors that go in ...
``golden/outputs.npz``      ... and what must come out of the simulated NPU, byte for byte
==========================  ===================================================================================

A bundle is read once; what was hashed is what is used. Nothing in it is unpickled or extracted to disk.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime import strict_json
from runtime.archive import pack, pack_arrays, unpack, unpack_arrays
from runtime.errors import BundleError
from runtime.manifest import (
    SCHEMA,
    FileEntry,
    GoldenEntry,
    Line,
    Manifest,
    PartitionEntry,
    Zone,
    check,
    parse_manifest,
    safe_name,
)

__all__ = [
    "SCHEMA",
    "Bundle",
    "FileEntry",
    "GoldenEntry",
    "Line",
    "Manifest",
    "PartitionEntry",
    "Zone",
    "open_bundle",
    "pack_arrays",
    "write_bundle",
]

MANIFEST = "manifest.json"
MAX_BYTES = 1 << 30
"""The largest bundle that is read; everything is kept in memory."""


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle.

    Attributes:
        path: where it was read from, for messages.
        manifest: what it says about itself.
        files: content by name; matches the sizes and SHA-256 of the manifest.
        sha256: of the whole file, in hexadecimal.
        size: of the whole file, in bytes.
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    sha256: str
    size: int

    def read(self, name: str) -> bytes:
        """The content of the file ``name``.

        Raises:
            BundleError: there is no such file.
        """
        if name not in self.files:
            raise BundleError(f"has no file {name}", where=self.path)
        return self.files[name]

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The arrays in the ``.npz`` file ``name``.

        Raises:
            BundleError: there is no such file, or it is not one of arrays.
        """
        return unpack_arrays(self.read(name), f"{self.path}: {name}")


def write_bundle(path: Path, manifest: Manifest, payloads: Mapping[str, bytes]) -> None:
    """Write a bundle, whole or not at all.

    Args:
        path: replaced only when everything was written.
        manifest: its ``files`` are ignored and made from ``payloads``.
        payloads: content by name.

    Raises:
        BundleError: the manifest does not fit together or with the payloads, or the file cannot be written.
    """
    files = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in payloads.items()}
    complete = replace(manifest, files=files)
    check(complete, path)
    data = pack({MANIFEST: strict_json.dumps(complete), **payloads})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise BundleError(f"cannot be written: {error.strerror}", where=path) from error


def _replace(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` in one step, through a temporary file beside it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_bundle(path: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: it cannot be read, is no bundle, truncated, damaged, changed, incomplete, of a newer schema,
            or its manifest contradicts itself. Nothing of it has been used then.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise BundleError("is not a file", where=path)
        if status.st_size > MAX_BYTES:
            raise BundleError(f"is larger than {MAX_BYTES} bytes, the most a bundle may have", where=path)
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", where=path) from error
    entries = unpack(data, path)
    for name in entries:
        if not safe_name(name):
            raise BundleError(f"holds {name!r}, which is not a plain relative path", where=path)
    if MANIFEST not in entries:
        raise BundleError(f"has no {MANIFEST}, so it is not a bundle", where=path)
    manifest = parse_manifest(entries.pop(MANIFEST), f"{path}: {MANIFEST}")
    _verify(manifest, entries, path)
    return Bundle(path, manifest, entries, hashlib.sha256(data).hexdigest(), len(data))


def _verify(manifest: Manifest, entries: Mapping[str, bytes], path: Path) -> None:
    """Hold every file against its size and SHA-256 in the manifest."""
    for name in sorted(entries.keys() - manifest.files.keys()):
        raise BundleError(f"holds {name}, which its manifest does not name", where=path)
    for name, entry in sorted(manifest.files.items()):
        if name not in entries:
            raise BundleError(f"{name} is missing", where=path)
        data = entries[name]
        if len(data) != entry.size:
            raise BundleError(f"{name} has {len(data)} bytes, its manifest says {entry.size}", where=path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(f"{name} was changed: its SHA-256 is not the one in the manifest", where=path)
