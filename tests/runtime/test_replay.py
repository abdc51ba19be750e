"""Golden vectors: tensor by tensor, each partition from golden inputs."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.bundle import Bundle, open_bundle, pack_arrays
from runtime.delegates.cpu import CpuExecutable
from runtime.errors import BundleError
from runtime.npu.device import Device
from runtime.replay import replay
from runtime.tensors import TensorSpec


def test_replay_of_an_untouched_bundle(tiny_bundle):
    found = replay(open_bundle(tiny_bundle))
    assert (found.vectors, found.bytes, found.differing, found.passed) == (2, 2 * (96 + 4 * 96), 0, True)
    assert [(c.tensor, c.partition, c.rule) for c in found.crossings] == [
        ("scores_q", 0, "exact"),
        ("boxes_q", 0, "exact"),
    ]


def test_replay_counts_every_differing_byte(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    arrays = bundle.arrays("golden/outputs.npz")
    arrays["scores_q"][1, 0, 0, :3, 0] ^= 1
    files = {**bundle.files, "golden/outputs.npz": pack_arrays(arrays)}
    found = replay(replace(bundle, files=files))
    assert (found.differing, found.passed) == (3, False)


def test_a_step_of_a_cpu_partition_is_allowed_and_does_not_spread(split_bundle, monkeypatch):
    bundle = open_bundle(split_bundle)
    right = CpuExecutable.run
    other = {"off": 1}
    monkeypatch.setattr(
        CpuExecutable,
        "run",
        lambda self, tensors: {
            name: np.clip(value.astype(int) + other["off"], -128, 127).astype(np.int8)
            for name, value in right(self, tensors).items()
        },
    )
    found = replay(bundle)
    assert [(c.tensor, c.rule, c.worst, c.passed) for c in found.crossings] == [
        ("c", "exact", 0, True),
        ("scores_q", "one step", 1, True),
        ("boxes_q", "one step", 1, True),
    ]
    assert found.differing > 0
    other["off"] = 2
    assert not replay(bundle).passed


def test_a_step_of_the_npu_is_not_allowed_and_found_where_it_is(split_bundle, monkeypatch):
    right = Device.run
    monkeypatch.setattr(Device, "run", lambda self, tensors: {k: v ^ 1 for k, v in right(self, tensors).items()})
    found = replay(open_bundle(split_bundle))
    assert [(c.tensor, c.passed) for c in found.crossings] == [("c", False), ("scores_q", True), ("boxes_q", True)]
    assert found.crossings[0].differing == found.crossings[0].bytes


def test_an_npu_partition_in_floats_agrees_on_average(split_bundle):
    found = replay(open_bundle(split_bundle), "cpu")
    assert found.crossings[0].rule == "half a step on average"
    assert found.passed


def test_float_results_are_held_against_the_largest(split_bundle, monkeypatch):
    bundle = open_bundle(split_bundle)
    golden = bundle.arrays("golden/outputs.npz")
    arrays = {n: a.astype(np.float32) if n == "boxes_q" else a for n, a in golden.items()}
    tensors = tuple(
        TensorSpec(t.name, t.shape, "float32") if t.name == "boxes_q" else t for t in bundle.manifest.tensors
    )
    changed = replace(
        bundle,
        manifest=replace(bundle.manifest, tensors=tensors),
        files={**bundle.files, "golden/outputs.npz": pack_arrays(arrays)},
    )
    factor = {"is": 1.00005}
    right = CpuExecutable.run

    def run(self, tensors):
        found = right(self, tensors)
        return {**found, "boxes_q": found["boxes_q"].astype(np.float32) * np.float32(factor["is"])}

    monkeypatch.setattr(CpuExecutable, "run", run)
    monkeypatch.setattr("runtime.delegates.cpu._compare", lambda *facts: None)
    found = replay(changed)
    assert found.crossings[2].rule == "1e-4 of the largest"
    assert 4e-5 < found.crossings[2].worst < 6e-5
    assert found.passed
    factor["is"] = 1.001
    assert not replay(changed).passed


def with_golden(bundle: Bundle, **changes) -> Bundle:
    arrays = bundle.arrays("golden/inputs.npz") | changes
    return replace(bundle, files={**bundle.files, "golden/inputs.npz": pack_arrays(arrays)})


def test_golden_vectors_that_do_not_fit(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(
        BundleError, match=r"golden/inputs\.npz: image is int8 \[1, 3\], the manifest says int8 \[2, 1, 3"
    ):
        replay(with_golden(bundle, image=np.zeros((1, 3), np.int8)))
    with pytest.raises(BundleError, match=r"has arrays \['image', 'more'\], the manifest says \['image'\]"):
        replay(with_golden(bundle, more=np.zeros(1, np.int8)))
    with pytest.raises(BundleError, match=r"has no golden vectors \(package it with package\.golden\)"):
        replay(replace(bundle, manifest=replace(bundle.manifest, golden=None)))
