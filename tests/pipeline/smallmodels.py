"""Small ONNX models for tests, written as text; their quantized form; and both engines to run them on."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser

from pipeline.compile.bundling import Use, bundle
from pipeline.compile.lower import lower
from pipeline.compile.partitions import Partition, cut, onnx_models
from pipeline.compile.support import no_kernel
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import Scheme
from pipeline.targets import library
from pipeline.targets.placement import by_kernel, place
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import Preprocess
from runtime.npu.device import Device

TARGETS = Path(__file__).parents[2] / "configs" / "targets"
PER_CHANNEL = {"Conv": True, "ConvTranspose": True, "Gemm": False, "MatMul": False}


def target(name="coral-edgetpu-usb3"):
    return library.load(TARGETS / f"{name}.yaml")


def raw(text, opset=18, **constants):
    """The model of ``text``, ``g (float[1,2,3,4] x) => (float[1,2,3,4] y) { y = Relu(x) }``, with initializers."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "my" : 1]> {text}')
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def model(text, opset=18, **constants):
    """As ``raw``, checked, with shapes and names."""
    return check(raw(text, opset, **constants), "test")


def graph(text, opset=18, **constants):
    return view(model(text, opset, **constants))


def node(text, **constants):
    """The only operator of a one-operator model."""
    (only,) = graph(text, **constants).nodes
    return only


def images(shape, count=3, seed=0, low=-1.0, high=1.0):
    generator = np.random.default_rng(seed)
    return [generator.uniform(low, high, shape).astype(np.float32) for _ in range(count)]


def run_onnx(model, feeds, optimized=False):
    """The outputs by name, from ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def quantized(model, seen, per_channel=None, choice="minmax", **rules):
    """``model`` calibrated with the images ``seen``, with pairs, checked; and its encodings."""
    taken = calibrate(model, view(model), seen).histograms
    scheme = Scheme(per_channel or PER_CHANNEL, **rules)
    scales = quantize(view(model), taken, scheme, Choosing(choice))
    return check(qdq.insert(model, scales), "test"), scales


def whole(model):
    """A quantized model as one NPU partition."""
    seen = view(model)
    return seen, Partition("npu", seen.nodes, seen.inputs, seen.outputs)


def program(model, contract=None):
    """A quantized model as one program, for a contract or that of a target of 8 bits."""
    seen, partition = whole(model)
    on = target() if contract is None else target().model_copy(update={"contract": contract})
    return lower(seen, partition.nodes, partition.inputs, partition.outputs, on)


def both(model, count=4, seed=1):
    """Random integers through ONNX Runtime and through the device: pairs of int8 arrays, output by output.

    The plain and the fast device must agree.
    """
    seen, partition = whole(model)
    (piece,) = onnx_models(model, [partition])
    compiled = program(model)
    plain, fast = Device(compiled, fast=False), Device(compiled, fast=True)
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        feeds = {t.wire: generator.integers(-128, 128, t.dims).astype(np.int8) for t in seen.inputs}
        expected, found, again = run_onnx(piece, feeds), plain.run(feeds), fast.run(feeds)
        for name, values in found.items():
            np.testing.assert_array_equal(values, again[name])
            pairs.append((expected[name], values))
    return pairs


def pair(name, real, scale, zero=0):
    """Text of a quantize/dequantize pair from ``real`` to ``name``; integers in ``name_q``, constants inline."""
    return f"""
      {name}_s = Constant <value = float {{{scale}}}> ()
      {name}_z = Constant <value = int8 {{{zero}}}> ()
      {name}_q = QuantizeLinear ({real}, {name}_s, {name}_z)
      {name} = DequantizeLinear ({name}_q, {name}_s, {name}_z)"""


def names(model: onnx.ModelProto):
    return [n.name for n in model.graph.node]


_BUNDLED = """g (float[1,3,16,16] image) => (float[1,1,16,16] scores, float[1,4,16,16] boxes) {
    a = Relu (image)
    scores = Conv (a, w)
    boxes = Conv (a, v)
}"""


def small_bundle(path, **use):
    """A bundle of a network of three operators, with one golden vector, at ``path``."""
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=(c, 3, 1, 1)).astype(np.float32) for n, c in (("w", 1), ("v", 4))}
    lossy = quantized(model(_BUNDLED, **weights), images((1, 3, 16, 16), low=0.0))[0]
    whole = view(lossy)
    partitions = cut(whole, place(whole, by_kernel(no_kernel), None))
    about = Use("tiny", ("a",), Preprocess(16, 16, (0, 0, 0), (1, 1, 1)), BoxDecoder(1, 0.5, 0.5, 10), (), {}, **use)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    bundle(path, about, whole, partitions, onnx_models(lossy, partitions), target(), golden=[pixels])
    return path
