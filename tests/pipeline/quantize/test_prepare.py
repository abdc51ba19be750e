"""Models of the user's own: what is made ready, and what cannot be quantized."""

import numpy as np
import onnx
import pytest
from smallmodels import images, model, quantized, raw, run_onnx

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize.prepare import prepare

RANDOM = np.random.default_rng(1)


def saved(tmp_path, made):
    path = tmp_path / "model.onnx"
    onnx.save(made, path)
    return path


def normed(shape="1,3,8,8", opset=18):
    text = (f"g (float[{shape}] x) => (float[n,4,h,w] y) {{ a = Conv (x, w) \n"
            " b = BatchNormalization (a, s, b0, m, v) \n y = Relu (b) }")  # fmt: skip
    values = {name: RANDOM.uniform(0.5, 2, 4).astype(np.float32) for name in ("s", "b0", "m", "v")}
    return raw(text, opset, w=RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32), **values)


def test_batch_norms_are_folded_and_open_batches_fixed(tmp_path):
    made = normed("batch,3,8,8")
    ready = prepare(saved(tmp_path, made))
    assert ready.inputs == {"x": (1, 3, 8, 8)}
    assert [n.op for n in view(ready.model).nodes] == ["Conv", "Relu"]
    assert ready.notes == ("input x was fixed to [1, 3, 8, 8]", "fold-batch-norm: 1 place")
    image = images((1, 3, 8, 8))[0]
    np.testing.assert_allclose(run_onnx(ready.model, {"x": image})["y"], run_onnx(made, {"x": image})["y"], atol=1e-5)


def test_open_sizes_come_from_the_option(tmp_path):
    path = saved(tmp_path, normed("batch,3,height,width"))
    assert prepare(path, (10, 8)).inputs == {"x": (1, 3, 8, 10)}
    with pytest.raises(ModelError, match=r"open dimensions: \['batch', 3, 'height', 'width'\] \(fix them: --size"):
        prepare(path)


def refused(case):  # noqa: PLR0911 (a model for each)
    broken = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)
    broken[0, 0, 0, :2] = np.nan, np.inf
    conv = "g (float[1,3,8,8] x) => (float[1,4,6,6] y) { y = Conv (x, w) }"
    match case:
        case "quantized":
            floating = model(conv, w=np.ones((4, 3, 3, 3), np.float32))
            return quantized(floating, images((1, 3, 8, 8)))[0], "is quantized already: 5 of its operators"
        case "NaN":
            return raw(conv, w=broken), "w of Conv: the weight holds 2 values that are not finite"
        case "opset":
            return normed(opset=12), "has opset 12; 13 to 23 can be quantized"
        case "unread":
            made = raw("g (float[1,2] x, float[1,2] z) => (float[1,2] y) { y = Relu (x) }")
            return made, "z: no operator reads this input"
        case "integers":
            text = "g (int64[1,2] x) => (float[1,2] y) { y = Cast <to = 1> (x) }"
            return raw(text), "x: its input is int64, not float32"
        case "no output":
            made = raw("g (float[1,2] x) => (float[1,2] y) { y = Relu (x) }")
            del made.graph.output[:]
            return made, "has no output"
        case "constant output":
            return raw("g (float[1,2] x) => (float[1,2] y, float[2] k) { y = Relu (x) }", k=np.ones(2, np.float32)), (
                "k: this output is a constant"
            )
        case "one number":
            return raw("g (float x) => (float y) { y = Relu (x) }"), "x: its input is one number, or of no known rank"
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case", ["quantized", "NaN", "opset", "unread", "integers", "one number", "no output", "constant output"]
)
def test_what_cannot_be_quantized_is_named(tmp_path, case):
    made, message = refused(case)
    with pytest.raises(ModelError, match=message):
        prepare(saved(tmp_path, made))


def test_weights_that_an_old_exporter_lists_among_the_inputs_are_none(tmp_path):
    made = model("g (float[1,2] x) => (float[1,2] y) { y = Mul (x, w) }", w=np.float32([[1, 2]]))
    made.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1, 2]))
    assert prepare(saved(tmp_path, made)).inputs == {"x": (1, 2)}
