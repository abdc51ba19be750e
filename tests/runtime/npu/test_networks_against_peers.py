"""A whole int8 network, layer by layer: rule R1 against TFLite's interpreters, rule R4 against onnxruntime.

Every tensor of the network is an output on both sides; 0 bytes may differ in any of them.
"""

from dataclasses import replace

import numpy as np
import pytest
from npu_programs import clamp, conv_instruction, feeds, scaling, spec
from tflite_models import open_litert, run_micro

from pipeline.compile.tflite import tflite
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device
from runtime.npu.lowering.host import integer_kernels_exact, open_session
from runtime.npu.onnx_writer import MICROSOFT, Graph, Port
from runtime.npu.program import Instruction, Program


class Net:
    """A MobileNetV2 in small: inverted bottlenecks with strides and residual sums, pooled and classified.

    Scales are those of a quantized model; factors are folded from them for the contract.
    """

    def __init__(self, seed, contract):
        self.rng, self.contract = np.random.default_rng(seed), find_contract(contract)
        self.items, self.weights = [], {}
        image = spec("image", (1, 3, 32, 32), 0.02, 5)
        self.tensors = [image]
        x = self.conv(image, 16, (3, 3), 2)
        for out, stride, grow in ((16, 1, 2), (24, 2, 4), (24, 1, 4), (32, 2, 4), (32, 1, 4)):
            inside = self.conv(x, x.shape[1] * grow, (1, 1), 1)
            inside = self.conv(inside, inside.shape[1], (3, 3), stride, depthwise=True)
            y = self.conv(inside, out, (1, 1), 1, relu=False)
            x = self.add(x, y) if x.shape == y.shape else y
        mean = self.mean(self.conv(x, 64, (1, 1), 1))
        self.output = self.classify(mean)

    def scale(self):
        return float(np.float32(self.rng.uniform(0.02, 0.06)))

    def emit(self, opcode, inputs, output, attributes, constants):
        names = tuple(t.name for t in inputs)
        self.items.append(Instruction(opcode, f"{opcode}_{output.name}", names, output.name, attributes, constants))
        self.tensors.append(output)
        return output

    def fold(self, scales, x, y):
        return scaling([self.contract.ratio((x.scale, float(s)), y.scale) for s in scales], self.contract.name)

    def conv(self, x, out, kernel, stride, depthwise=False, relu=True):
        # TFLite's SAME padding, which is larger behind where it is uneven
        total = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(x.shape[2:], kernel, strict=True)]
        pads = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        name = f"t{len(self.tensors)}"
        group = x.shape[1] if depthwise else 1
        item, made = conv_instruction(
            self.rng, x, out, name, kernel=kernel, strides=(stride, stride), group=group, pads=pads
        )
        made = replace(made, scale=self.scale(), zero_point=-128 if relu else int(self.rng.integers(-20, 20)))
        wanted = 60 / (np.sqrt((item.constants["weight"].astype(float) ** 2).sum((1, 2, 3))) * 60 + 1)
        scales = (wanted * made.scale / x.scale).astype(np.float32)
        self.weights[name] = scales
        constants = {**item.constants, **self.fold(scales, x, made)}
        return self.emit("conv2d", [x], made, item.attributes, constants)

    def add(self, a, b):
        y = spec(f"t{len(self.tensors)}", a.shape, self.scale(), 3)
        if self.contract.add == "float32":
            factors = [self.contract.ratio((t.scale,), y.scale) for t in (a, b)]
            return self.emit("add", [a, b], y, {"left_shift": 0, **clamp()}, scaling(factors, self.contract.name))
        twice = 2 * max(a.scale, b.scale)
        constants = scaling([a.scale / twice, b.scale / twice, twice / (2**20 * y.scale)])
        return self.emit("add", [a, b], y, {"left_shift": 20, **clamp()}, constants)

    def mean(self, x):
        y = spec(f"t{len(self.tensors)}", (1, x.shape[1], 1, 1), 0.03, -5)
        below = y.scale
        if self.contract.mean == "scaled":
            below = float(np.float32(y.scale) * np.float32(x.shape[2] * x.shape[3]))
        return self.emit(
            "mean", [x], y, {"axes": (2, 3)}, scaling(self.contract.ratio((x.scale,), below), self.contract.name)
        )

    def classify(self, x):
        flat = self.emit("reshape", [x], replace(x, name="flat", shape=(1, x.shape[1])), {}, {})
        y = spec("logits", (1, 10), 0.2, 7)
        weight = self.rng.integers(-127, 128, (10, x.shape[1])).astype(np.int8)
        scales = np.full(10, np.float32(0.004))
        self.weights["logits"] = scales
        bias = self.rng.integers(-500, 500, 10).astype(np.int32)
        return self.emit(
            "fully_connected", [flat], y, clamp(), {"weight": weight, "bias": bias, **self.fold(scales, flat, y)}
        )

    def program(self):
        """With every tensor as output."""
        names = tuple(item.output for item in self.items)
        return Program("test", self.contract.name, {}, tuple(self.tensors), ("image",), names, tuple(self.items))


def to_nchw(array):
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def as_tflite(net):
    """The network as a ``.tflite`` file whose outputs are all its tensors."""
    program = net.program()
    scales = {item.name: net.weights[item.output] for item in program.instructions if item.output in net.weights}
    return tflite(program, scales)


@pytest.mark.parametrize("seed", range(3))
def test_r1_is_tflite_micro_at_every_layer(seed):
    net = Net(seed, "tflite-r1")
    program, content = net.program(), as_tflite(net)
    plain, fast = Device(program, fast=False), Device(program, threads=1)
    for draw in range(2):
        values = feeds(program, draw)
        expected = run_micro(content, [np.moveaxis(values["image"], 1, -1)], len(program.outputs))
        ours, again = plain.run(values), fast.run(values)
        for name, theirs in zip(program.outputs, expected, strict=True):
            np.testing.assert_array_equal(ours[name], to_nchw(theirs), name)
            np.testing.assert_array_equal(again[name], ours[name], name)


def test_r1_is_litert_at_every_layer_but_the_fully_connected_one():
    """LiteRT's reference FULLY_CONNECTED rounds in float64 (rule R6): the last layer is compared under that."""
    net = Net(0, "tflite-r1")
    program = net.program()
    interpreter = open_litert(as_tflite(net))
    values = feeds(program, 0)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.moveaxis(values["image"], 1, -1))
    interpreter.invoke()
    theirs = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    ours = Device(program, fast=False).run(values)
    for name, found in list(zip(program.outputs, theirs, strict=True))[:-1]:
        np.testing.assert_array_equal(ours[name], to_nchw(found), name)
    last = program.instructions[-1]
    flat, logits = net.tensors[-2:]
    factor = net.contract.ratio((flat.scale, float(net.weights["logits"][0])), logits.scale)
    constants = {**last.constants, **scaling(np.full(10, factor), "litert-r6")}
    item = replace(last, constants=constants)
    single = Program("test", "litert-r6", {}, (flat, logits), ("flat",), ("logits",), (item,))
    found = Device(single, fast=False).run({"flat": ours["flat"]})["logits"]
    np.testing.assert_array_equal(found, theirs[-1])


def as_onnx(net):
    """The network of onnxruntime's quantized operators, with every tensor as output."""
    graph, specs = Graph(), {t.name: t for t in net.tensors}
    graph.inputs.append(Port("image", "int8", specs["image"].shape))

    def quantization(name):
        t = specs[name]
        return [graph.constant(np.array(t.scale, np.float32)), graph.constant(np.array(t.zero_point, np.int8))]

    for item in net.items:
        x, y, out = item.inputs[0], quantization(item.output), item.output
        if item.opcode in ("conv2d", "fully_connected"):
            weight, scales = item.constants["weight"], net.weights[out]
            factors = [graph.constant(scales), graph.constant(np.zeros(len(scales), np.int8))]
            bias = graph.constant(item.constants["bias"])
            if item.opcode == "conv2d":
                names = ("strides", "pads", "dilations", "group")
                chosen = {name: item.attributes[name] for name in names}
                inputs = [x, *quantization(x), graph.constant(weight), *factors, *y, bias]
                graph.node("QLinearConv", inputs, out, kernel_shape=weight.shape[2:], **chosen)
            else:
                inputs = [x, *quantization(x), graph.constant(np.ascontiguousarray(weight.T)), *factors, bias, *y]
                graph.node("QGemm", inputs, out, MICROSOFT)
        elif item.opcode == "add":
            inputs = [part for name in item.inputs for part in (name, *quantization(name))]
            graph.node("QLinearAdd", [*inputs, *y], out, MICROSOFT)
        elif item.opcode == "mean":
            graph.node("QLinearGlobalAveragePool", [x, *quantization(x), *y], out, MICROSOFT)
        else:
            graph.node("Reshape", [x, graph.constant(np.array(specs[out].shape))], out)
        graph.outputs.append(Port(out, "int8", specs[out].shape))
    return graph.model()


@pytest.mark.skipif(not integer_kernels_exact(), reason="this host's integer kernels saturate: no reference here")
@pytest.mark.parametrize("seed", range(3))
def test_r4_is_onnxruntime_at_every_layer(seed):
    net = Net(seed, "ort-r4")
    program = net.program()
    peer = open_session(as_onnx(net), 1)
    plain, fast = Device(program, fast=False), Device(program, threads=1)
    for draw in range(2):
        values = feeds(program, draw)
        ours, again = plain.run(values), fast.run(values)
        for name, theirs in zip(program.outputs, peer.run(None, values), strict=True):
            np.testing.assert_array_equal(ours[name], theirs, name)
            np.testing.assert_array_equal(again[name], ours[name], name)
