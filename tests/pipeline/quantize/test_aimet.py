"""Encodings that AIMET 2.42.0 exported of ``enginenets.net``, after 9 calibration images, in each of its versions."""

import json
from pathlib import Path

import numpy as np
import pytest
from enginenets import net, smooth
from smallmodels import quantized, run_onnx, target

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize import aimet, qdq
from pipeline.quantize import scheme as schemes
from pipeline.quantize.engine import Engine

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
SIMULATED = np.float32([
    [2.48986, 4.97973, 2.63462, 0.46323, -0.11581, -1.62131],
    [2.72148, 4.5744, 2.54777, 0.34742, -0.14476, -1.76607],
    [2.77938, 4.02432, 1.88187, -0.83961, -1.36074, -2.40301],
])  # fmt: skip
"""What AIMET's own simulation computes from ``smooth(3, seed=5)``."""
SCHEME = schemes.of(target())


def file(version):
    return Path(__file__).parent / f"aimet-{version}.json"


def loaded(path):
    return aimet.load(path, view(net()), SCHEME)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_computes_what_aimet_simulates(version):
    found = loaded(file(version))
    engine = Engine(qdq.insert(net(), found), target())
    assert {unit.device for unit in engine.units} == {"npu"}
    step = found.activations["y"].scale
    for image, wanted in zip(smooth(3, seed=5), SIMULATED, strict=True):
        own, real = engine.run(image)["y"][0], run_onnx(net(), {"x": image})["y"][0]
        assert np.abs(own - wanted).max() <= 2.01 * step
        assert np.abs(own - wanted).max() < np.abs(real - wanted).max()


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_the_versions_say_the_same(version):
    assert loaded(file(version)) == loaded(file("0.6.1"))


def test_what_is_fused_has_no_encoding_and_what_only_moves_has_that_of_its_input():
    found = loaded(file("1.0.0"))
    assert found.activations.keys() == {"x", "b", "d", "e", "f", "p", "q", "y"}
    assert found.activations["q"] == found.activations["p"]  # the file has none of q
    assert found.activations["x"].zero_point == 0
    assert found.activations["d"].zero_point == 165 - 128
    assert [len(found.weights[f"w{n}"].scales) for n in (1, 2, 3, 4)] == [12, 12, 12, 6]


def changed(tmp_path, version, change):
    document = json.loads(file(version).read_text())
    change(document)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    return path


def activation(document, name):
    return next(e for e in document["activation_encodings"] if e["name"] == name)


def weight(document, name):
    return next(e for e in document["param_encodings"] if e["name"] == name)


WRONG = {
    "another version": (lambda d: d.update(version="3.1"), "has version 3.1; AIMET's 0.6.1, 1.0.0, 2.0.0 are read"),
    "4 bits": (lambda d: weight(d, "w1").update(bw=4), "the weight w1 has 4 bits"),
    "asymmetric": (lambda d: weight(d, "w1").update(offset=[-120] * 12), "has 8 bits and zero point -8"),
    "blocks": (lambda d: weight(d, "w1").update(enc_type="PER_BLOCK"), "w1 has scales PER_BLOCK"),
    "other channels": (lambda d: weight(d, "w4").update(scale=[1.0] * 5), r"w4 of shape \[6, 12\] has 5 scales"),
    "per channel": (lambda d: activation(d, "b").update(scale=[1.0, 1.0]), "the activation b has 2 scales of 8 bits"),
    "16 bits, asymmetric": (lambda d: activation(d, "b").update(bw=16, offset=[-9]), "b is int16 with zero point"),
    "no scale": (lambda d: activation(d, "b").update(scale=[0.0]), "b has scale 0.0"),
    "another model": (
        lambda d: d.update(activation_encodings=[{**activation(d, "b"), "name": "other"}]), "names no activation",
    ),
    "a zero point beyond": (lambda d: activation(d, "b").update(offset=[-999]), "b is int8 with zero point 871"),
    "an infinite offset": (lambda d: activation(d, "b").update(offset=[float("inf")]), "is not an encodings file"),
    "scales left out": (lambda d: activation(d, "b").update(scale=[]), "an entry has 0 scales and 1 zero points"),
    "offsets left out": (lambda d: weight(d, "w1").update(offset=[]), "an entry has 12 scales and 0 zero points"),
    "no section": (lambda d: d.pop("param_encodings"), "is not an encodings file: 'param_encodings'"),
    "neither": (lambda d: d.pop("version"), "is not an encodings file: 'schema' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_no_contract_has_is_named(tmp_path, case):
    change, message = WRONG[case]
    with pytest.raises(ModelError, match=message):
        loaded(changed(tmp_path, "1.0.0", change))


def test_a_tensor_of_no_parts_and_brackets_without_end(tmp_path):
    path = changed(tmp_path, "0.6.1", lambda d: d["activation_encodings"].update(b=[]))
    with pytest.raises(ModelError, match="is not an encodings file"):
        loaded(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ModelError, match="is not an encodings file"):
        loaded(path)


@pytest.mark.parametrize(("symmetric", "zero"), [(False, -1), (True, 0)])
def test_one_level_fewer_only_where_the_tensor_is_symmetric(tmp_path, symmetric, zero):
    def first(document):
        activation(document, "b").update(offset=[-127.0], is_sym=symmetric)

    def zeroth(document):
        document["activation_encodings"]["b"][0].update(offset=-127.0, is_symmetric=str(symmetric))

    for version, change in (("1.0.0", first), ("0.6.1", zeroth)):
        assert loaded(changed(tmp_path, version, change)).activations["b"].zero_point == zero


def test_scales_for_blocks_in_the_newest_version(tmp_path):
    path = changed(tmp_path, "2.0.0", lambda d: d["encodings"][0].update(y_scale=[[1.0], [1.0]]))
    with pytest.raises(ModelError, match="w1 has scales for blocks"):
        loaded(path)


def test_real_tensors_stay_real_and_sixteen_bits_are_int16(tmp_path):
    def change(document):
        for name in ("e", "f"):
            activation(document, name).update(bw=16, offset=[-32768], scale=[1 / 4096])
        activation(document, "y").update(dtype="FLOAT", bw=16)

    both = target().model_copy(update={"contract": "tflite-r1/tflite-r8"})
    found = aimet.load(changed(tmp_path, "1.0.0", change), view(net()), schemes.of(both))
    assert {n for n, e in found.activations.items() if e.dtype == "int16"} == {"e", "f"}
    assert "y" not in found.activations
    assert found.converted.keys() == {"b", "d", "f"}
    devices = {unit.name: unit.device for unit in Engine(qdq.insert(net(), found), both).units}
    assert {name for name, device in devices.items() if device == "cpu"} == {"Gemm"}


def test_our_own_file_is_read_too(tmp_path):
    found = loaded(file("1.0.0"))
    found.save(tmp_path / "own.json")
    assert loaded(tmp_path / "own.json") == found
    (tmp_path / "own.json").write_text("[1]")
    with pytest.raises(ModelError, match="is not an encodings file"):
        loaded(tmp_path / "own.json")


def levels(encodings):
    """What integers mean, without the ranges that they were chosen for."""
    return {n: (e.scale, e.zero_point, e.dtype) for n, e in encodings.activations.items()}, encodings.weights


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_is_written_for_aimet_is_read_back(tmp_path, per_channel):
    _, scales = quantized(net(), smooth(9, seed=1), dict.fromkeys(("Conv", "Gemm"), per_channel))
    path = tmp_path / "net.encodings"
    path.write_text(aimet.text(scales))
    assert levels(loaded(path)) == levels(scales)


def test_sixteen_bits_are_written_too(tmp_path):
    both = schemes.of(target().model_copy(update={"contract": "tflite-r1/tflite-r8"}))
    given = changed(tmp_path, "1.0.0", lambda d: activation(d, "e").update(bw=16, offset=[-32768], scale=[1 / 4096]))
    found = aimet.load(given, view(net()), both)
    given.write_text(aimet.text(found))
    assert aimet.load(given, view(net()), both) == found
    assert found.activations["e"].dtype == "int16"


def test_aimet_simulates_what_the_engine_computes_with_what_is_written(tmp_path):
    quantsim = pytest.importorskip("aimet_onnx.quantsim")
    _, scales = quantized(net(), smooth(9, seed=1))
    path = tmp_path / "net.encodings"
    path.write_text(aimet.text(scales))
    simulation = quantsim.QuantizationSimModel(net())
    quantsim.load_encodings_to_sim(simulation, str(path), strict=False)
    known = {n: q.get_encodings() for n, q in simulation.qc_quantize_op_dict.items() if q.enabled}
    for name, encoding in scales.activations.items():
        (theirs,) = known[name]
        assert (theirs.delta, theirs.offset) == (encoding.scale, -128 - encoding.zero_point)
    for name, weight in scales.weights.items():
        assert [(each.delta, each.offset) for each in known[name]] == [(scale, -128) for scale in weight.scales]
    engine = Engine(qdq.insert(net(), scales), target())
    for image in smooth(3, seed=5):
        own, theirs = engine.run(image)["y"], simulation.session.run(None, {"x": image})[0]
        assert np.abs(own - theirs).max() <= 1.01 * scales.activations["y"].scale
