"""A bundle: the one file that is deployed. Written, opened and verified here, in both directions.

``NAME.npub`` is a zip file (``runtime.archive``: stored, sorted, fixed dates; the same input gives the same bytes):

==========================  ===================================================================================
``manifest.json``           ``runtime.manifest.Manifest``, strict, with size and SHA-256 of every other file
``signature.json``          who signed the manifest (``runtime.trust``); a bundle may have none
``programs/<i>.npup``       the compiled program of partition i, for NPU partitions
``models/<i>.onnx``         partition i as ONNX
``golden/inputs.npz``       golden vectors that go in ...
``golden/outputs.npz``      ... and what must come out of every partition on the simulated NPU
==========================  ===================================================================================

A bundle is read once; what was hashed is what is used. Nothing in it is unpickled or extracted to disk, and what it
asks for is held against ``runtime.limits`` before it gets it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime import strict_json
from runtime.archive import pack, pack_arrays, unpack, unpack_arrays
from runtime.errors import BundleError
from runtime.files import read_regular, replace_file
from runtime.limits import LIMITS, Limits
from runtime.manifest import (
    MANIFEST,
    SCHEMA,
    SIGNATURE,
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
from runtime.onnx_screen import screen
from runtime.trust import PublicKey, Signature, Trust, read_signatures, verify

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
    "parse_bundle",
    "read_bundle",
    "sign_bundle",
    "write_bundle",
]


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle.

    Attributes:
        path: where it was read from, for messages.
        manifest: what it says about itself.
        files: content by name; matches the sizes and SHA-256 of the manifest.
        sha256: of the whole file, in hexadecimal.
        size: of the whole file, in bytes.
        signatures: what came with it; verified only when there is a ``signer``.
        signer: the trusted key that signed it; ``None`` when nobody asked, or it was opened without ``trust``.
        limits: that it was held against.
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]
    sha256: str
    size: int
    signatures: tuple[Signature, ...] = ()
    signer: PublicKey | None = None
    limits: Limits = LIMITS

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
        return unpack_arrays(self.read(name), f"{self.path}: {name}", self.limits)


Signer = Callable[[bytes], bytes]
"""Takes the bytes of a manifest and gives those of ``signature.json``, as ``runtime.trust.sign`` does."""


def write_bundle(path: Path, manifest: Manifest, payloads: Mapping[str, bytes], signer: Signer | None = None) -> None:
    """Write a bundle, whole or not at all.

    Args:
        path: replaced only when everything was written.
        manifest: its ``files`` are ignored and made from ``payloads``.
        payloads: content by name.
        signer: signs it; nobody does when not given.

    Raises:
        BundleError: the manifest does not fit together or with the payloads, the bundle is larger than the limit of
            those who open it, or the file cannot be written.
    """
    files = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in payloads.items()}
    complete = replace(manifest, files=files)
    check(complete, path)
    text = strict_json.dumps(complete)
    signature = {} if signer is None else {SIGNATURE: signer(text)}
    _write(path, {MANIFEST: text, **signature, **payloads})


def _write(path: Path, entries: Mapping[str, bytes]) -> None:
    total = sum(map(len, entries.values()))
    LIMITS.hold("bundle_bytes", total, f"would have {total} bytes", path)
    try:
        replace_file(path, pack(entries))
    except OSError as error:
        raise BundleError(f"cannot be written: {error.strerror}", where=path) from error


def sign_bundle(path: Path, signer: Signer) -> None:
    """Sign a bundle where it lies, whole or not at all; signatures that it has are replaced.

    Raises:
        BundleError: it is no sound bundle, or cannot be written.
    """
    data = read_bundle(path)
    parse_bundle(data, path)
    entries = unpack(data, path)
    _write(path, {**entries, SIGNATURE: signer(entries[MANIFEST])})


def open_bundle(path: Path, *, limits: Limits = LIMITS, trust: Trust | None = None) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: of the file; it is read once.
        limits: the most it may ask for.
        trust: whose signature is demanded; without it, none is checked.

    Raises:
        TrustError: it is unsigned, signed by somebody else, or was changed after it was signed.
        LimitError: it asks for more than ``limits``.
        BundleError: it cannot be read, is no bundle, truncated, damaged, changed, incomplete, of a newer schema,
            its manifest contradicts itself, or a model holds what models may not. Nothing of it has been used then.
        UserError: the library that checks signatures is not installed.
    """
    return parse_bundle(read_bundle(path, limits), path, limits=limits, trust=trust)


def parse_bundle(data: bytes, path: Path, *, limits: Limits = LIMITS, trust: Trust | None = None) -> Bundle:
    """As :func:`open_bundle`, of a file's bytes; ``path`` is for messages.

    Raises:
        TrustError, LimitError, BundleError, UserError: as there.
    """
    limits.hold("bundle_bytes", len(data), f"is larger than {limits.bundle_bytes} bytes", path)
    entries = unpack(data, path, limits)
    for name in entries:
        if not safe_name(name):
            raise BundleError(f"holds {name[:80]!r}, which is not a plain relative path", where=path)
    if MANIFEST not in entries:
        raise BundleError(f"has no {MANIFEST}, so it is not a bundle", where=path)
    text = entries.pop(MANIFEST)
    signed = entries.pop(SIGNATURE, None)
    signatures = () if signed is None else read_signatures(signed, f"{path}: {SIGNATURE}")
    signer = None if trust is None else verify(text, signatures, trust, path)
    manifest = parse_manifest(text, f"{path}: {MANIFEST}", limits)
    _verify(manifest, entries, path)
    for name in dict.fromkeys(partition.model for partition in manifest.partitions):
        screen(entries[name], f"{path}: {name}", limits)
    digest = hashlib.sha256(data).hexdigest()
    return Bundle(path, manifest, entries, digest, len(data), signatures, signer, limits)


def read_bundle(path: Path, limits: Limits = LIMITS) -> bytes:
    """The bytes of a file, read once; a little more than the limit when it is larger.

    Raises:
        BundleError: it cannot be read, or is a pipe or a device.
    """
    try:
        data = read_regular(path, limits.bundle_bytes)
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", where=path) from error
    if data is None:
        raise BundleError("is not a file", where=path)
    return data


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
