"""Delegates refuse what does not fit the manifest."""

from dataclasses import replace

import onnx
import pytest
import tiny
from onnx import TensorProto

from runtime.bundle import open_bundle
from runtime.delegates.cpu import ONNX_TYPES, CpuDelegate
from runtime.delegates.npu import NpuDelegate
from runtime.errors import BundleError, ProgramError
from runtime.manifest import DTYPES
from runtime.npu.encoding import dumps


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
