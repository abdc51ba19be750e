"""Keys that sign bundles: made here, kept by whoever publishes; their public halves go onto devices."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.errors import UserError
from runtime.bundle import Signer
from runtime.trust import key_id, sign

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class KeyPair:
    """A new pair: the file to keep secret, the file for devices, and the key's id."""

    private: Path
    public: Path
    id: str


def new(name: str, folder: Path, expires: date | None = None) -> KeyPair:
    """Make a pair of Ed25519 keys: ``NAME.key`` (PKCS #8 in PEM, readable by its owner only) and ``NAME.pub``.

    Args:
        name: letters, digits, ``._-``.
        folder: made when missing.
        expires: the last day on which devices accept the key; for good when not given.

    Raises:
        UserError: the name is another one, a file of it exists, or it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a key's name", fix="use letters, digits, dots, underscores and hyphens")
    key = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    public = key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    headers = [f"name: {name}", f"created: {datetime.now(UTC).date()}"]
    headers += [] if expires is None else [f"expires: {expires}"]
    pair = KeyPair(folder / f"{name}.key", folder / f"{name}.pub", key_id(public.public_bytes_raw()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _create(pair.private, secret, 0o600)
        _create(pair.public, "\n".join([*headers, ""]).encode() + pem, 0o644)
    except FileExistsError as error:
        what = f"{error.filename} exists; a key is never replaced"
        raise UserError(what, fix="choose another name or --out") from error
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=error.filename) from error
    return pair


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist yet; nobody else can read it, not even for a moment."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def signer(path: Path) -> Signer:
    """What signs a manifest with the private keys in a PEM file; with several, by each of them.

    Raises:
        UserError: the file cannot be read, or is no private Ed25519 key without a password.
    """
    private = tuple(_load(block, path) for block in _blocks(path))
    return lambda manifest: sign(manifest, private)


def _blocks(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=path) from error
    pattern = rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----"
    return [match[0] for match in re.finditer(pattern, data, re.DOTALL)] or [data]


def _load(block: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(block, None)
    except TypeError as error:
        fix = "decrypt it for the time of packaging: openssl pkey -in KEY -out PLAIN"
        raise UserError("is protected by a password", where=path, fix=fix) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        fix = "make one with pipeline keys new"
        raise UserError("is not a private key in PEM form", where=path, fix=fix) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"is a key of another kind than Ed25519 ({type(key).__name__})", where=path)
    return key
