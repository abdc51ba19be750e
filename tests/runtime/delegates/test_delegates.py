"""Delegates refuse what does not fit the manifest."""

import resource
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import open_bundle, write_bundle
from runtime.delegates.cpu import ONNX_TYPES, CpuDelegate
from runtime.delegates.npu import NpuDelegate
from runtime.errors import BundleError, LimitError, ProgramError
from runtime.limits import Limits
from runtime.manifest import DTYPES
from runtime.npu.encoding import dumps
from runtime.session import Session


def swapped(path, name, content):
    """The bundle with one file replaced in memory, as if the hashes were right."""
    bundle = open_bundle(path)
    changed = replace(bundle, files={**bundle.files, name: content})
    return changed.manifest.partitions[0], changed


def test_every_dtype_has_an_onnx_name():
    assert tuple(ONNX_TYPES) == DTYPES


def damaged_model(kind):
    model = tiny.model((*tiny.BODY, *tiny.HEADS), ("image",), tiny.OUTPUTS)
    if kind == "operator":
        model.graph.node[0].op_type = "Nothing"
    if kind == "wiring":
        model.graph.node[0].input[0] = "nowhere"
    if kind == "type":
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    if kind == "empty":
        model = onnx.ModelProto()
    if kind == "ir":
        model.ir_version = 99
    if kind == "text":
        model.graph.node[0].op_type = "Nothing"
        return model.SerializeToString().replace(b"Nothing", b"Noth\xc4ng")
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["operator", "wiring", "type", "empty", "ir", "text"])
def test_models_that_onnx_runtime_refuses(tiny_bundle, kind):
    with pytest.raises(BundleError, match=r"models/0\.onnx: ONNX Runtime cannot load it: "):
        CpuDelegate().load(*swapped(tiny_bundle, "models/0.onnx", damaged_model(kind)))


def test_models_with_other_outputs_or_shapes(tiny_bundle, monkeypatch):
    fewer = tiny.model((*tiny.BODY, *tiny.HEADS), ("image",), ("scores_q",)).SerializeToString()
    with pytest.raises(BundleError, match=r"has outputs \['scores_q'\], the manifest says \['boxes_q', 'scores_q'\]"):
        CpuDelegate().load(*swapped(tiny_bundle, "models/0.onnx", fewer))
    changed = replace(tiny.SPECS["image"], shape=(1, 3, 32, 24))
    monkeypatch.setitem(tiny.SPECS, "image", changed)
    monkeypatch.setitem(tiny.SPECS, "scores_q", replace(tiny.SPECS["scores_q"], shape=(1, 1, 16, 12)))
    monkeypatch.setitem(tiny.SPECS, "boxes_q", replace(tiny.SPECS["boxes_q"], shape=(1, 4, 16, 12)))
    taller = tiny.model((*tiny.BODY, *tiny.HEADS), ("image",), tiny.OUTPUTS).SerializeToString()
    message = r"input image is tensor\(int8\) \[1, 3, 32, 24\], the manifest says tensor\(int8\) \[1, 3, 16, 24\]"
    with pytest.raises(BundleError, match=message):
        CpuDelegate().load(*swapped(tiny_bundle, "models/0.onnx", taller))


NODES = (*tiny.BODY, *tiny.HEADS)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tiny.program(NODES, tiny.OUTPUTS, target="other"), "its target is other, the manifest says toy"),
        (tiny.program(NODES, ("scores_q",)), r"its outputs is \['scores_q'\], the manifest says"),
        (tiny.program(("scores", "boxes"), tiny.OUTPUTS), r"its inputs is \['c'\], the manifest says \['image'\]"),
    ],
)
def test_programs_of_something_else(tiny_bundle, program, message):
    with pytest.raises(BundleError, match=r"programs/0\.npup: " + message):
        NpuDelegate().load(*swapped(tiny_bundle, "programs/0.npup", dumps(program)))


def test_program_with_other_quantization(tiny_bundle):
    program = tiny.program(NODES, tiny.OUTPUTS)
    tensors = tuple(replace(s, scale=0.5) if s.name == "image" else s for s in program.tensors)
    with pytest.raises(BundleError, match="tensor image is not the image of the manifest"):
        NpuDelegate().load(*swapped(tiny_bundle, "programs/0.npup", dumps(replace(program, tensors=tensors))))


def test_program_of_another_contract(tiny_bundle):
    entry, bundle = swapped(tiny_bundle, "programs/0.npup", dumps(tiny.program(NODES, tiny.OUTPUTS)))
    changed = replace(bundle, manifest=replace(bundle.manifest, contract="other"))
    with pytest.raises(BundleError, match="its contract is tflite-r1, the manifest says other"):
        NpuDelegate().load(entry, changed)


def test_damaged_program_names_bundle_and_file(tiny_bundle):
    with pytest.raises(ProgramError, match=r"tiny\.npub: programs/0\.npup: "):
        NpuDelegate().load(*swapped(tiny_bundle, "programs/0.npup", b"nonsense"))


def test_cpu_partition_has_no_program(split_bundle):
    bundle = open_bundle(split_bundle)
    with pytest.raises(BundleError, match=r"the partition of models/1\.onnx has no program for the NPU"):
        NpuDelegate().load(bundle.manifest.partitions[1], bundle)


def bomb(model):
    """The model with a tensor whose size it computes from its input: 2**30 elements, none of which is declared."""
    factor = numpy_helper.from_array(np.array([2**30 // 24], np.int64), "factor")
    model.graph.initializer.extend([factor, numpy_helper.from_array(np.zeros((), np.float32), "nothing")])
    add = next(node for node in model.graph.node if node.name == "add")
    rest, add.output[0] = add.output[0], "sum"
    extra = [
        helper.make_node("Shape", ["image"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "three", "four"], ["width"]),
        helper.make_node("Mul", ["width", "factor"], ["huge"]),
        helper.make_node("ConstantOfShape", ["huge"], ["filled"], value=helper.make_tensor("v", 1, [1], [1.0])),
        helper.make_node("ReduceMax", ["filled"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "nothing"], ["zero"]),
        helper.make_node("Add", ["sum", "zero"], [rest]),
    ]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([n], np.int64), m) for m, n in (("three", 3), ("four", 4))
    )
    at = list(model.graph.node).index(add) + 1
    nodes = [*model.graph.node[:at], *extra, *model.graph.node[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def test_memory_that_only_shows_while_a_model_runs_is_bounded(tmp_path):
    manifest, payloads = tiny.whole()
    model = bomb(tiny.model((*tiny.BODY, *tiny.HEADS), ("image",), tiny.OUTPUTS))
    write_bundle(tmp_path / "bomb.npub", manifest, {**payloads, "models/0.onnx": model})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session = Session(open_bundle(tmp_path / "bomb.npub"), "cpu")
    with pytest.raises(LimitError, match=r"models/0\.onnx: wants more memory .* \(the limit is model_memory"):
        session.run({"image": tiny.golden_images()[0]})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000


def test_the_memory_of_models_is_a_limit_of_whoever_opens_the_bundle(tiny_bundle):
    image = {"image": tiny.golden_images()[0]}
    small = Session(open_bundle(tiny_bundle, limits=Limits(model_memory=4096)), "cpu")
    with pytest.raises(LimitError, match="wants more memory while it runs than it may have"):
        small.run(image)
    assert Session(open_bundle(tiny_bundle), "cpu").run(image).keys() == set(tiny.OUTPUTS)


def test_a_model_that_cannot_be_run(tiny_bundle):
    """Loading it went well; running it does not: here, because an input has another shape than it was checked for."""
    _, executable = Session(open_bundle(tiny_bundle), "cpu").partitions[0]
    with pytest.raises(BundleError, match=r"models/0\.onnx: ONNX Runtime failed on it: .*INVALID_ARGUMENT"):
        executable.run({"image": np.zeros((1, 3, 5, 5), np.int8)})
