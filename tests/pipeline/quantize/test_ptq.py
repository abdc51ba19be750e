"""Calibration, encodings, and quantized models as files."""

import json
import math

import numpy as np
import onnx
import pytest
from smallmodels import PER_CHANNEL, images, model, quantized, raw, run_onnx, whole
from smallmodels import target as profile

from pipeline.compile.lower import lower
from pipeline.errors import DataError, ModelError
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding, load
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.qdq import round_weight
from pipeline.quantize.ranges import CHOICES
from pipeline.quantize.scheme import FIXED_OUTPUT, Scheme
from pipeline.quantize.weights import BIAS_LIMIT
from runtime.npu.encoding import dumps

RANDOM = np.random.default_rng(11)
IMAGE = (1, 3, 8, 8)


def normal(*shape, scale=1.0):
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def small_net():
    generator = np.random.default_rng(2)

    def normal(*shape, scale=1.0):
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    return model(
        "g (float[1,3,8,8] image) => (float[1,4,8,8] scores, float[1,4,4,4] boxes) {"
        " a = Conv <pads = [1,1,1,1]> (image, w1, b1) \n r = Clip (a, zero, six)"
        " scores = Conv <pads = [1,1,1,1]> (r, w2, b2) \n p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r)"
        " boxes = Conv (p, w3) }",
        w1=normal(6, 3, 3, 3, scale=0.5), b1=normal(6), w2=normal(4, 6, 3, 3, scale=0.3), b2=normal(4),
        w3=normal(4, 6, 1, 1), zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


def sqnr(exact, coarse):
    return 10 * math.log10(float((exact**2).sum()) / float(((exact - coarse) ** 2).sum()))


@pytest.mark.parametrize("choice", sorted(CHOICES.keys() - {"moving-average"}))  # that one clips noise
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantized_network_is_valid_and_close_to_float(per_channel, choice):
    floating = small_net()
    lossy, scales = quantized(floating, images(IMAGE, count=16), dict.fromkeys(PER_CHANNEL, per_channel), choice)
    onnx.checker.check_model(lossy, full_check=True)
    assert [o.name for o in lossy.graph.output] == ["scores", "boxes"]
    assert {e.axis for e in scales.weights.values()} == {0 if per_channel else None}
    for image in images(IMAGE, count=2, seed=5):
        exact, coarse = run_onnx(floating, {"image": image}), run_onnx(lossy, {"image": image})
        for name in ("scores", "boxes"):
            assert coarse[name].shape == exact[name].shape
            assert sqnr(exact[name], coarse[name]) > 25
    for tensor in lossy.graph.initializer:
        if tensor.name.endswith("_quantized") and tensor.data_type == onnx.TensorProto.INT8:
            integers = onnx.numpy_helper.to_array(tensor)
            assert integers.min() >= -127
            assert max(abs(int(integers.min())), int(integers.max())) == 127


def test_the_same_model_and_images_give_the_same_bytes():
    first, again = (quantized(small_net_fixed(), images(IMAGE))[0] for _ in range(2))
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def small_net_fixed():
    w = np.linspace(-1, 1, 27, dtype=np.float32).reshape(1, 3, 3, 3)
    return model("g (float[1,3,8,8] x) => (float[1,1,6,6] y) { y = Conv (x, w) }", w=w)


def test_a_model_that_is_not_finite_is_named():
    weight = np.full((1, 3, 1, 1), np.inf, np.float32)
    floating = model("g (float[1,3,8,8] x) => (float[1,1,8,8] y) { a = Conv (x, w) \n y = Relu (a) }", w=weight)
    with pytest.raises(ModelError, match="a: is not finite on calibration image 1"):
        calibrate(floating, view(floating), images(IMAGE))
    healthy = calibrate(small_net_fixed(), view(small_net_fixed()), images(IMAGE)).histograms
    broken = model(
        "g (float[1,3,8,8] x) => (float[1,1,6,6] y) { y = Conv (x, w) }", w=np.full((1, 3, 3, 3), np.nan, np.float32)
    )
    with pytest.raises(ModelError, match="Conv: the weight holds values that are not finite"):
        quantize(view(broken), healthy, Scheme(PER_CHANNEL), Choosing())
    w = np.ones((1, 3, 3, 3), np.float32)
    broken = model("g (float[1,3,8,8] x) => (float[1,1,6,6] y) { y = Conv (x, w, b) }", w=w, b=np.float32([np.nan]))
    with pytest.raises(ModelError, match="Conv: the bias holds values that are not finite"):
        quantize(view(broken), healthy, Scheme(PER_CHANNEL), Choosing())


def test_calibration_says_what_it_lacks():
    floating = small_net_fixed()
    with pytest.raises(DataError, match="calibration got no images"):
        calibrate(floating, view(floating), [])
    two = model("g (float[1,2] x, float[1,2] z) => (float[1,2] y) { y = Add (x, z) }")
    with pytest.raises(ValueError, match="the network's inputs are x, z; given are x"):
        calibrate(two, view(two), images((1, 2)))
    foreign = model("g (float[1,2] x) => (float[1,2] y) { y = my.Mystery (x) }")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run it.*Mystery") as error:
        calibrate(foreign, view(foreign), images((1, 2)))
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="x: was not calibrated"):
        quantize(view(floating), {}, Scheme(PER_CHANNEL), Choosing())


def test_every_activation_but_fused_ones_is_encoded():
    floating = small_net()
    scales = quantized(floating, images(IMAGE))[1]
    assert scales.activations.keys() == {"image", "r", "scores", "p", "boxes"}
    assert scales.activations["r"] == scales.activations["p"]


def test_the_input_is_never_clipped():
    floating = small_net_fixed()
    seen = images(IMAGE, count=1)
    seen[0][0, 0, 0, 0] = 40.0
    encoding = quantized(floating, seen, choice="percentile")[1].activations["x"]
    assert encoding.high == 40.0


def encodings(text, shape, **constants):
    return quantized(model(text, **constants), images(shape))[1].activations


def test_same_scale_reaches_through_chains():
    made = encodings(
        "g (float[1,2,4,4] x) => (float[1,10,4,4] y) { a = Erf (x) \n b = Exp (x) \n c = Concat <axis = 1> (a, b)"
        " d = MaxPool <kernel_shape = [1,1]> (x) \n e = Concat <axis = 1> (c, d) \n f = Neg (x)"
        " y = Concat <axis = 1> (e, f, f) }", (1, 2, 4, 4),
    )  # fmt: skip
    assert len({(e.scale, e.zero_point) for e in made.values()}) == 1
    assert made["y"].high == pytest.approx(np.e, abs=0.1)
    assert made["y"].low <= -0.99


@pytest.mark.parametrize("op", FIXED_OUTPUT)
def test_fixed_outputs_reach_through_copies(op):
    made = encodings(
        f"g (float[1,2,4,4] x) => (float[32] y) {{ a = {op} (x) \n b = Transpose (a) \n y = Reshape (b, s) }}",
        (1, 2, 4, 4), s=np.array([-1], np.int64),
    )  # fmt: skip
    assert {(made[t].scale, made[t].zero_point) for t in "aby"} == {FIXED_OUTPUT[op]}
    assert (made["x"].scale, made["x"].zero_point) != FIXED_OUTPUT[op]


def weights_of(lossy):
    return {n.name: (n.inputs[1], n.input(2)) for n in view(lossy).nodes if n.op in PER_CHANNEL}


def test_tiny_weights_get_scales_that_let_the_bias_fit():
    w = np.stack([np.full((3, 1, 1), 1e-9), np.ones((3, 1, 1)), np.zeros((3, 1, 1))]).astype(np.float32)
    floating = model("g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Conv (x, w, b) }", w=w, b=np.float32([5, -7, 3]))
    lossy, _ = quantized(floating, images(IMAGE))
    weight, bias = weights_of(lossy)["Conv"]
    assert np.abs(bias.constant).max() <= BIAS_LIMIT * 1.0001
    np.testing.assert_allclose(bias.real, [5, -7, 3], rtol=1e-5)
    assert np.all(np.isfinite(weight.quantization.scale))
    seen, partition = whole(lossy)
    assert dumps(lower(seen, partition.nodes, partition.inputs, partition.outputs, profile()))


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_shared_weight_and_bias_suit_every_user(per_channel):
    # One user's input is tiny, so the shared bias needs a wider weight scale there.
    text = (
        "g (float[1,2,4,4] x) => (float[1,2,4,4] p, float[1,2,4,4] q) {"
        " t = Mul (x, small) \n p = Conv (t, w, b) \n q = Conv (x, w, b) }"
    )
    w, b = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1) * 1e-4, np.float32([50.0, -1.0])
    floating = model(text, w=w, b=b, small=np.float32(1e-3))
    lossy, scales = quantized(floating, images((1, 2, 4, 4)), dict.fromkeys(PER_CHANNEL, per_channel))
    made = weights_of(lossy)
    assert len(scales.weights) == 1
    first, second = made.values()
    np.testing.assert_array_equal(first[0].quantization.scale, second[0].quantization.scale)
    for (_, bias), source in zip(made.values(), ("t", "x"), strict=True):
        np.testing.assert_allclose(bias.real, b, rtol=1e-5)
        expected = np.float32(scales.activations[source].scale) * np.float32(scales.weights["w"].scales)
        np.testing.assert_allclose(bias.quantization.scale, np.squeeze(expected), rtol=1e-6)
        assert np.abs(bias.constant.astype(np.int64)).max() <= BIAS_LIMIT * 1.0001


def test_one_weight_along_two_axes_is_quantized_as_one():
    floating = model(
        "g (float[1,3] x) => (float[1,3] y) { a = Gemm (x, w) \n y = Gemm <transB = 1> (a, w) }", w=normal(3, 3)
    )
    lossy, scales = quantized(floating, images((1, 3)), dict.fromkeys(PER_CHANNEL, True))
    assert scales.weights["w"].axis is None
    assert run_onnx(lossy, {"x": images((1, 3))[0]})["y"].shape == (1, 3)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), ()])
def test_fully_connected_layers(transposed, per_channel, shape):
    weight = normal(5, 12) * np.float32([[0.01], [1], [10], [0.1], [1]])
    floating = model(
        f"g (float[3,12] x) => (float[3,5] y) {{ y = Gemm <transB = {transposed}> (x, w, b) }}",
        w=weight if transposed else np.ascontiguousarray(weight.T), b=normal(*shape),
    )  # fmt: skip
    lossy, scales = quantized(floating, images((3, 12)), dict.fromkeys(PER_CHANNEL, per_channel))
    assert scales.weights["w"].axis == ((0 if transposed else 1) if per_channel else None)
    image = images((3, 12))[0]
    assert sqnr(run_onnx(floating, {"x": image})["y"], run_onnx(lossy, {"x": image})["y"]) > 25
    assert weights_of(lossy)["Gemm"][1].constant.shape == (5,)


def test_a_bias_per_row_stays_real():
    floating = model("g (float[3,12] x) => (float[3,5] y) { y = Gemm (x, w, b) }", w=normal(12, 5), b=normal(3, 1))
    lossy, _ = quantized(floating, images((3, 12)))
    assert weights_of(lossy)["Gemm"][1].dtype == "float32"
    assert sqnr(*(run_onnx(m, {"x": images((3, 12))[0]})["y"] for m in (floating, lossy))) > 25


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions(group):
    floating = model(
        f"g (float[1,4,5,5] x) => (float[1,6,7,7] y) {{ y = ConvTranspose <group = {group}> (x, w, b) }}",
        w=normal(4, 6 // group, 3, 3), b=normal(6),
    )  # fmt: skip
    lossy, scales = quantized(floating, images((1, 4, 5, 5)))
    assert scales.weights["w"].axis == (1 if group == 1 else None)
    assert sqnr(*(run_onnx(m, {"x": images((1, 4, 5, 5))[0]})["y"] for m in (floating, lossy))) > 25


def test_weights_round_to_nearest_even_within_127():
    encoding = WeightEncoding((1.0, 0.5), 1)
    values = np.float32([[0.5, 0.25], [1.5, -0.75], [-200, 200], [127.4, -63.5]])
    np.testing.assert_array_equal(round_weight(values, encoding), [[0, 0], [2, -2], [-127, 127], [127, -127]])


def test_encodings_that_name_nothing_and_old_opsets_are_refused():
    scales = Encodings({"ghost": ActivationEncoding(0, 1, 1 / 255, -128)}, {})
    with pytest.raises(ModelError, match="the encodings name tensors that the model does not have: ghost"):
        qdq.insert(small_net_fixed(), scales)
    old = raw("g (float[1,3] x) => (float[1,3] y) { y = Relu (x) }", 12)
    with pytest.raises(ModelError, match=r"has opset 12, quantize/dequantize pairs need 13 \(export it"):
        qdq.insert(old, Encodings({}, {}))


def test_pairs_on_unnamed_nodes_constant_nodes_and_dead_ends():
    built = raw(
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { w = Constant <value = float[2,2,1,1] {1, 2, 3, 4}> ()"
        " d = Conv (x, v) \n a = Conv (x, w) \n y = Conv (a, w) }", v=np.ones((1, 2, 1, 1), np.float32),
    )  # fmt: skip
    inferred = onnx.shape_inference.infer_shapes(built)
    seen = view(inferred)
    scales = quantize(seen, calibrate(inferred, seen, images((1, 2, 4, 4))).histograms, Scheme(PER_CHANNEL), Choosing())
    lossy = qdq.insert(inferred, scales)
    image = images((1, 2, 4, 4))[0]
    assert sqnr(run_onnx(inferred, {"x": image})["y"], run_onnx(lossy, {"x": image})["y"]) > 25
    assert set(scales.weights) == {"w"}


def some_encodings():
    return Encodings(
        {"x": ActivationEncoding(-1.25, 0.1, 0.1 + 0.2, -3)},
        {"w": WeightEncoding((1e-30, 1 / 3), 0), "v": WeightEncoding((0.5,), None)},
    )


def test_encodings_round_trip(tmp_path):
    path = tmp_path / "encodings.json"
    some_encodings().save(path)
    assert load(path) == some_encodings()


BAD = {
    "empty": ("", "Expecting value"),
    "a list": ("[]", "not an encodings file"),
    "no schema": ("{}", "'schema' is missing"),
    "newer": ('{"schema": 99}', "has schema 99, this version reads 1"),
    "lists": ('{"schema": 1, "activations": [1], "weights": {}}', "not an encodings file"),
    "no weights": ('{"schema": 1, "activations": {}}', "'weights' is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_encodings_file_is_named(tmp_path, case):
    path = tmp_path / "encodings.json"
    content, message = BAD[case]
    path.write_text(content)
    with pytest.raises(ModelError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    with pytest.raises(ModelError, match="No such file"):
        load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("entry", "key", "value"),
    [("x", "scale", 0), ("x", "scale", "big"), ("x", "zero_point", 200), ("x", "low", math.nan), ("x", "high", None),
     ("w", "scales", []), ("w", "scales", [-1]), ("w", "scales", 3), ("w", "axis", "a"), ("v", "scales", [1, 2])],
)  # fmt: skip
def test_impossible_encodings_are_named(tmp_path, entry, key, value):
    path = tmp_path / "encodings.json"
    some_encodings().save(path)
    document = json.loads(path.read_text())
    document["activations" if entry == "x" else "weights"][entry][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"is not an encodings file.*\(run with --from quantize\)"):
        load(path)
