import hashlib
import json
import os

import pytest

from pipeline import digests
from pipeline.digests import Digests
from pipeline.files import remove_unfinished, write_atomically


@pytest.fixture
def old(tmp_path):
    """A file that has not been touched for an hour."""
    path = tmp_path / "data" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(b"first")
    return path


def count_reads(monkeypatch):
    reads = []
    real = digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: reads.append(path) or real(path))
    return reads


def settle(monkeypatch):
    """Pretend that an hour has passed."""
    now = digests.time.time_ns()
    monkeypatch.setattr(digests.time, "time_ns", lambda: now + 3600 * 10**9)


def test_a_digest_is_sha256(old):
    assert Digests().file(old) == hashlib.sha256(b"first").hexdigest() == Digests().tree(old)


def test_an_untouched_file_is_read_once_also_by_the_next_process(old, tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    settle(monkeypatch)
    first = Digests(tmp_path / "cache")
    assert first.file(old) == first.file(old)
    first.save()
    assert Digests(tmp_path / "cache").file(old) == first.file(old)
    assert len(reads) == 1
    Digests(tmp_path / "cache").file(old, reread=True)
    assert len(reads) == 2


def test_a_file_that_may_change_within_the_clocks_resolution_is_read_again(old, monkeypatch):
    reads = count_reads(monkeypatch)
    known = Digests()
    known.file(old)
    known.file(old)
    assert len(reads) == 2


def test_a_change_that_keeps_size_and_modification_time_is_noticed(old, monkeypatch):
    settle(monkeypatch)
    known = Digests()
    before, status = known.file(old), old.stat()
    old.write_bytes(b"secon")
    os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert old.stat().st_mtime_ns == status.st_mtime_ns
    assert known.file(old) != before


def test_a_folder_is_its_names_and_bytes(old):
    folder, known = old.parent, Digests()
    before = known.tree(folder)
    (folder / "sub").mkdir()
    assert known.tree(folder) == before
    (folder / "sub" / "b.bin").write_bytes(b"")
    with_file = known.tree(folder)
    (folder / "sub" / "b.bin").rename(folder / "sub" / "c.bin")
    assert len({before, with_file, known.tree(folder)}) == 3


def test_missing_files_and_folders_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        Digests().file(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        digests.files_in(tmp_path / "none")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_cache_is_an_empty_one(old, tmp_path, text):
    (tmp_path / "cache").write_bytes(text)
    assert Digests(tmp_path / "cache").file(old) == hashlib.sha256(b"first").hexdigest()


def test_nothing_new_writes_nothing(tmp_path):
    Digests(tmp_path / "cache").save()
    assert not (tmp_path / "cache").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.json", b"old")]


def test_half_written_files_are_removed(tmp_path):
    (tmp_path / ".x.json.tmp").write_text("{")
    (tmp_path / "x.json").write_text(json.dumps({}))
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
