"""Graphs with int16 activations, alone and beside int8: what is lowered, what is refused, and what it computes."""

import math

import numpy as np
import pytest
from smallmodels import graph, images, model, pair, run_onnx, target

from pipeline.compile.lower import lower
from pipeline.compile.memories import Layout
from pipeline.compile.scheduling import schedule
from pipeline.compile.support import no_kernel
from pipeline.errors import ModelError
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import of
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.machine import Machine
from runtime.npu.schedule import Memory
from runtime.npu.verify import verify

BOTH = target().model_copy(update={"contract": "tflite-r1/tflite-r8"})
SHAPE = (1, 4, 9, 11)


def normal(*shape, scale=0.3):
    return (np.random.default_rng([3, *shape]).standard_normal(shape) * scale).astype(np.float32)


def typed(floating, wide, seen):
    """``floating`` with ``wide`` activations in int16, and its program."""
    taken = calibrate(floating, view(floating), seen).histograms
    scales = quantize(view(floating), taken, of(BOTH), Choosing("minmax", wide=frozenset(wide)))
    lossy = check(qdq.insert(floating, scales), "test")
    whole = view(lossy)
    return lossy, lower(whole, whole.nodes, whole.inputs, whole.outputs, BOTH)


def reals(program, image):
    """The program's outputs as real numbers for a float image; the fast device must agree with the plain one."""
    specs = {t.name: t for t in program.tensors}
    (name,) = program.inputs
    limits = np.iinfo(specs[name].dtype)
    rounded = np.rint(image / specs[name].scale) + specs[name].zero_point
    feeds = {name: np.clip(rounded, limits.min, limits.max).astype(specs[name].dtype)}
    plain, fast = Device(program, fast=False).run(feeds), Device(program, threads=1).run(feeds)
    for wire, values in plain.items():
        np.testing.assert_array_equal(values, fast[wire])
    return [specs[wire].dequantize(values) for wire, values in plain.items()]


HALVED = "y = MaxPool <kernel_shape = [2,2], strides = [2,2]> (z)"
TWICE = {"s": np.array([1, 4, 18, 22])}

UNARY = {
    "Conv": ("y = Conv <pads = [1,1,1,1]> (x, w, b)", {"w": normal(4, 4, 3, 3), "b": normal(4)}),
    "depthwise": ("y = Conv <group = 4, pads = [1,1,1,1]> (x, w)", {"w": normal(4, 1, 3, 3)}),
    "ConvTranspose": ("y = ConvTranspose <pads = [1,1,1,1]> (x, w)", {"w": normal(4, 4, 3, 3)}),
    "clamped": (
        "z = Conv (x, w) \n y = Clip (z, low, high)",
        {"w": normal(4, 4, 1, 1), "low": np.float32(-0.2), "high": np.float32(0.4)},
    ),
    "MatMul": ("y = MatMul (x, w)", {"w": normal(11, 11)}),
    "two MatMul": ("t = Transpose <perm = [0,1,3,2]> (x) \n z = MatMul (x, t) \n y = MatMul (z, x)", {}),
    "Add": ("y = Add (x, x)", {}),
    "Add of a constant": ("y = Add (x, w)", {"w": normal(1, 4, 1, 1)}),
    "Sub": ("z = Conv (x, w) \n y = Sub (z, x)", {"w": normal(4, 4, 1, 1)}),
    "Mul": ("y = Mul (x, x)", {}),
    "Max": ("z = Conv (x, w) \n y = Max (z, x)", {"w": normal(4, 4, 1, 1)}),
    "Relu": ("y = Relu (x)", {}),
    "LeakyRelu": ("y = LeakyRelu <alpha = 0.1> (x)", {}),
    "PRelu": ("y = PRelu (x, w)", {"w": normal(4, 1, 1)}),
    "Sigmoid": ("y = Sigmoid (x)", {}),
    "Sigmoid rescaled": (
        "s = Sigmoid (x) \n z = Conv (x, w) \n c = Concat <axis = 1> (s, z) \n y = Conv (c, v)",
        {"w": normal(4, 4, 1, 1, scale=2), "v": normal(4, 8, 1, 1)},
    ),
    "Tanh": ("y = Tanh (x)", {}),
    "Softmax": ("y = Softmax <axis = 1> (x)", {}),
    "MaxPool": ("y = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)", {}),
    "AveragePool": ("y = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)", {}),
    "GlobalAveragePool": ("z = GlobalAveragePool (x) \n y = Add (x, z)", {}),
    "ReduceSum": ("z = ReduceSum (x, a) \n y = Add (x, z)", {"a": np.array([2, 3])}),
    "ReduceMax": ("z = ReduceMax (x, a) \n y = Add (x, z)", {"a": np.array([1])}),
    "Concat": ("z, v = Split <axis = 1, num_outputs = 2> (x) \n y = Concat <axis = 1> (v, z)", {}),
    "Pad and Slice": (
        "z = Pad (x, p) \n y = Slice (z, s, e)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 2, 2]), "s": np.array([0, 0, 1, 1]), "e": np.array([1, 4, 10, 12])},
    ),
    "linear Resize": (f'z = Resize <mode = "linear"> (x, , , s) {HALVED}', TWICE),
    "nearest Resize": (
        f'z = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , , s) {HALVED}',
        TWICE,
    ),
    "Depth and Space": ("z = DepthToSpace <blocksize = 2> (x) \n y = SpaceToDepth <blocksize = 2> (z)", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", UNARY)
def test_an_int16_operator_is_as_near_to_float_as_int16_allows(case):
    body, constants = UNARY[case]
    floating = model(f"g (float[1,4,9,11] x) => (float[1,4,9,11] y) {{ {body} }}", **constants)
    seen = images(SHAPE, count=4)
    lossy, program = typed(floating, {t.name for n in view(floating).nodes for t in (*n.activations, *n.outputs)}, seen)
    assert {t.dtype for t in program.tensors} == {"int16"}
    exact_weights = "w" not in constants or case in ("Add of a constant", "PRelu")
    for image in seen:
        real, (found,) = run_onnx(floating, {"x": image})["y"], reals(program, image)
        noise = math.sqrt(float(((real - found) ** 2).mean() / (real**2).mean()))
        assert noise < (6e-4 if exact_weights else 1.2e-2), f"{case}: {noise:.2g}"
        through_onnx = run_onnx(lossy, {"x": image})["y"]
        assert math.sqrt(float(((through_onnx - found) ** 2).mean() / (real**2).mean())) < 1e-3


def two_convolutions():
    return model(
        "g (float[1,4,9,11] x) => (float[1,4,9,11] y) { z = Conv (x, w) \n r = Relu (z) \n y = Conv (r, v) }",
        w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1, scale=0.5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wide", "opcodes", "types"),
    [
        ((), ["conv2d", "conv2d"], {"x": "int8", "r": "int8", "y": "int8"}),
        (("y",), ["conv2d", "requantize", "conv2d"], {"x": "int8", "r": "int8", "y": "int16"}),
        (("r",), ["requantize", "conv2d", "requantize", "conv2d"], {"x": "int8", "r": "int16", "y": "int8"}),
        (("x", "r", "y"), ["conv2d", "conv2d"], {"x": "int16", "r": "int16", "y": "int16"}),
    ],
)
def test_an_operator_computes_in_the_type_of_its_output(wide, opcodes, types):
    floating, seen = two_convolutions(), images(SHAPE, count=4)
    lossy, program = typed(floating, wide, seen)
    assert [i.opcode for i in program.instructions] == opcodes
    names = {t.name.removesuffix("_real"): t.quantization.dtype for t in _tensors(lossy) if t.quantization is not None}
    assert {n: names[n] for n in types} == types
    for image in seen:
        real, (found,) = run_onnx(floating, {"x": image})["y"], reals(program, image)
        assert math.sqrt(float(((real - found) ** 2).mean() / (real**2).mean())) < 3e-2


def _tensors(lossy):
    seen = view(lossy)
    return [*seen.inputs, *(t for n in seen.nodes for t in n.outputs)]


def test_int8_read_as_int16_loses_nothing():
    _, program = typed(two_convolutions(), {"y"}, images(SHAPE))
    (item,) = [i for i in program.instructions if i.opcode == "requantize"]
    specs = {t.name: t for t in program.tensors}
    source, result = specs[item.inputs[0]], specs[item.output]
    every = np.arange(-128, 128).astype(np.int8)
    values = np.resize(every, source.shape)
    prefix = type(program)("test", program.contract, {}, (source, result), (source.name,), (result.name,), (item,))
    found = Device(prefix, fast=False).run({source.name: values})[result.name]
    np.testing.assert_array_equal(result.dequantize(found), source.dequantize(values))
    np.testing.assert_array_equal(Device(prefix).run({source.name: values})[result.name], found)


def int16(name, real, scale):
    return pair(name, real, scale).replace("value = int8 {0}", "value = int16 {0}")


def one(body, opset=21, **constants):
    text = f"g (float[1,4] x0) => (float[1,4] y) {{ {int16('x', 'x0', 0.001)} \n {body} {int16('y', 'r', 0.001)} }}"
    return graph(text, opset, **constants)


REFUSED = [
    ("r = HardSwish (x)", "HardSwish is a table of 256 entries, int16 has more values"),
    ("r = Elu (x)", "Elu is a table of 256 entries, int16 has more values"),
    ("r = LeakyRelu <alpha = -0.5> (x)", "has a slope above 0 with int16, this one has -0.5"),
    (pair("a", "x0", 0.1) + "\n r = Add (x, a)", "Add computes in one type, r is int16 and a_q is int8"),
]


@pytest.mark.parametrize(("body", "reason"), REFUSED)
def test_what_has_no_int16_form_is_said(body, reason):
    node = one(body).nodes[-1]
    assert reason in no_kernel(node, find_contract("tflite-r1/tflite-r8"))


def test_a_type_that_the_contract_has_not_is_refused():
    node = one("r = Relu (x)").nodes[-1]
    assert "takes int8 with one scale, x0 is int16" in no_kernel(node, find_contract("tflite-r1"))
    assert no_kernel(node, find_contract("tflite-r8")) is None
    assert "int16 has more values" in no_kernel(
        one("r = Sigmoid (x)").nodes[-1], find_contract("pot-r9-half-up+acc48+int16")
    )
    uint8 = pair("x", "x0", 0.1).replace("value = int8 {0}", "value = uint8 {0}")
    text = f"g (float[1,4] x0) => (float[1,4] y) {{ {uint8} \n r = Relu (x) {pair('y', 'r', 0.1)} }}"
    assert "takes int8 or int16 with one scale, x0 is uint8" in no_kernel(
        graph(text).nodes[-1], find_contract("tflite-r1/tflite-r8")
    )


def test_a_scale_beyond_the_sigmoids_table_is_refused():
    text = (
        f"g (float[1,4] x0) => (float[1,4] y) {{ {int16('x', 'x0', 3.0)} \n r = Sigmoid (x) {int16('y', 'r', 0.001)} }}"
    )
    seen = graph(text, 21)
    with pytest.raises(ModelError, match="its input's scale 3 is beyond its table"):
        lower(seen, seen.nodes, seen.inputs, seen.outputs, BOTH)


def test_requantizing_a_real_tensor_is_refused():
    seen = graph(
        "g (float[1,4] x) => (float[1,4] a, int16[1,4] y) { s = Constant <value = float {0.1}> ()"
        " z = Constant <value = int16 {0}> () a = Relu (x) y = QuantizeLinear (a, s, z) }",
        21,
    )
    reason = no_kernel(seen.nodes[-1], find_contract("tflite-r1/tflite-r8"))
    assert reason == "the simulated NPU's QuantizeLinear rescales quantized tensors, a is not quantized"


@pytest.mark.parametrize("sram", [1 << 20, 1500, 900])
def test_tiles_of_both_types_give_the_bits_of_the_plain_kernels(sram):
    floating, seen = two_convolutions(), images(SHAPE, count=4)
    _, program = typed(floating, {"r"}, seen)
    planned = schedule(program, Layout((Memory("sram", sram), Memory("dram", 1 << 30, assumed=True)), 4))
    verify(planned)
    (name,) = program.inputs
    feeds = {name: np.random.default_rng(0).integers(-128, 128, SHAPE).astype(np.int8)}
    expected = Device(program, fast=False).run(feeds)
    for wire, values in Machine(planned).run(feeds).items():
        np.testing.assert_array_equal(values, expected[wire])
    specs = {t.name: t for t in program.tensors}
    sizes = {b.name: b.bytes for b in planned.schedule.buffers if b.holds == "tensor"}
    assert all(size == 396 * np.dtype(specs[n].dtype).itemsize for n, size in sizes.items())
    assert (len(planned.schedule.spilled()) > 0) == (sram < 1 << 20)
