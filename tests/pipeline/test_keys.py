"""Keys: made, read, refused."""

import stat
import subprocess
from datetime import date

import pytest

from pipeline import keys
from pipeline.errors import UserError
from runtime.trust import read_signatures, read_trust, verify


def test_a_new_pair_signs_what_its_public_half_verifies(tmp_path):
    pair = keys.new("ci", tmp_path / "keys", date(2099, 1, 31))
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    trust = read_trust(pair.public)
    assert (trust.keys[0].id, trust.keys[0].name, trust.keys[0].expires) == (pair.id, "ci", date(2099, 1, 31))
    signatures = read_signatures(keys.signer(pair.private)(b"manifest"), "s")
    assert verify(b"manifest", signatures, trust, "x").id == pair.id


def test_a_key_is_never_replaced(tmp_path):
    pair = keys.new("ci", tmp_path)
    before = pair.private.read_bytes()
    with pytest.raises(UserError, match=r"ci\.key exists; a key is never replaced \(choose another name or --out\)"):
        keys.new("ci", tmp_path)
    assert pair.private.read_bytes() == before


def test_names_and_folders_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match=r"'\.\./x' cannot be a key's name"):
        keys.new("../x", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        keys.new("ci", tmp_path / "file" / "sub")


def openssl(*words, folder):
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def test_keys_that_openssl_made(tmp_path):
    openssl("genpkey", "-algorithm", "ed25519", "-out", "a.key", folder=tmp_path)
    openssl("genpkey", "-algorithm", "ed25519", "-out", "b.key", folder=tmp_path)
    for name in "ab":
        openssl("pkey", "-in", f"{name}.key", "-pubout", "-out", f"{name}.pub", folder=tmp_path)
    (tmp_path / "both.key").write_bytes((tmp_path / "a.key").read_bytes() + (tmp_path / "b.key").read_bytes())
    signatures = read_signatures(keys.signer(tmp_path / "both.key")(b"manifest"), "s")
    for name in "ab":
        assert verify(b"manifest", signatures, read_trust(tmp_path / f"{name}.pub"), "x").name == name


def test_private_keys_that_are_none(tmp_path):
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "rsa", folder=tmp_path)
    openssl("genpkey", "-algorithm", "ed25519", "-aes128", "-pass", "pass:x", "-out", "locked", folder=tmp_path)
    (tmp_path / "text").write_text("hello")
    cases = {
        "none": "none: cannot be read: No such file",
        "text": r"text: is not a private key in PEM form \(make one with pipeline keys new\)",
        "rsa": "rsa: is a key of another kind than Ed25519",
        "locked": r"locked: is protected by a password \(decrypt it .*openssl pkey",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            keys.signer(tmp_path / name)
