"""A tiny network written twice by hand: as NPU instructions and as QDQ ONNX; and bundles of it.

image [1, 3, 16, 24] -> conv 3x3/2 (relu6) a -> conv 1x1 b; a + b = c -> conv 1x1 scores, conv 1x1 boxes.
"""

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.compile.memories import Layout
from pipeline.compile.scheduling import schedule
from runtime.adapters.detection import BoxDecoder
from runtime.adapters.image import Preprocess
from runtime.bundle import GoldenEntry, Line, Manifest, PartitionEntry, open_bundle, pack_arrays, write_bundle
from runtime.npu.device import Device
from runtime.npu.encoding import dumps
from runtime.npu.program import Instruction, Program
from runtime.npu.requantize import quantize_factor
from runtime.npu.schedule import Estimates, LayerEstimate, Memory
from runtime.session import Session
from runtime.tensors import TensorSpec

WIDTH, HEIGHT = 24, 16
SPECS = {
    "image": TensorSpec("image", (1, 3, 16, 24), "int8", 1 / 255, -128),
    "a": TensorSpec("a", (1, 4, 8, 12), "int8", 6 / 255, -128),
    "b": TensorSpec("b", (1, 4, 8, 12), "int8", 0.031, 5),
    "c": TensorSpec("c", (1, 4, 8, 12), "int8", 0.043, -20),
    "scores_q": TensorSpec("scores_q", (1, 1, 8, 12), "int8", 0.05, 3),
    "boxes_q": TensorSpec("boxes_q", (1, 4, 8, 12), "int8", 0.03, -100),
}
CONVS = {
    "conv_a": ("image", "a", 4, 3, 3, 2, (1, 1, 1, 1)),
    "conv_b": ("a", "b", 4, 4, 1, 1, (0, 0, 0, 0)),
    "scores": ("c", "scores_q", 1, 4, 1, 1, (0, 0, 0, 0)),
    "boxes": ("c", "boxes_q", 4, 4, 1, 1, (0, 0, 0, 0)),
}
WEIGHT_SCALE = 0.01
BODY = ("conv_a", "conv_b", "add")
HEADS = ("scores", "boxes")


def weights(name):
    """Weight int8 and bias int32 of a convolution."""
    _, _, outputs, inputs, size, _, _ = CONVS[name]
    random = np.random.default_rng(sorted(CONVS).index(name))
    bias = 3000 if name == "boxes" else 0
    return (
        random.integers(-127, 128, (outputs, inputs, size, size), np.int8),
        (random.integers(-200, 200, outputs) + bias).astype(np.int32),
    )


def factors(reals):
    pairs = np.array([quantize_factor(real, 31) for real in reals], np.int32)
    return {"multiplier": pairs[:, 0].copy(), "shift": pairs[:, 1].copy()}


def instruction(name):
    if name == "add":
        first, second, out = SPECS["a"].scale, SPECS["b"].scale, SPECS["c"].scale
        common = 2 * max(first, second)
        constants = factors([first / common, second / common, common / (2**20 * out)])
        attributes = {"left_shift": 20, "act_min": -128, "act_max": 127}
        return Instruction("add", "add", ("a", "b"), "c", attributes, constants)
    source, output, count, _, _, stride, pads = CONVS[name]
    weight, bias = weights(name)
    factor = SPECS[source].scale * WEIGHT_SCALE / SPECS[output].scale
    attributes = {"strides": (stride, stride), "pads": pads, "dilations": (1, 1), "group": 1}
    attributes |= {"act_min": -128, "act_max": 127}
    constants = {"weight": weight, "bias": bias, **factors([factor] * count)}
    return Instruction("conv2d", name, (source,), output, attributes, constants)


def program(nodes, outputs, target="toy", contract="tflite-r1"):
    """The named nodes as a program."""
    steps = tuple(instruction(node) for node in nodes)
    names = dict.fromkeys(name for step in steps for name in (*step.inputs, step.output))
    written = {step.output for step in steps}
    device = {"macs_per_cycle": 64.0, "clock_hz": 1e8, "memory_bytes_per_second": 1e9, "link_bytes_per_second": 1e8}
    inputs = tuple(name for name in names if name not in written)
    return Program(target, contract, device, tuple(SPECS[name] for name in names), inputs, outputs, steps)


MEMORIES = (Memory("sram", 1200), Memory("dram", 1 << 30, assumed=True))
"""So small that the tiny network runs in tiles."""


def compiled(nodes, outputs, ecc=False):
    """The named nodes as a program with a schedule and made-up estimates: node n takes n ms."""
    made = program(nodes, outputs)
    layers = tuple(
        LayerEstimate(
            node, 1_000_000 * n, 10.0 * n, float(n), n / 2, n / 4, {"dram": 100 * n}, "compute", None, ("power_w",)
        )
        for n, node in enumerate(nodes, 1)
    )
    estimates = Estimates("a priori", layers, dict.fromkeys((*made.inputs, *made.outputs), 0.5), None)
    return schedule(made, Layout(tuple(replace(m, ecc=ecc) for m in MEMORIES), 16), estimates)


def model(nodes, inputs, outputs):
    """The named nodes as a QDQ ONNX model."""
    made, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(value, name))
        return name

    def step(kind, name, source, spec):
        scale = constant(f"{name}_s", np.float32(spec.scale).reshape(()))
        zero = constant(f"{name}_z", np.int8(spec.zero_point).reshape(()))
        output = spec.name if kind == "QuantizeLinear" else f"{name}_f"
        made.append(helper.make_node(kind, [source, scale, zero], [output]))
        return output

    for node in nodes:
        if node == "add":
            terms = [step("DequantizeLinear", f"add_{name}", name, SPECS[name]) for name in ("a", "b")]
            made.append(helper.make_node("Add", terms, ["add_y"], "add"))
            step("QuantizeLinear", "add_q", "add_y", SPECS["c"])
            continue
        source, output, _, _, size, stride, pads = CONVS[node]
        weight, bias = weights(node)
        terms = [
            step("DequantizeLinear", f"{node}_x", source, SPECS[source]),
            step(
                "DequantizeLinear",
                f"{node}_w",
                constant(f"{node}_wq", weight),
                TensorSpec("w", (), "int8", WEIGHT_SCALE, 0),
            ),
            constant(f"{node}_b", (bias * (SPECS[source].scale * WEIGHT_SCALE)).astype(np.float32)),
        ]
        options = {"strides": [stride] * 2, "pads": pads, "kernel_shape": [size, size]}
        made.append(helper.make_node("Conv", terms, [f"{node}_y"], node, **options))
        step("QuantizeLinear", f"{node}_q", f"{node}_y", SPECS[output])
    info = [
        [helper.make_tensor_value_info(n, TensorProto.INT8, SPECS[n].shape) for n in names]
        for names in (inputs, outputs)
    ]
    graph = helper.make_graph(made, "tiny", *info, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


OUTPUTS = ("scores_q", "boxes_q")


def whole():
    """One NPU partition: manifest and payloads, without golden vectors."""
    nodes = (*BODY, *HEADS)
    entry = PartitionEntry("npu", "programs/0.npup", "models/0.onnx", ("image",), OUTPUTS, nodes)
    payloads = {
        "programs/0.npup": dumps(compiled(nodes, OUTPUTS)),
        "models/0.onnx": model(nodes, ("image",), OUTPUTS).SerializeToString(),
    }
    return manifest((entry,), ("image", *OUTPUTS)), payloads


def split():
    """The body on the NPU, the heads on the CPU."""
    body = PartitionEntry("npu", "programs/0.npup", "models/0.onnx", ("image",), ("c",), BODY)
    heads = PartitionEntry("cpu", None, "models/1.onnx", ("c",), OUTPUTS, HEADS)
    payloads = {
        "programs/0.npup": dumps(compiled(BODY, ("c",))),
        "models/0.onnx": model(BODY, ("image",), ("c",)).SerializeToString(),
        "models/1.onnx": model(HEADS, ("c",), OUTPUTS).SerializeToString(),
    }
    return manifest((body, heads), ("image", "c", *OUTPUTS)), payloads


def manifest(partitions, tensors):
    return Manifest(
        schema=2,
        name="tiny",
        version=1,
        target="toy",
        contract="tflite-r1",
        labels=("person",),
        tensors=tuple(SPECS[name] for name in tensors),
        inputs=("image",),
        outputs=OUTPUTS,
        output_names=("scores", "boxes"),
        partitions=partitions,
        preprocess=Preprocess(WIDTH, HEIGHT),
        decoder=BoxDecoder(2, 0.3, 0.5, 20),
        lines=(Line("door", (0.0, 30.0), (96.0, 30.0)),),
        provenance={"config_digest": "0" * 64, "commit": "none"},
    )


def golden_images(count=2):
    return np.random.default_rng(9).integers(-128, 128, (count, *SPECS["image"].shape), np.int8)


def golden(run, count=2):
    """Golden payloads of ``run`` (tensors to tensors), and their entry."""
    images = golden_images(count)
    results = [run({"image": image}) for image in images]
    stacked = {name: np.stack([result[name] for result in results]) for name in results[0] if name != "image"}
    payloads = {"golden/inputs.npz": pack_arrays({"image": images}), "golden/outputs.npz": pack_arrays(stacked)}
    return GoldenEntry("golden/inputs.npz", "golden/outputs.npz", count), payloads


def plain_run(tensors):
    """The whole network on the plain simulated device."""
    return Device(program((*BODY, *HEADS), OUTPUTS), fast=False).run(tensors)


def write(path, parts=whole, signer=None, **changes):
    """A bundle of ``parts`` with golden vectors at ``path``; ``changes`` to the manifest."""
    base, payloads = parts()
    write_bundle(path, base, payloads)
    run = plain_run if parts is whole else Session(open_bundle(path)).trace
    entry, extra = golden(run)
    write_bundle(path, replace(base, **{"golden": entry, **changes}), {**payloads, **extra}, signer)
    return path


def frames(count=3, width=96, height=64):
    """Frames uint8 [count, height, width, 3] with a bright block that moves down."""
    result = np.random.default_rng(1).integers(0, 60, (count, height, width, 3), np.uint8)
    for index in range(count):
        top = 4 * index % (height - 16)
        result[index, top : top + 16, 30:46] = 230
    return result


def check():
    onnx.checker.check_model(model((*BODY, *HEADS), ("image",), OUTPUTS))
