"""A whole network, layer by layer: rules R1 and R8 against TFLite's interpreters, rule R4 against onnxruntime.

Every tensor of the network is an output on both sides; 0 bytes may differ in any of them.
"""

from dataclasses import replace

import numpy as np
import pytest
from npu_networks import Net
from npu_programs import feeds, scaling
from tflite_models import open_litert, run_litert, run_micro

from pipeline.compile.tflite import tflite
from runtime.npu.device import Device
from runtime.npu.lowering.host import integer_kernels_exact, open_session
from runtime.npu.onnx_writer import MICROSOFT, Graph, Port
from runtime.npu.program import Program


def to_nchw(array):
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def as_tflite(net):
    """The network as a ``.tflite`` file whose outputs are all its tensors."""
    program = net.program()
    scales = {item.name: net.weights[item.output] for item in program.instructions if item.output in net.weights}
    return tflite(program, scales)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("contract", ["tflite-r1", "tflite-r8"])
def test_it_is_tflite_micro_at_every_layer(contract, seed):
    net = Net(seed, contract)
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


def test_int16_is_litert_at_every_layer_but_the_fully_connected_one():
    """LiteRT's reference FULLY_CONNECTED rounds in float64 with int16 too."""
    net = Net(0, "tflite-r8")
    program, values = net.program(), feeds(net.program(), 0)
    theirs = run_litert(as_tflite(net), [np.moveaxis(values["image"], 1, -1)], len(program.outputs))
    ours = Device(program, fast=False).run(values)
    for name, found in list(zip(program.outputs, theirs, strict=True))[:-1]:
        np.testing.assert_array_equal(ours[name], to_nchw(found), name)
    assert np.abs(ours["logits"].astype(int) - theirs[-1]).max() <= 1
