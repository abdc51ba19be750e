"""Sessions: partitions in order, the right delegate, golden vectors."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from runtime.adapters.detection import BoxDecoder, decode
from runtime.adapters.image import letterbox, quantize
from runtime.bundle import Bundle, open_bundle, pack_arrays
from runtime.delegates.cpu import CpuExecutable
from runtime.errors import BundleError, SourceError, UserError
from runtime.npu.device import Device
from runtime.session import DELEGATES, Replay, Session, replay
from runtime.tensors import TensorSpec


def test_the_tiny_model_is_sound():
    tiny.check()


def test_replay_of_an_untouched_bundle(tiny_bundle):
    assert replay(open_bundle(tiny_bundle)) == Replay(vectors=2, bytes=2 * (96 + 4 * 96), differing=0)


def test_replay_counts_every_differing_byte(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    arrays = bundle.arrays("golden/outputs.npz")
    arrays["scores_q"][1, 0, 0, :3, 0] ^= 1
    files = {**bundle.files, "golden/outputs.npz": pack_arrays(arrays)}
    assert replay(replace(bundle, files=files)).differing == 3


def test_npu_and_cpu_agree_within_a_step_of_every_layer(tiny_bundle, split_bundle):
    for path in (tiny_bundle, split_bundle):
        bundle = open_bundle(path)
        image = {"image": tiny.golden_images()[0]}
        npu, cpu = Session(bundle, "npu").run(image), Session(bundle, "cpu").run(image)
        for name in tiny.OUTPUTS:
            assert npu[name].dtype == cpu[name].dtype == np.int8
            difference = npu[name].astype(int) - cpu[name]
            assert np.abs(difference).max() <= 2
            assert np.std(npu[name].astype(int)) > 5


def test_split_runs_the_body_on_the_npu_bit_for_bit(tiny_bundle, split_bundle):
    bundle = open_bundle(split_bundle)
    kinds = [type(executable) for _, executable in Session(bundle)._executables]
    assert kinds == [Device, CpuExecutable]
    kinds = [type(executable) for _, executable in Session(bundle, "cpu")._executables]
    assert kinds == [CpuExecutable, CpuExecutable]


def test_every_delegate_serves_both_devices():
    assert sorted(DELEGATES) == ["cpu", "npu", "plain"]
    assert all(sorted(table) == ["cpu", "npu"] for table in DELEGATES.values())


def test_plain_is_the_npu_without_the_fast_path(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    assert replay(bundle, "plain").differing == 0
    fast, plain = (DELEGATES[name]["npu"] for name in ("npu", "plain"))
    assert (fast.fast, plain.fast) == (True, False)


def test_infer_and_detect_are_the_pieces_put_together(tiny_bundle):
    session = Session(open_bundle(tiny_bundle))
    frame = tiny.frames(1)[0]
    pixels, placement = letterbox(frame, tiny.WIDTH, tiny.HEIGHT)
    image = quantize(pixels, session.manifest.preprocess, tiny.SPECS["image"])
    raw = tiny.plain_run({"image": image})
    outputs = session.infer(pixels)
    assert list(outputs) == ["scores", "boxes"]
    for name, array in outputs.items():
        spec = tiny.SPECS[f"{name}_q"]
        assert array.dtype == np.float32
        expected = (raw[spec.name].astype(np.int32) - spec.zero_point).astype(np.float32) * np.float32(spec.scale)
        assert np.array_equal(array, expected)
    expected = decode(outputs, BoxDecoder(2, 0.3, 0.5, 20), placement, (96, 64))
    found = session.detect(frame)
    assert np.array_equal(found.boxes, expected.boxes)
    assert np.array_equal(found.scores, expected.scores)
    assert len(found.scores) > 0


def test_a_float_input_is_normalized(tiny_bundle, monkeypatch):
    bundle = open_bundle(tiny_bundle)
    seen = {}
    session = Session(bundle)
    specs = (TensorSpec("image", (1, 3, 16, 24), "float32"), *bundle.manifest.tensors[1:])
    session.manifest = replace(bundle.manifest, tensors=specs)
    outputs = tiny.plain_run({"image": tiny.golden_images()[0]})
    monkeypatch.setattr(session, "run", lambda tensors: seen.update(tensors) or outputs)
    session.infer(np.full((16, 24, 3), 51, np.uint8))
    assert seen["image"].dtype == np.float32
    assert np.allclose(seen["image"], 0.2)


def test_unknown_delegate(tiny_bundle):
    with pytest.raises(UserError, match=r"there is no delegate 'gpu' \(choose from npu, plain, cpu\)"):
        Session(open_bundle(tiny_bundle), "gpu")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, r"inputs are \[\], the bundle takes \['image'\]"),
        ({"image": 0, "more": 0}, r"inputs are \['image', 'more'\]"),
        (
            {"image": np.zeros((1, 3, 16, 24), np.uint8)},
            r"input image is uint8 \[1, 3, 16, 24\], the bundle takes int8",
        ),
        ({"image": np.zeros((1, 3, 16, 23), np.int8)}, r"input image is int8 \[1, 3, 16, 23\]"),
    ],
)
def test_wrong_inputs(tiny_bundle, tensors, message):
    with pytest.raises(UserError, match=message):
        Session(open_bundle(tiny_bundle)).run(tensors)


@pytest.mark.parametrize("pixels", [np.zeros((24, 16, 3), np.uint8), np.zeros((16, 24, 3), np.float32)])
def test_wrong_pixels(tiny_bundle, pixels):
    with pytest.raises(SourceError, match=r"the network takes uint8 \[16, 24, 3\]"):
        Session(open_bundle(tiny_bundle)).infer(pixels)


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
