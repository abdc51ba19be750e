"""A bundle is changed while frames run: tested first, swapped between frames, rolled back when it fails."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from test_trust import pem, private, signed

from runtime import swap as module
from runtime.bundle import open_bundle, pack_arrays, write_bundle
from runtime.errors import BundleError, SourceError, SwapError, UserError
from runtime.opening import Opening
from runtime.session import Session
from runtime.swap import TRIAL_FRAMES, Swap, Watcher
from runtime.trust import read_trust


@pytest.fixture
def started(tmp_path):
    """Starts swaps on ``live.npub``, version 1, and closes them."""
    tiny.write(tmp_path / "live.npub")
    opened = []

    def start(opening=None, **options):
        opened.append(Swap(tmp_path / "live.npub", opening or Opening(), **options))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def new(path, **changes):
    return tiny.write(path, **{"version": 2, **changes})


def wrong_golden(path):
    bundle = open_bundle(new(path))
    arrays = bundle.arrays("golden/outputs.npz")
    arrays["boxes_q"][0, 0, 0, 0, 0] ^= 1
    write_bundle(path, bundle.manifest, {**bundle.files, "golden/outputs.npz": pack_arrays(arrays)})
    return path


def test_a_new_bundle_takes_over_between_frames(tmp_path, started):
    said = []
    swap = started(tell=said.append)
    before = swap.session()
    swap.offer(new(tmp_path / "2.npub"))
    assert swap.wait(20).state == "ready"
    assert [outcome.state for outcome in said] == ["kept", "testing", "ready"]
    after = swap.session()
    assert (before.manifest.version, after.manifest.version) == (1, 2)
    assert before.detect(tiny.frames(1)[0]).boxes.shape == after.detect(tiny.frames(1)[0]).boxes.shape
    assert swap.outcome.state == "swapped"
    for _ in range(TRIAL_FRAMES):
        swap.session()
    assert swap.wait(20).state == "kept"
    assert not swap.failed(after, UserError("later"))


def test_frames_go_on_while_a_bundle_is_tested(tmp_path, started, monkeypatch):
    """The loop never waits: while the new bundle's self-test is held up, frames go on with the old one."""
    swap = started()
    held, right = threading.Event(), module.replay_session
    monkeypatch.setattr(module, "replay_session", lambda session: held.wait(20) and right(session))
    swap.offer(new(tmp_path / "2.npub"))
    frame = tiny.frames(1)[0]
    for _ in range(20):
        session = swap.session()
        session.detect(frame)
        assert session.manifest.version == 1
    held.set()
    swap.wait(20)
    assert swap.session().manifest.version == 2


def refused(swap, path):
    swap.offer(path)
    assert swap.wait(20).state == "refused"
    assert swap.session().manifest.version == 1
    return swap.outcome.reason


def test_bundles_that_are_refused_before_a_frame_runs(tmp_path, started):
    swap = started()
    (tmp_path / "rubbish.npub").write_bytes(b"rubbish")
    assert "rubbish.npub: is not a bundle" in refused(swap, tmp_path / "rubbish.npub")
    reason = refused(swap, wrong_golden(tmp_path / "wrong.npub"))
    assert "wrong.npub: fails its self-test: 1 of 768 bytes of boxes_q differ, asked is exact" in reason
    assert "other.npub: is other, and tiny runs here" in refused(swap, new(tmp_path / "other.npub", name="other"))
    assert "has other labels" in refused(swap, new(tmp_path / "labels.npub", labels=("dog",)))
    assert "none.npub: cannot be read" in refused(swap, tmp_path / "none.npub")


def test_a_bundle_that_fails_on_a_frame_is_rolled_back(tmp_path, started):
    swap = started()
    old = swap.session()
    swap.offer(new(tmp_path / "2.npub"))
    swap.wait(20)
    bad = swap.session()
    error = BundleError("ONNX Runtime failed on it")
    assert not swap.failed(bad, SourceError("a bad frame"))
    assert swap.failed(bad, error)
    assert swap.session() is old
    assert (swap.outcome.state, swap.outcome.version) == ("rolled back", 2)
    assert swap.outcome.reason == "ONNX Runtime failed on it"
    assert swap.failed(bad, error)
    assert not swap.failed(old, error)


def test_bytes_replace_the_file_once_they_have_proved_themselves(tmp_path, started):
    swap = started()
    before, data = (tmp_path / "live.npub").read_bytes(), new(tmp_path / "2.npub").read_bytes()
    swap.offer_bytes(data)
    swap.wait(20)
    for _ in range(TRIAL_FRAMES):
        swap.session()
    assert (tmp_path / "live.npub").read_bytes() == before
    swap.session()
    assert swap.wait(20).state == "kept"
    assert (tmp_path / "live.npub").read_bytes() == data


def test_bytes_that_cannot_be_written_still_run(tmp_path, started, monkeypatch):
    swap = started()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replace_file", full)
    swap.offer_bytes(new(tmp_path / "2.npub").read_bytes())
    swap.wait(20)
    for _ in range(TRIAL_FRAMES + 1):
        swap.session()
    outcome = swap.wait(20)
    assert outcome.state == "kept"
    assert (
        "live.npub: cannot be written: No space left on device; the bundle runs until the program ends"
        in outcome.reason
    )
    assert swap.session().manifest.version == 2


def test_trust_holds_for_what_is_offered_and_versions_count_once_kept(tmp_path, started):
    (tmp_path / "ci.pub").write_text(pem(private(1)))
    signed(tmp_path / "live.npub", 1)
    opening = Opening(read_trust(tmp_path / "ci.pub"), tmp_path / "state")
    swap = started(opening)
    assert "is not signed" in refused(swap, new(tmp_path / "2.npub"))
    assert "which is not in" in refused(swap, signed(tmp_path / "3.npub", 3, version=3))
    assert "is version 0 of tiny, and version 1 ran here" in refused(swap, signed(tmp_path / "0.npub", 1, version=0))
    swap.offer(signed(tmp_path / "2.npub", 1, version=2))
    swap.wait(20)
    for _ in range(TRIAL_FRAMES):
        swap.session()
    opening.open(tmp_path / "live.npub")
    swap.session()
    swap.wait(20)
    with pytest.raises(BundleError, match="is version 1 of tiny, and version 2 ran here before"):
        opening.open(tmp_path / "live.npub")


def test_a_state_that_cannot_be_written_is_reported(tmp_path, started, monkeypatch):
    swap = started()
    monkeypatch.setattr(Opening, "accept", lambda self, bundle: (_ for _ in ()).throw(UserError("no room")))
    swap.offer(new(tmp_path / "2.npub"))
    swap.wait(20)
    for _ in range(TRIAL_FRAMES + 1):
        swap.session()
    assert (swap.wait(20).state, swap.outcome.reason) == ("kept", "no room")


def test_the_same_bundle_is_not_swapped(tmp_path, started):
    swap = started()
    session = swap.session()
    swap.offer(tmp_path / "live.npub")
    assert swap.wait(20).state == "kept"
    assert swap.session() is session


def test_a_watched_file_that_changes_is_offered(tmp_path, started):
    swap = started()
    watcher = Watcher(tmp_path / "live.npub", swap, every=0.05)
    try:
        time.sleep(0.2)
        assert swap.session().manifest.version == 1
        new(tmp_path / "live.npub")
        deadline = time.monotonic() + 20
        while swap.session().manifest.version == 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert swap.session().manifest.version == 2
        (tmp_path / "live.npub").unlink()
        time.sleep(0.2)
        assert swap.session().manifest.version == 2
    finally:
        watcher.close()


def test_too_many_and_after_the_end(tmp_path, started, monkeypatch):
    swap = started()
    held = threading.Event()
    monkeypatch.setattr(Swap, "_consider", lambda self, path, data: held.wait(20))
    swap.offer(tmp_path / "live.npub")
    while swap._tasks.qsize():
        time.sleep(0.01)
    for _ in range(4):
        swap.offer(tmp_path / "live.npub")
    with pytest.raises(SwapError, match=r"live\.npub: 4 bundles wait to be tested already \(try again later\)"):
        swap.offer(tmp_path / "live.npub")
    watcher = Watcher(tmp_path / "live.npub", swap, every=0.02)
    new(tmp_path / "live.npub")
    time.sleep(0.2)
    held.set()
    deadline = time.monotonic() + 20
    while watcher._seen != watcher._look() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert watcher._seen == watcher._look()
    watcher.close()
    swap.close()
    with pytest.raises(SwapError, match="no bundle is taken any more: the program ends"):
        swap.offer(tmp_path / "live.npub")


def test_a_bundle_that_cannot_start(tmp_path):
    with pytest.raises(BundleError, match="fails its self-test"):
        Swap(wrong_golden(tmp_path / "wrong.npub"), Opening())
    bundle = open_bundle(new(tmp_path / "plain.npub"))
    write_bundle(
        tmp_path / "plain.npub",
        replace(bundle.manifest, golden=None),
        {name: data for name, data in bundle.files.items() if not name.startswith("golden/")},
    )
    swap = Swap(tmp_path / "plain.npub", Opening())
    assert isinstance(swap.session(), Session)
    assert np.isfinite(swap.session().detect(tiny.frames(1)[0]).scores).all()
    swap.close()


def test_a_device_whose_new_bundle_is_bad_comes_up_with_the_last_good_one(tmp_path, started):
    spare = tmp_path / "state" / "spare.npub"
    swap = started(spare=spare)
    good = (tmp_path / "live.npub").read_bytes()
    assert spare.read_bytes() == good
    wrong_golden(tmp_path / "live.npub")
    swap.offer(tmp_path / "live.npub")
    assert swap.wait(20).state == "refused"
    said = []
    again = started(spare=spare, tell=said.append)
    assert again.session().manifest.version == 1
    assert [outcome.state for outcome in said] == ["refused", "kept"]
    assert "fails its self-test" in said[0].reason
    new(tmp_path / "2.npub")
    again.offer_bytes((tmp_path / "2.npub").read_bytes())
    again.wait(20)
    for _ in range(TRIAL_FRAMES + 1):
        again.session()
    again.wait(20)
    assert spare.read_bytes() == (tmp_path / "live.npub").read_bytes() == (tmp_path / "2.npub").read_bytes()


def test_when_the_spare_one_is_bad_too(tmp_path):
    wrong_golden(tmp_path / "live.npub")
    (tmp_path / "spare.npub").write_bytes(b"rubbish")
    with pytest.raises(BundleError, match=r"spare\.npub: is not a bundle"):
        Swap(tmp_path / "live.npub", Opening(), spare=tmp_path / "spare.npub")
    signed(tmp_path / "1.npub", 1)
    (tmp_path / "ci.pub").write_text(pem(private(1)))
    nowhere = Opening(read_trust(tmp_path / "ci.pub"), Path("/proc/state"))
    with pytest.raises(UserError, match=r"/proc/state/.*json: cannot be written"):
        Swap(tmp_path / "1.npub", nowhere)
    with pytest.raises(BundleError, match=r"live\.npub: fails its self-test"):
        Swap(tmp_path / "live.npub", Opening(), spare=tmp_path / "none.npub")
