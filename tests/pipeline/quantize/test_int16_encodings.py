"""int16 activations in encodings and in quantized files."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from smallmodels import images, model, run_onnx, target

from pipeline.errors import ModelError, TargetError
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.encodings import ActivationEncoding, Encodings, load, require_scheme
from pipeline.quantize.engine import Engine
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import Scheme, of
from pipeline.quantize.sensitivity import sensitivities
from pipeline.quantize.walk import walk
from pipeline.targets.profile import Target

SHAPE = (1, 3, 8, 8)
BOTH = target().model_copy(update={"contract": "tflite-r1/tflite-r8"})


def only_int16() -> Target:
    quantization = target().quantization.model_copy(update={"activations": "int16", "symmetric": True})
    return target().model_copy(update={"contract": "tflite-r8", "quantization": quantization})


def network(opset=18):
    rng = np.random.default_rng(4)
    return model(
        "g (float[1,3,8,8] x) => (float[1,4,4,4] y) {"
        " a = Conv (x, w, b) \n r = Relu (a) \n s = Sigmoid (r) \n m = Mul (r, s)"
        " p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (m) \n y = Conv (p, v) }",
        opset,
        w=rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        b=rng.normal(size=4).astype(np.float32),
        v=rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
    )  # fmt: skip


def encoded(wide=(), where=BOTH, choice="mse", by_tensor=None):
    floating = network()
    taken = calibrate(floating, view(floating), images(SHAPE, count=4)).histograms
    return quantize(view(floating), taken, of(where), Choosing(choice, wide=frozenset(wide), by_tensor=by_tensor or {}))


def test_a_target_of_both_types_says_so():
    assert of(target()).types == ("int8",)
    assert of(BOTH).types == ("int8", "int16")
    assert (of(only_int16()).types, of(only_int16()).activations) == (("int16",), "int16")
    with pytest.raises(TargetError, match="computes with int8; models are quantized to int16"):
        of(only_int16().model_copy(update={"contract": "tflite-r1"}))


def test_int16_covers_all_that_was_seen_without_a_zero_point():
    found = encoded({"r"}).activations["r"]
    seen = max(float(run_onnx(_with_output(network(), "r"), {"x": i})["r"].max()) for i in images(SHAPE, count=4))
    assert (found.dtype, found.zero_point) == ("int16", 0)
    assert found.scale == pytest.approx(seen / 32767, rel=1e-6)
    chosen = encoded({"r"}, by_tensor={"r": (0.0, 1.0)}).activations["r"]
    assert chosen.scale == float(np.float32(1 / 32767))


def _with_output(floating, name):
    floating.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return floating


def test_tensors_that_share_a_scale_are_wide_together():
    assert {n for n, e in encoded({"p"}).activations.items() if e.dtype == "int16"} == {"m", "p"}


def test_fixed_outputs_are_int16s_own():
    found = encoded({"s"}).activations["s"]
    assert (found.scale, found.zero_point, found.dtype) == (1 / 32768, 0, "int16")


def test_what_the_other_type_reads_is_converted():
    found = encoded({"r"})
    assert set(found.converted) == {"x", "r"}
    narrow, wide = found.activations["x"], found.converted["x"]
    assert (wide.scale, wide.zero_point, wide.dtype) == (narrow.scale / 128, 0, "int16")
    assert found.converted["r"].dtype == "int8"
    assert (found.converted["r"].scale, found.converted["r"].zero_point) == of(BOTH).activation(
        found.activations["r"].low, found.activations["r"].high
    )
    assert found.read("r", "int16") == found.activations["r"]
    assert found.read("r", "int8") == found.converted["r"]
    assert found.read("nothing", "int8") is None


def test_a_target_with_int16_alone_has_nothing_else():
    found = encoded(where=only_int16())
    assert {e.dtype for e in found.activations.values()} == {"int16"}
    assert not found.converted


def test_int16_is_refused_where_the_target_has_none():
    with pytest.raises(ModelError, match="the target computes with int8, not with int16"):
        encoded({"r"}, where=target())
    with pytest.raises(ModelError, match="y is int16; the target computes with int8"):
        require_scheme(Encodings({"y": ActivationEncoding(-1, 1, 1 / 32767, 0, "int16")}, {}), Scheme(), "file")
    third = Encodings({"y": ActivationEncoding(0, 1, 0.3, -128)}, {})
    with pytest.raises(ModelError, match=r"file: y has scale 0\.3, no power of two"):
        require_scheme(third, Scheme(power_of_two=True), "file")
    require_scheme(Encodings({"y": ActivationEncoding(0, 1, 0.25, -128)}, {}), Scheme(power_of_two=True), "file")


def test_encodings_keep_their_types_on_disk(tmp_path):
    found, path = encoded({"r", "s"}), tmp_path / "encodings.json"
    found.save(path)
    assert load(path) == found
    document = json.loads(path.read_text())
    document["activations"]["r"]["zero_point"] = 3
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match="zero point 3 are no int16 range"):
        load(path)
    for entry in document["activations"].values():
        del entry["dtype"]
    del document["converted"]
    path.write_text(json.dumps(document))
    assert {e.dtype for e in load(path).activations.values()} == {"int8"}


@pytest.mark.parametrize("wide", [{"r"}, {"x", "s"}, {"y"}, {"x", "r", "s", "m", "y"}])
def test_the_file_is_valid_and_computes_what_the_engine_does(wide):
    floating, scales = network(), encoded(wide)
    lossy = check(qdq.insert(floating, scales), "test")
    onnx.checker.check_model(lossy, full_check=True)
    assert [o.version for o in lossy.opset_import if o.domain == ""] == [21]
    kinds = {i.name: i.data_type for i in lossy.graph.initializer if i.name.endswith("_zero_point")}
    assert {n for n, kind in kinds.items() if kind == TensorProto.INT16} == {
        f"{n}_zero_point" for n, e in scales.activations.items() if e.dtype == "int16"
    } | {f"{n}_{e.dtype}_zero_point" for n, e in scales.converted.items() if e.dtype == "int16"}
    engine = Engine(lossy, BOTH)
    assert {u.device for u in engine.units} == {"npu"}
    for image in images(SHAPE, count=3):
        through_onnx, ours = run_onnx(lossy, {"x": image})["y"], engine.run(image)["y"]
        assert np.abs(through_onnx - ours).max() <= 4 * scales.activations["y"].scale


def test_layers_are_walked_across_the_types():
    floating, scales = network(), encoded({"r", "y"})
    engine = Engine(check(qdq.insert(floating, scales), "test"), BOTH)
    rows = sensitivities(engine, floating, images(SHAPE, count=2))
    assert [r.op for r in rows] == ["Conv", "Sigmoid", "Mul", "MaxPool", "Conv"]
    assert len(engine.units) == len(rows) + len(scales.converted)
    assert all(r.sqnr_db > 25 for r in rows)
    narrow = Engine(check(qdq.insert(floating, encoded()), "test"), BOTH)
    before = sensitivities(narrow, floating, images(SHAPE, count=2))
    assert rows[0].alone_db > before[0].alone_db + 1


def test_a_tensor_that_both_types_read_in_turn_is_there_for_each_and_gone_after_the_last():
    weights = {w: np.random.default_rng(7).normal(size=(3, 3, 1, 1)).astype(np.float32) for w in "abcd"}
    floating = model(
        "g (float[1,3,8,8] x) => (float[1,3,8,8] u, float[1,3,8,8] n, float[1,3,8,8] z)"
        " { t = Conv (x, a) \n u = Conv (t, b) \n n = Conv (t, c) \n z = Conv (t, d) }",
        **weights,
    )
    seen = images(SHAPE, count=2)
    taken = calibrate(floating, view(floating), seen).histograms
    scales = quantize(view(floating), taken, of(BOTH), Choosing("mse", wide=frozenset({"u", "z"})))
    steps = list(walk(Engine(check(qdq.insert(floating, scales), "test"), BOTH), floating, seen))
    assert [name for step in steps for _, name in step.outputs()] == ["t", "u", "n", "z"]
    assert steps[-1].real_inputs == [{}, {}]
