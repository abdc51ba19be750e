"""A device's policy: trust, versions that only go up, limits; and the options that say so."""

import argparse
import json
from pathlib import Path

import pytest
import tiny
from test_trust import pem, private, signed

from runtime import versions
from runtime.bundle import open_bundle
from runtime.errors import BundleError, TrustError, UserError
from runtime.limits import LIMITS, Limits, read_limits
from runtime.opening import Opening, add_options, read_options
from runtime.trust import read_trust


@pytest.fixture
def opening(tmp_path):
    (tmp_path / "ci.pub").write_text(pem(private(1)))
    return Opening(read_trust(tmp_path / "ci.pub"), tmp_path / "state")


def test_versions_only_go_up(tmp_path, opening):
    paths = {number: signed(tmp_path / f"{number}.npub", 1, version=number) for number in (1, 2, 3)}
    opening.open(paths[3])
    opening.accept(opening.open(paths[2]))
    with pytest.raises(TrustError, match=r"1\.npub: is version 1 of tiny, and version 2 ran here before \(publish it"):
        opening.open(paths[1])
    opening.accept(opening.open(paths[2]))
    opening.accept(opening.open(paths[3]))
    with pytest.raises(TrustError, match="is version 2 of tiny, and version 3 ran here before"):
        opening.open(paths[2])
    other = signed(tmp_path / "other.npub", 1, name="other", version=1)
    opening.accept(opening.open(other))
    opening.open(paths[3])
    assert sorted(json.loads(file.read_text())["name"] for file in (tmp_path / "state").iterdir()) == ["other", "tiny"]


def test_a_lower_version_does_not_lower_the_state(tmp_path, opening):
    for number in (3, 1):
        versions.record(tmp_path / "state", open_bundle(signed(tmp_path / "x.npub", 1, version=number)).manifest)
    assert versions.highest(tmp_path / "state", "tiny") == 3


def test_without_trust_there_is_no_state(tmp_path, tiny_bundle):
    opening = Opening(None, tmp_path / "state")
    opening.accept(opening.open(tiny_bundle))
    assert not (tmp_path / "state").exists()


def test_a_damaged_state_is_not_forgotten(tmp_path, opening):
    path = signed(tmp_path / "1.npub", 1, version=1)
    opening.accept(opening.open(path))
    (state,) = (tmp_path / "state").iterdir()
    state.write_text("{")
    with pytest.raises(BundleError, match=r"state/[0-9a-f]{16}\.json: is not JSON"):
        opening.open(path)
    state.write_text('{"name": "other", "version": 0}')
    with pytest.raises(TrustError, match="is the state of 'other', not of 'tiny'"):
        opening.open(path)
    state.unlink()
    state.mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        opening.open(path)


def test_a_state_that_cannot_be_written(tmp_path, opening):
    bundle = opening.open(signed(tmp_path / "1.npub", 1))
    with pytest.raises(UserError, match=r"/proc/state/[0-9a-f]{16}\.json: cannot be written: "):
        versions.record(Path("/proc/state"), bundle.manifest)


def test_where_the_state_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert versions.default_folder() == tmp_path / ".local/state/npu-run"
    with monkeypatch.context() as homeless:
        homeless.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine")))
        with pytest.raises(UserError, match=r"there is no home folder .* \(name one with --state\)"):
            versions.default_folder()
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert str(versions.default_folder()) == "/x/npu-run"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/npu-run:/var/lib/other")
    assert str(versions.default_folder()) == "/var/lib/npu-run"


def test_options(tmp_path):
    (tmp_path / "ci.pub").write_text(pem(private(1)))
    (tmp_path / "limits.json").write_text('{"bundle_bytes": 100}')
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert read_options(parser.parse_args([])) == Opening()
    words = ["--trust", "ci.pub", "--state", "s", "--limits", "limits.json"]
    found = read_options(parser.parse_args([word if word[0] == "-" else str(tmp_path / word) for word in words]))
    assert (found.trust.keys[0].name, found.state, found.limits) == ("ci", tmp_path / "s", Limits(bundle_bytes=100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"bundel_bytes": 1}', r"bundel_bytes is not a key \(did you mean bundle_bytes\?\)"),
        ('{"files": 0}', "files is 0; it must be at least 1"),
        ('{"files": 1.5}', "files is 1.5, not a whole number"),
        ("[", "is not JSON"),
    ],
)
def test_limits_that_are_none(tmp_path, text, message):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_limits(tmp_path / "l.json")


def test_limits_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_limits(tmp_path / "none.json")
    (tmp_path / "l.json").write_text("{}")
    assert read_limits(tmp_path / "l.json") == LIMITS


def test_the_tiny_bundle_is_far_below_the_limits(tiny_bundle):
    assert open_bundle(tiny_bundle).size < LIMITS.bundle_bytes / 1000
    assert tiny.SPECS["image"].shape == (1, 3, 16, 24)
