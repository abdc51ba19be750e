"""Who signed a bundle, and whether this device believes them.

``signature.json`` in a bundle holds Ed25519 signatures (RFC 8032) over the bytes of ``manifest.json``, which has the
SHA-256 of every other file. Several keys may sign, so that a device that knows only the old or only the new one accepts
both bundles while keys are being rotated.

Keys are PEM files, as OpenSSL writes them: ``openssl pkeyutl -verify -rawin`` checks the same signature. A public key's
file may say more in front of its PEM block, one ``name: value`` per line (RFC 7468 section 2 lets readers skip that)::

    name: ci
    expires: 2028-01-31
    revoked: stolen with a laptop
    -----BEGIN PUBLIC KEY-----
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import strict_json
from runtime.errors import TrustError, UserError
from runtime.extras import install

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SCHEMA = 1
_MOST_BYTES = 1 << 16
_MOST_KEYS = 256
_MOST_SIGNATURES = 16
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_HEADERS = ("name", "expires", "revoked", "created")


@dataclass(frozen=True)
class Signature:
    """One signature: the id of its key, and the 64 bytes in hexadecimal."""

    key: str
    ed25519: str


@dataclass(frozen=True)
class SignatureFile:
    """``signature.json``."""

    schema: int
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class PublicKey:
    """A key that a device trusts, or has trusted.

    Attributes:
        id: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes.
        name: what people call it.
        raw: its 32 bytes.
        expires: the last day on which it is accepted.
        revoked: why it is not accepted any more; ``None`` when it is.
    """

    id: str
    name: str
    raw: bytes
    expires: date | None = None
    revoked: str | None = None


@dataclass(frozen=True)
class Trust:
    """What a device believes: keys, and the folder or file they come from, for messages."""

    path: Path
    keys: tuple[PublicKey, ...]


def key_id(raw: bytes) -> str:
    """The id of a public key of 32 bytes."""
    return hashlib.sha256(raw).hexdigest()[:16]


def sign(manifest: bytes, keys: Sequence["Ed25519PrivateKey"]) -> bytes:
    """The content of ``signature.json`` for a manifest's bytes; the same bytes every time."""
    made = [Signature(key_id(key.public_key().public_bytes_raw()), key.sign(manifest).hex()) for key in keys]
    return strict_json.dumps(SignatureFile(_SCHEMA, tuple(made)))


def read_signatures(data: bytes, where: object) -> tuple[Signature, ...]:
    """The signatures in ``signature.json``, not verified.

    Raises:
        BundleError: it is malformed or of a newer schema.
    """
    if len(data) > _MOST_BYTES:
        raise TrustError(f"has {len(data)} bytes, more than {_MOST_BYTES}", where=where)
    found = strict_json.build(SignatureFile, strict_json.parse(data, where), where)
    if found.schema != _SCHEMA:
        raise TrustError(
            f"schema is {found.schema}, this runtime reads {_SCHEMA}", where=where, fix="update the runtime"
        )
    if not 1 <= len(found.signatures) <= _MOST_SIGNATURES:
        raise TrustError(f"has {len(found.signatures)} signatures, not 1 to {_MOST_SIGNATURES}", where=where)
    return found.signatures


def verify(
    manifest: bytes, signatures: Sequence[Signature], trust: Trust, where: object, today: date | None = None
) -> PublicKey:
    """The trusted key that signed ``manifest``.

    Args:
        manifest: the bytes that were signed.
        signatures: what came with them; none for an unsigned bundle.
        trust: keys to accept.
        where: named in errors.
        today: on which keys must not have expired; the clock's day in UTC when not given.

    Raises:
        TrustError: it is unsigned, signed by keys that are not trusted, revoked or expired, or was changed.
        UserError: the library that checks signatures is not installed.
    """
    if not signatures:
        fix = "sign it with pipeline package --sign KEY"
        raise TrustError(f"is not signed, and {trust.path} says whom to trust", where=where, fix=fix)
    known = _by_id(trust.keys)
    problems = []
    for signature in signatures:
        key = known.get(signature.key)
        if key is None:
            continue
        problem = _problem(key, signature, manifest, today or datetime.now(UTC).date())
        if problem is None:
            return key
        problems.append(problem)
    if problems:
        raise TrustError("; ".join(problems), where=where)
    ids = ", ".join(signature.key[:16] for signature in signatures)
    fix = "get the signer's public key, or the bundle, from whom you trust"
    raise TrustError(f"is signed by key {ids}, which is not in {trust.path}", where=where, fix=fix)


def _by_id(keys: Sequence[PublicKey]) -> Mapping[str, PublicKey]:
    """Keys by id; of the same key twice, the revoked one."""
    return {key.id: key for key in sorted(keys, key=lambda key: key.revoked is not None)}


def _problem(key: PublicKey, signature: Signature, manifest: bytes, today: date) -> str | None:
    """Why a signature by a known key is not accepted; ``None`` when it is."""
    if key.revoked is not None:
        return f"is signed by {key.name} ({key.id}), which was revoked: {key.revoked}"
    if key.expires is not None and today > key.expires:
        return f"is signed by {key.name} ({key.id}), which expired on {key.expires}; today is {today}"
    if not _verifies(key.raw, signature.ed25519, manifest):
        return f"was changed: it is not what {key.name} ({key.id}) signed"
    return None


def _verifies(raw: bytes, signature: str, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 (of the signing extra)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError("cryptography is needed for signatures and is not installed", fix=install("signing")) from error
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_trust(path: Path) -> Trust:
    """The public keys in a PEM file, or in the ``*.pub`` and ``*.pem`` files of a folder.

    Raises:
        TrustError: there is none, or one cannot be read.
    """
    try:
        files = _key_files(path)
        texts = {file: file.read_bytes()[: _MOST_BYTES + 1] for file in files}
    except OSError as error:
        raise TrustError(f"cannot be read: {error.strerror}", where=path) from error
    keys = tuple(key for file, data in texts.items() for key in _read_keys(data, file))
    if not keys:
        fix = "make a pair with pipeline keys new, and copy its .pub file there"
        raise TrustError("has no public key", where=path, fix=fix)
    if len(keys) > _MOST_KEYS:
        raise TrustError(f"has {len(keys)} keys, more than {_MOST_KEYS}", where=path)
    return Trust(path, keys)


def _key_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in (".pub", ".pem") and file.is_file())


def _read_keys(data: bytes, file: Path) -> list[PublicKey]:
    if len(data) > _MOST_BYTES:
        raise TrustError(f"is larger than {_MOST_BYTES} bytes", where=file)
    keys: list[PublicKey] = []
    headers: dict[str, str] = {}
    block: list[str] | None = None
    for line in data.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text == _BEGIN:
            block = []
        elif text == _END and block is not None:
            keys.append(_key(block, headers, file))
            headers, block = {}, None
        elif block is not None:
            block.append(text)
        elif text:
            name, colon, value = (part.strip() for part in text.partition(":"))
            if not colon or name not in _HEADERS:
                raise TrustError(f"has the line {text[:40]!r}, which is not one of {', '.join(_HEADERS)}", where=file)
            headers[name] = value
    if block is not None or headers:
        raise TrustError("ends within a key", where=file)
    return keys


def _key(block: Sequence[str], headers: Mapping[str, str], file: Path) -> PublicKey:
    raw = _load_pem(block, file)
    last = _day(headers["expires"], file) if "expires" in headers else None
    return PublicKey(key_id(raw), headers.get("name", file.stem), raw, last, headers.get("revoked"))


def _day(text: str, file: Path) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise TrustError(f"expires is {text[:40]!r}, not a day as 2028-01-31", where=file) from error


_SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410 section 4)."""


def _load_pem(lines: Sequence[str], file: Path) -> bytes:
    try:
        der = base64.b64decode("".join(lines), validate=True)
    except ValueError as error:
        raise TrustError("is not a public key in PEM form", where=file) from error
    if len(der) != len(_SPKI) + 32 or not der.startswith(_SPKI):
        raise TrustError("is a key of another kind than Ed25519", where=file)
    return der[len(_SPKI) :]
