"""The bundle format: what is written, and everything that is refused."""

import hashlib
import io
import json
import os
import struct
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from runtime import archive, bundle
from runtime.bundle import open_bundle, write_bundle
from runtime.errors import BundleError, LimitError
from runtime.limits import Limits


def entries_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(tmp_path, source, change):
    """A bundle whose entries ``change`` has edited, the manifest's hashes left as they are."""
    entries = entries_of(source)
    change(entries)
    path = tmp_path / "changed.npub"
    path.write_bytes(archive.pack(entries))
    return path


def with_manifest(tmp_path, source, change):
    def edit(entries):
        manifest = json.loads(entries["manifest.json"])
        change(manifest)
        entries["manifest.json"] = json.dumps(manifest).encode()

    return rewritten(tmp_path, source, edit)


def test_roundtrip(tiny_bundle):
    opened = open_bundle(tiny_bundle)
    manifest, payloads = tiny.whole()
    assert replace(opened.manifest, files={}, golden=None) == manifest
    assert opened.read("programs/0.npup") == payloads["programs/0.npup"]
    assert opened.sha256 == hashlib.sha256(tiny_bundle.read_bytes()).hexdigest()
    assert opened.size == tiny_bundle.stat().st_size
    assert opened.manifest.files["models/0.onnx"].size == len(payloads["models/0.onnx"])


def test_same_input_gives_the_same_bytes(tmp_path, tiny_bundle):
    again = tiny.write(tmp_path / "other-name.npub")
    assert again.read_bytes() == tiny_bundle.read_bytes()


def test_other_programs_can_read_it(tiny_bundle):
    with zipfile.ZipFile(tiny_bundle) as file:
        assert file.testzip() is None
        assert file.namelist() == sorted(file.namelist())
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        with np.load(io.BytesIO(file.read("golden/inputs.npz"))) as arrays:
            assert np.array_equal(arrays["image"], tiny.golden_images())


def test_every_flipped_byte_is_noticed(tmp_path, tiny_bundle):
    data = tiny_bundle.read_bytes()
    path = tmp_path / "flipped.npub"
    positions = [*range(0, len(data), 37), *range(len(data) - 700, len(data))]
    for position in positions:
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        with pytest.raises(BundleError, match=r"flipped\.npub: "):
            open_bundle(path)


def test_every_truncation_is_noticed(tmp_path, tiny_bundle):
    data = tiny_bundle.read_bytes()
    path = tmp_path / "short.npub"
    for length in [*range(0, len(data), 101), *range(len(data) - 30, len(data))]:
        path.write_bytes(data[:length])
        with pytest.raises(BundleError, match="truncated"):
            open_bundle(path)


def test_trailing_bytes_are_noticed(tmp_path, tiny_bundle):
    path = tmp_path / "long.npub"
    data = tiny_bundle.read_bytes()
    path.write_bytes(data + data[-22:])
    with pytest.raises(BundleError, match="bytes that belong to no file"):
        open_bundle(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4", b"\0" * 100])
def test_not_a_bundle(tmp_path, content):
    path = tmp_path / "x.npub"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.npub: is not a bundle, or is truncated"):
        open_bundle(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BundleError, match=r"none\.npub: cannot be read: No such file"):
        open_bundle(tmp_path / "none.npub")
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        open_bundle(tmp_path)


def test_what_never_ends_is_not_read(tmp_path):
    with pytest.raises(BundleError, match="/dev/zero: is not a file"):
        open_bundle(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe.npub")
    with pytest.raises(BundleError, match=r"pipe\.npub: is not a file"):
        open_bundle(tmp_path / "pipe.npub")


def test_too_large(tmp_path, tiny_bundle, monkeypatch):
    with pytest.raises(LimitError, match=r"is larger than 1000 bytes \(the limit is bundle_bytes = 1000; --limits can"):
        open_bundle(tiny_bundle, limits=Limits(bundle_bytes=1000))
    monkeypatch.setattr(bundle, "LIMITS", Limits(bundle_bytes=1000))
    manifest, payloads = tiny.whole()
    with pytest.raises(LimitError, match=r"x\.npub: would have \d+ bytes"):
        write_bundle(tmp_path / "x.npub", manifest, payloads)
    assert list(tmp_path.iterdir()) == []


def test_what_a_bundle_asks_for_is_held_against_the_limits(tiny_bundle):
    cases = {
        "holds 5 files": Limits(files=4),
        r"manifest\.json: has \d+ bytes": Limits(json_bytes=100),
        r"manifest\.json: has lists or objects too deep": Limits(json_depth=3),
        r"manifest\.json: has too many values": Limits(json_values=50),
        r"tensor image has 4 dimensions": Limits(tensor_rank=3),
        r"tensor image has shape \[1, 3, 16, 24\]": Limits(tensor_elements=1151),
        "has tensors of 1632 elements together": Limits(all_elements=1631),
        r"models/0\.onnx: has too many nodes": Limits(model_nodes=3),
    }
    for message, limits in cases.items():
        with pytest.raises(LimitError, match=message):
            open_bundle(tiny_bundle, limits=limits)
    bundle = open_bundle(tiny_bundle, limits=Limits(array_bytes=100))
    with pytest.raises(LimitError, match=r"golden/inputs\.npz: unpacks to \d+ bytes of arrays"):
        bundle.arrays("golden/inputs.npz")


def test_entries_that_share_bytes(tmp_path):
    """A zip bomb whose files all lie over each other (D. Fifield, A better zip bomb, 2019)."""
    data = archive.pack({f"f{i:03}": bytes(10_000) for i in range(100)})
    start = struct.unpack_from("<L", data, len(data) - 6)[0]
    central = bytearray(data[start:])
    for index in range(100):
        central[index * 50 + 42 : index * 50 + 46] = bytes(4)
    path = tmp_path / "bomb.npub"
    path.write_bytes(data[:start] + bytes(central))
    with pytest.raises(BundleError, match="f001 shares bytes with another file"):
        open_bundle(path)


def test_a_link_to_a_bundle_is_followed_and_one_in_it_is_not(tmp_path, tiny_bundle):
    (tmp_path / "current.npub").symlink_to(tiny_bundle)
    assert open_bundle(tmp_path / "current.npub").manifest.name == "tiny"


def test_json_of_countless_small_values_is_refused_before_it_is_built(tmp_path, tiny_bundle):
    for content in (b'{"a":[' + b"[]," * 300_000 + b"[]]}", b'{"a":' + b"[" * 300_000):
        path = rewritten(tmp_path, tiny_bundle, lambda e, c=content: e.update({"manifest.json": c}))
        tracemalloc.start()
        with pytest.raises(LimitError, match=r"has too many values|too deep"):
            open_bundle(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * path.stat().st_size


def test_json_with_quotes_that_never_close(tmp_path, tiny_bundle):
    content = b'{"a": "' + b'\\"' * 1_000_000
    path = rewritten(tmp_path, tiny_bundle, lambda e: e.update({"manifest.json": content}))
    began = time.process_time()
    with pytest.raises(BundleError, match="is not JSON"):
        open_bundle(path)
    assert time.process_time() - began < 5


def test_no_manifest(tmp_path, tiny_bundle):
    path = rewritten(tmp_path, tiny_bundle, lambda e: e.pop("manifest.json"))
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        open_bundle(path)


def test_changed_missing_and_extra_files(tmp_path, tiny_bundle):
    def change(entries):
        entries["models/0.onnx"] = entries["models/0.onnx"][:-1] + b"!"

    with pytest.raises(BundleError, match=r"models/0\.onnx was changed: its SHA-256"):
        open_bundle(rewritten(tmp_path, tiny_bundle, change))
    with pytest.raises(BundleError, match=r"models/0\.onnx has 3 bytes, its manifest says \d+"):
        open_bundle(rewritten(tmp_path, tiny_bundle, lambda e: e.update({"models/0.onnx": b"abc"})))
    with pytest.raises(BundleError, match=r"programs/0\.npup is missing"):
        open_bundle(rewritten(tmp_path, tiny_bundle, lambda e: e.pop("programs/0.npup")))
    with pytest.raises(BundleError, match=r"holds extra\.txt, which its manifest does not name"):
        open_bundle(rewritten(tmp_path, tiny_bundle, lambda e: e.update({"extra.txt": b""})))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a\\b", "a/../b", ".hidden", "a//b", "", "C:x", "ä"])
def test_unsafe_names(tmp_path, tiny_bundle, name):
    path = rewritten(tmp_path, tiny_bundle, lambda e: e.update({name: b"x"}))
    with pytest.raises(BundleError, match="is not a plain relative path"):
        open_bundle(path)


def zipped(tmp_path, source, compression=zipfile.ZIP_STORED, extra=()):
    """The bundle's entries as zipfile writes them, then ``extra`` (info, data)."""
    path = tmp_path / "zipped.npub"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries_of(source).items():
            file.writestr(name, data)
        for info, data in extra:
            file.writestr(info, data)
    return path


def test_compressed_members(tmp_path, tiny_bundle):
    with pytest.raises(BundleError, match="is compressed; a bundle's files are stored plainly"):
        open_bundle(zipped(tmp_path, tiny_bundle, zipfile.ZIP_DEFLATED))


def test_repacked_by_another_program(tmp_path, tiny_bundle):
    with pytest.raises(BundleError, match=r"repacked by another program \(use the file as the package stage wrote it"):
        open_bundle(zipped(tmp_path, tiny_bundle))


def test_links(tmp_path, tiny_bundle):
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with pytest.raises(BundleError, match="link is a link"):
        open_bundle(zipped(tmp_path, tiny_bundle, extra=[(info, b"/etc/passwd")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names(tmp_path, tiny_bundle):
    with pytest.raises(BundleError, match=r"holds two files named manifest\.json"):
        open_bundle(zipped(tmp_path, tiny_bundle, extra=[("manifest.json", b"{}")]))


def patched(data, offset, values):
    return data[:offset] + values + data[offset + len(values) :]


def test_encrypted_damaged_and_misplaced_entries(tmp_path, tiny_bundle):
    data = tiny_bundle.read_bytes()
    start = struct.unpack_from("<L", data, len(data) - 6)[0]
    cases = {
        "is encrypted": patched(data, start + 8, b"\1"),
        "its directory cannot be read": patched(data, start, b"XX"),
        "lies beyond the end": patched(data, start + 42, b"\xff\xff\xff\x7f"),
        "is damaged \\(its checksum differs\\)": patched(data, 60, b"\xff\xff\xff\xff"),
        "repacked": patched(data, 10, b"\1"),
    }
    for message, content in cases.items():
        path = tmp_path / "patched.npub"
        path.write_bytes(content)
        with pytest.raises(BundleError, match=message):
            open_bundle(path)


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    manifest, payloads = tiny.whole()
    with pytest.raises(BundleError, match=r"x\.npub: cannot be written"):
        write_bundle(tmp_path / "file" / "x.npub", manifest, payloads)


def test_a_failed_write_leaves_the_earlier_bundle(tmp_path, monkeypatch):
    path = tiny.write(tmp_path / "x.npub")
    before = path.read_bytes()
    manifest, payloads = tiny.split()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(BundleError, match="cannot be written: No space left on device"):
        write_bundle(path, manifest, payloads)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.npub"]


def test_reading_what_is_not_there(tiny_bundle):
    opened = open_bundle(tiny_bundle)
    with pytest.raises(BundleError, match="has no file nothing"):
        opened.read("nothing")
    with pytest.raises(BundleError, match=r"models/0\.onnx: is not a file of arrays"):
        opened.arrays("models/0.onnx")
