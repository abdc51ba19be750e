"""Golden vectors come from the plain kernels, so that a wrong fast path cannot vouch for itself."""

from smallmodels import small_bundle

from runtime.bundle import open_bundle
from runtime.npu.device import Device
from runtime.replay import replay


def test_a_wrong_fast_path_is_found_by_the_golden_vectors(tmp_path, monkeypatch):
    path = small_bundle(tmp_path / "tiny.npub")
    assert replay(open_bundle(path)).differing == 0
    right = Device.run
    monkeypatch.setattr(Device, "run", lambda self, tensors: {k: v ^ 1 for k, v in right(self, tensors).items()})
    found = replay(open_bundle(path))
    assert found.differing == found.bytes > 0
