"""Signatures: who is believed and who is not; checked by OpenSSL too."""

import json
import subprocess
import sys
import zipfile
from datetime import date

import pytest
import tiny
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime import archive, trust
from runtime.bundle import open_bundle, sign_bundle
from runtime.errors import BundleError, TrustError, UserError
from runtime.trust import key_id, read_signatures, read_trust, sign, verify

TODAY = date(2026, 11, 27)


def private(number):
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def signed(path, *numbers, **changes):
    return tiny.write(path, signer=lambda manifest: sign(manifest, [private(n) for n in numbers]), **changes)


@pytest.fixture
def trusted(tmp_path):
    """A folder of two trusted keys, 1 called old and 2 called new."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for number, name in ((1, "old"), (2, "new")):
        (folder / f"{name}.pub").write_text(pem(private(number)))
    return folder


def test_a_signed_bundle_opens_with_its_key(tmp_path, trusted):
    opened = open_bundle(signed(tmp_path / "x.npub", 2), trust=read_trust(trusted))
    assert (opened.signer.name, opened.signer.id) == ("new", key_id(private(2).public_key().public_bytes_raw()))
    assert open_bundle(tmp_path / "x.npub").signer is None
    assert len(open_bundle(tmp_path / "x.npub").signatures) == 1
    one = read_trust(trusted / "new.pub")
    assert open_bundle(tmp_path / "x.npub", trust=one).signer.name == "new"


def test_signing_is_the_same_bytes_every_time_and_also_afterwards(tmp_path):
    first, second = signed(tmp_path / "a.npub", 1), tiny.write(tmp_path / "b.npub")
    sign_bundle(second, lambda manifest: sign(manifest, [private(1)]))
    assert first.read_bytes() == second.read_bytes()
    sign_bundle(second, lambda manifest: sign(manifest, [private(2)]))
    assert [each.key for each in open_bundle(second).signatures] == [key_id(private(2).public_key().public_bytes_raw())]
    (tmp_path / "rubbish.npub").write_bytes(b"PK")
    with pytest.raises(BundleError, match="is not a bundle"):
        sign_bundle(tmp_path / "rubbish.npub", lambda manifest: b"")


def test_openssl_agrees(tmp_path):
    """The signature is what OpenSSL makes of the manifest with the same key, and OpenSSL verifies it."""
    path = signed(tmp_path / "x.npub", 7)
    with zipfile.ZipFile(path) as file:
        manifest = file.read("manifest.json")
        signature = bytes.fromhex(json.loads(file.read("signature.json"))["signatures"][0]["ed25519"])
    (tmp_path / "manifest").write_bytes(manifest)
    (tmp_path / "signature").write_bytes(signature)
    (tmp_path / "key.pub").write_text("name: ci\nexpires: 2030-01-01\n" + pem(private(7)))
    secret = private(7).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key").write_bytes(secret)

    def openssl(*words):
        command = ["openssl", "pkeyutl", "-rawin", "-in", "manifest", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    good = openssl("-verify", "-pubin", "-inkey", "key.pub", "-sigfile", "signature")
    assert "Signature Verified Successfully" in good.stdout, good.stderr
    assert openssl("-sign", "-inkey", "key", "-out", "made").returncode == 0
    assert (tmp_path / "made").read_bytes() == signature


def test_rfc_8032():
    """RFC 8032 section 7.1, TEST 2: one byte signed."""
    secret = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    made = read_signatures(sign(b"\x72", [key]), "s")
    assert made[0].ed25519 == signature
    assert made[0].key == key_id(bytes.fromhex(public))


def test_unsigned_and_foreign_bundles(tmp_path, trusted, tiny_bundle):
    with pytest.raises(TrustError, match=r"tiny\.npub: is not signed, and .*keys says whom to trust \(sign it with"):
        open_bundle(tiny_bundle, trust=read_trust(trusted))
    with pytest.raises(TrustError, match=r"is signed by key [0-9a-f]{16}, which is not in .*keys \(get the signer's"):
        open_bundle(signed(tmp_path / "x.npub", 3), trust=read_trust(trusted))


def repacked(path, change):
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    change(entries)
    path.write_bytes(archive.pack(entries))
    return path


def test_altered_bundles(tmp_path, trusted):
    """Whoever changes a bundle can make its hashes fit again, but not its signature."""

    def manifest(entries):
        entries["manifest.json"] = entries["manifest.json"].replace(
            b'"score_threshold": 0.3', b'"score_threshold": 0.9'
        )

    def signature(entries):
        entries["signature.json"] = entries["signature.json"].replace(b'"ed25519": "', b'"ed25519": "00')

    def program(entries):
        entries["programs/0.npup"] += b"\0"

    believe = read_trust(trusted)
    for change in (manifest, signature):
        path = repacked(signed(tmp_path / "x.npub", 1), change)
        with pytest.raises(TrustError, match=r"was changed: it is not what old \([0-9a-f]{16}\) signed"):
            open_bundle(path, trust=believe)
    with pytest.raises(BundleError, match=r"programs/0\.npup has \d+ bytes, its manifest says"):
        open_bundle(repacked(signed(tmp_path / "x.npub", 1), program), trust=believe)


def test_a_signature_moved_from_another_bundle(tmp_path, trusted):
    other = signed(tmp_path / "other.npub", 1, name="other")
    with zipfile.ZipFile(other) as file:
        stolen = file.read("signature.json")
    path = repacked(tiny.write(tmp_path / "x.npub"), lambda entries: entries.update({"signature.json": stolen}))
    with pytest.raises(TrustError, match="was changed"):
        open_bundle(path, trust=read_trust(trusted))


def test_rotation(tmp_path, trusted):
    """While keys are rotated both sign, and devices with either key alone accept the bundle."""
    both = signed(tmp_path / "both.npub", 1, 2)
    for name in ("old", "new"):
        assert open_bundle(both, trust=read_trust(trusted / f"{name}.pub")).signer.name == name
    (trusted / "old.pub").write_text("revoked: laptop stolen\n" + pem(private(1)))
    assert open_bundle(both, trust=read_trust(trusted)).signer.name == "new"
    alone = signed(tmp_path / "old.npub", 1)
    with pytest.raises(TrustError, match=r"is signed by old \([0-9a-f]{16}\), which was revoked: laptop stolen"):
        open_bundle(alone, trust=read_trust(trusted))
    (trusted / "zcopy.pub").write_text(pem(private(1)))
    with pytest.raises(TrustError, match="which was revoked"):
        open_bundle(alone, trust=read_trust(trusted))


def test_expiry(tmp_path):
    (tmp_path / "k.pub").write_text("name: ci\nexpires: 2026-11-27\n" + pem(private(1)))
    believe, text = read_trust(tmp_path / "k.pub"), b"manifest"
    signatures = read_signatures(sign(text, [private(1)]), "s")
    assert verify(text, signatures, believe, "x", TODAY).name == "ci"
    with pytest.raises(TrustError, match=r"signed by ci \(.*\), which expired on 2026-11-27; today is 2026-11-28"):
        verify(text, signatures, believe, "x", date(2026, 11, 28))
    (tmp_path / "k.pub").write_text("expires: 2001-01-01\n" + pem(private(1)))
    with pytest.raises(TrustError, match="expired on 2001-01-01"):
        verify(text, signatures, read_trust(tmp_path / "k.pub"), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "schema is missing"),
        ('{"schema": 9, "signatures": []}', "schema is 9, this runtime reads 1"),
        ('{"schema": 1, "signatures": []}', "has 0 signatures, not 1 to 16"),
        (
            '{"schema": 1, "signatures": [' + '{"key": "", "ed25519": ""},' * 16 + '{"key": "", "ed25519": ""}]}',
            "has 17",
        ),
        ('{"schema": 1, "signatures": [{"key": "a"}]}', r"signatures\[0\]\.ed25519 is missing"),
        (" " * 70_000, "has 70000 bytes, more than 65536"),
    ],
)
def test_signature_files_that_are_none(content, message):
    with pytest.raises(BundleError, match=f"s: .*{message}"):
        read_signatures(content.encode(), "s")


def foreign_pem():
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = ec.derive_private_key(5, ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"k\.pub: has no public key \(make a pair with pipeline keys new"),
        ("hello\n", r"k\.pub: has the line 'hello', which is not one of name, expires, revoked, created"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "ends within a key"),
        ("name: x\n", "ends within a key"),
        ("-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----\n", "is not a public key in PEM form"),
        (foreign_pem(), "is a key of another kind than Ed25519"),
        ("expires: tomorrow\n" + pem(private(1)), "expires is 'tomorrow', not a day as 2028-01-31"),
        ("created: x\n" * 10_000, "is larger than 65536 bytes"),
    ],
)
def test_keys_that_are_none(tmp_path, text, message):
    (tmp_path / "k.pub").write_text(text)
    with pytest.raises(TrustError, match=message):
        read_trust(tmp_path / "k.pub")


def test_no_keys_and_too_many(tmp_path, monkeypatch):
    with pytest.raises(TrustError, match="none: cannot be read: No such file"):
        read_trust(tmp_path / "none")
    (tmp_path / "secret.key").write_text("x")
    with pytest.raises(TrustError, match="has no public key"):
        read_trust(tmp_path)
    (tmp_path / "many.pub").write_text(pem(private(1)) + pem(private(2)))
    assert [key.name for key in read_trust(tmp_path / "many.pub").keys] == ["many", "many"]
    monkeypatch.setattr(trust, "_MOST_KEYS", 1)
    with pytest.raises(TrustError, match="has 2 keys, more than 1"):
        read_trust(tmp_path)


def test_without_the_library_the_error_says_what_to_install(tmp_path, trusted, monkeypatch):
    path = signed(tmp_path / "x.npub", 1)
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert open_bundle(path).signatures
    with pytest.raises(
        UserError, match=r"cryptography is needed for signatures .* \(pip install -r requirements-signing\.txt in"
    ):
        open_bundle(path, trust=read_trust(trusted))
