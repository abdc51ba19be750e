"""Sessions: partitions in order, the right delegate, golden vectors."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from runtime.adapters.detection import BoxDecoder, decode
from runtime.adapters.image import letterbox, quantize
from runtime.bundle import open_bundle
from runtime.delegates.cpu import CpuExecutable
from runtime.errors import SourceError, UserError
from runtime.npu.device import Device
from runtime.replay import replay
from runtime.session import Session
from runtime.tensors import TensorSpec


def test_the_tiny_model_is_sound():
    tiny.check()


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
    kinds = [type(executable) for _, executable in Session(bundle).partitions]
    assert kinds == [Device, CpuExecutable]
    kinds = [type(executable) for _, executable in Session(bundle, "cpu").partitions]
    assert kinds == [CpuExecutable, CpuExecutable]


def test_plain_is_the_npu_without_the_fast_path(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    assert replay(bundle, "plain").differing == 0
    devices = [Session(bundle, name).partitions[0][1] for name in ("npu", "plain")]
    assert [type(device) for device in devices] == [Device, Device]


def test_trace_has_every_crossing(split_bundle):
    session = Session(open_bundle(split_bundle))
    image = {"image": tiny.golden_images()[0]}
    values = session.trace(image)
    assert sorted(values) == ["boxes_q", "c", "image", "scores_q"]
    outputs = session.run(image)
    assert all(np.array_equal(values[name], outputs[name]) for name in tiny.OUTPUTS)


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
    with pytest.raises(UserError, match=r"there is no delegate 'gpu' \(choose from npu, plain, cpu, auto, ort:"):
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
