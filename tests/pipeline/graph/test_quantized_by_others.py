"""Models that ONNX Runtime's own quantizer made, with every option that changes the graph: all are digested."""

import itertools

import numpy as np
import onnx
import pytest
from anymodel import account, placed_on, same_in_pieces
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from smallmodels import model, target

from pipeline.graph.opening import open_model
from pipeline.targets.placement import NPU

GENERATOR = np.random.default_rng(0)


def weight(*shape):
    return GENERATOR.normal(0, 0.3, shape).astype(np.float32)


BODY = """
g (float[1,3,8,8] x) => (float[1,8,4,4] head, float[1,10] scores) {
  a = Conv <pads = [1,1,1,1]> (x, w1, b1)
  r = Relu (a)
  d = Conv <group = 8, pads = [1,1,1,1]> (r, wd, bd)
  c = Clip (d, low, high)
  s = Add (r, c)
  m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (s)
  t = Sigmoid (m)
  head = Mul (m, t)
  e = Conv (head, w1x1)
  k = Concat <axis = 1> (head, e)
  g = GlobalAveragePool (k)
  f = Flatten (g)
  l = Gemm <transB = 1> (f, wf, bf)
  n = MatMul (l, wm)
  scores = Softmax <axis = 1> (n)
}"""


@pytest.fixture(scope="module")
def floating(tmp_path_factory):
    """A network with a residual, a depthwise layer, a shared weight, a head that is also read, and a Softmax."""
    made = {}
    for opset in (13, 21):
        path = tmp_path_factory.mktemp("float") / f"{opset}.onnx"
        weights = {"w1": (8, 3, 3, 3), "b1": (8,), "wd": (8, 1, 3, 3), "bd": (8,), "w1x1": (8, 8, 1, 1)}
        weights |= {"wf": (12, 16), "bf": (12,), "wm": (12, 10)}
        limits = {"low": np.float32(0), "high": np.float32(6)}
        built = model(BODY, opset, **{name: weight(*shape) for name, shape in weights.items()}, **limits)
        onnx.save(built, path)
        made[opset] = path
    return made


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = [{"x": np.random.default_rng(i).normal(size=(1, 3, 8, 8)).astype(np.float32)} for i in range(2)]

    def get_next(self):
        return self.left.pop() if self.left else None


TYPES = {
    "u8s8": (QuantType.QUInt8, QuantType.QInt8),
    "s8s8": (QuantType.QInt8, QuantType.QInt8),
    "u8u8": (QuantType.QUInt8, QuantType.QUInt8),
    "u16s8": (QuantType.QUInt16, QuantType.QInt8),
    "s16s16": (QuantType.QInt16, QuantType.QInt16),
}
OPTIONS = {
    "plain": {},
    "symmetric": {"ActivationSymmetric": True, "WeightSymmetric": True},
    "dedicated": {"DedicatedQDQPair": True},
    "weights-in-graph": {"AddQDQPairToWeight": True},
    "output-only": {"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]},
    "no-bias": {"QuantizeBias": False},
    "contrib": {"UseQDQContribOps": True},
    "removable": {"QDQKeepRemovableActivations": True},
    "forced-inputs": {"ForceQuantizeNoInputCheck": True},
}


def quantized(path, folder, kinds, options, per_channel=False, ops=None):
    made = folder / "quantized.onnx"
    activation, weights = TYPES[kinds]
    quantize_static(
        path, made, Images(), quant_format=QuantFormat.QDQ, per_channel=per_channel, activation_type=activation,
        weight_type=weights, extra_options=options, op_types_to_quantize=ops,
    )  # fmt: skip
    return open_model(made)


def digested(opened, name="coral-edgetpu-usb3"):
    account(opened)
    placed = placed_on(opened, target(name))
    same_in_pieces(opened, placed)
    return placed


@pytest.mark.parametrize(("kinds", "per_channel", "opset"), list(itertools.product(TYPES, (False, True), (13, 21))))
def test_types_and_granularities(floating, tmp_path, kinds, per_channel, opset):
    opened = quantized(floating[opset], tmp_path, kinds, {}, per_channel)
    before = open_model(floating[opset])
    clamps = ("Relu", "Clip")  # the quantizer leaves out those that the range of the integers makes needless
    assert [n.op for n in opened.graph.nodes if n.op not in clamps] == [
        n.op for n in before.graph.nodes if n.op not in clamps
    ]
    conv = opened.graph.nodes[0]
    assert conv.inputs[0].quantization.dtype == str(np.dtype(TYPES[kinds][0].name.removeprefix("Q").lower()))
    assert conv.inputs[1].quantization.per_channel == per_channel
    placed = digested(opened)
    assert any(p.device == NPU for p in placed) == (kinds == "s8s8")  # the simulated NPU computes in int8


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_options(floating, tmp_path, option, per_channel):
    opened = quantized(floating[13], tmp_path, "s8s8", OPTIONS[option], per_channel)
    assert any(p.device == NPU for p in digested(opened))


@pytest.mark.parametrize("ops", [["Conv"], ["MatMul", "Gemm"], ["Add"], ["Conv", "Concat", "Mul"], ["Softmax"]])
def test_only_some_operators_quantized(floating, tmp_path, ops):
    digested(quantized(floating[13], tmp_path, "s8s8", {}, True, ops))


def test_types_that_change_within_the_network(floating, tmp_path):
    """Eight bits, and sixteen for one tensor: ONNX Runtime converts between them with pairs behind each other."""
    overrides = {
        "m": [{"quant_type": QuantType.QUInt16, "convert": {"quant_type": QuantType.QInt8, "recv_nodes": {"Sigmoid"}}}]
    }
    opened = quantized(floating[21], tmp_path, "s8s8", {"TensorQuantOverrides": overrides})
    digested(opened)
    requantized = [n for n in opened.graph.nodes if n.op == "QuantizeLinear"]
    assert requantized
    assert all(n.outputs[0].quantization is not None for n in requantized)


def test_operators_on_integers_are_fallbacks_and_said_to_be(floating, tmp_path):
    made = tmp_path / "quantized.onnx"
    quantize_static(floating[13], made, Images(), quant_format=QuantFormat.QOperator)
    opened = open_model(made)
    (note,) = [n for n in opened.notes if "QOperator form" in n]
    assert note.startswith("QGemm, QLinearAdd")
    assert note.endswith("quantize with quant_format=QuantFormat.QDQ")
    digested(opened)


def test_dynamic_quantization(floating, tmp_path):
    made = tmp_path / "quantized.onnx"
    quantize_dynamic(floating[13], made)
    opened = open_model(made)
    assert any("MatMulInteger" in n for n in opened.notes)
    digested(opened)
