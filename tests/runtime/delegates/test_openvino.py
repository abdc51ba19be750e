"""The same bundle on a processor that somebody else wrote the code for: OpenVINO, in an environment of its own."""

import json
from dataclasses import replace

import freshenv
import numpy as np
import pytest
import tiny
from onnx import helper, numpy_helper

from pipeline.compile.deploy import build_pyz
from runtime.bundle import open_bundle, write_bundle

OPENVINO = "ort:OpenVINO,device_type=CPU"

pytestmark = pytest.mark.fresh_env


@pytest.fixture(scope="module")
def npu_run(tmp_path_factory):
    """``npu-run`` as a device has it, beside ONNX Runtime with OpenVINO: words to a finished process."""
    python = freshenv.environment("openvino", *freshenv.OPENVINO)
    folder = tmp_path_factory.mktemp("device")
    build_pyz(folder / "npu-run.pyz")
    return lambda *words: freshenv.run(python, folder / "npu-run.pyz", *words, cwd=folder)


@pytest.fixture(scope="module")
def half_taken(tmp_path_factory):
    """A bundle whose NPU partition has an operator that OpenVINO's provider does not take: a determinant."""
    path = tiny.write(tmp_path_factory.mktemp("bundle") / "half.npub")
    bundle = open_bundle(path)
    model = tiny.model((*tiny.BODY, *tiny.HEADS), ("image",), tiny.OUTPUTS)
    names = {"first": [0], "last": [16], "axis": [3]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), n) for n, v in names.items())
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    add = next(node for node in model.graph.node if node.name == "add")
    rest = add.output[0]
    add.output[0] = "sum"
    source = next(node.output[0] for node in model.graph.node if node.input[0] == "image")
    extra = [
        helper.make_node("Slice", [source, "first", "last", "axis"], ["square"]),
        helper.make_node("Det", ["square"], ["det"], "determinant"),
        helper.make_node("ReduceMax", ["det"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "nothing"], ["zero"]),
        helper.make_node("Add", ["sum", "zero"], [rest]),
    ]
    at = list(model.graph.node).index(add) + 1
    nodes = [*model.graph.node[:at], *extra, *model.graph.node[at:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    write_bundle(path, replace(bundle.manifest), {**bundle.files, "models/0.onnx": model.SerializeToString()})
    return path


def test_a_bundle_runs_on_openvino_and_its_golden_vectors_hold(npu_run, split_bundle):
    done = npu_run("selftest", split_bundle, "--delegate", OPENVINO, "--strict", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    body, *heads = json.loads(done.stdout)["crossings"]
    assert (body["tensor"], body["rule"]) == ("c", "half a step on average")
    assert body["mean"] <= 0.5
    assert [crossing["rule"] for crossing in heads] == ["one step"] * 2


def test_auto_finds_it_and_a_run_says_where_it_runs(npu_run, split_bundle, tmp_path):
    np.save(tmp_path / "frames.npy", tiny.frames(3))
    done = npu_run(split_bundle, "--source", tmp_path / "frames.npy", "--delegate", "auto", "--strict", "--json")
    assert done.returncode == 0, done.stderr
    assert "1 partitions planned for npu run on OpenVINOExecutionProvider" in done.stderr
    assert json.loads(done.stdout)["frames"] == 3


def test_a_fallback_is_reported_and_strict_refuses_it(npu_run, half_taken):
    done = npu_run("selftest", half_taken, "--delegate", OPENVINO)
    assert "planned npu, runs on OpenVINOExecutionProvider; " in done.stdout, done.stderr
    assert "fall back to the CPU (Det determinant" in done.stdout
    strict = npu_run("selftest", half_taken, "--delegate", OPENVINO, "--strict")
    assert (strict.returncode, strict.stdout) == (1, "")
    assert "not as planned: models/0.onnx: planned npu, runs on OpenVINOExecutionProvider" in strict.stderr


def test_an_option_that_it_refuses_is_an_error_and_no_fallback(npu_run, split_bundle):
    done = npu_run("selftest", split_bundle, "--delegate", "ort:OpenVINO,nonsense=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ONNX Runtime cannot load it: " in done.stderr
    assert "Invalid OpenVINO EP option: nonsense" in done.stderr


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (
            "NONSENSE",
            "OpenVINOExecutionProvider with device_type=NONSENSE takes nothing: is that a device of it, and here?",
        ),
        ("GPU.7", "OpenVINOExecutionProvider with device_type=GPU.7 cannot be made here: there is no such device"),
    ],
)
def test_a_device_that_is_not_there_is_told_and_strict_refuses_it(npu_run, tiny_bundle, device, why):
    """ONNX Runtime takes both without an error, and runs everything on its CPU."""
    delegate = f"ort:OpenVINO,device_type={device}"
    done = npu_run("selftest", tiny_bundle, "--delegate", delegate)
    assert "planned npu, runs on cpu; " in done.stdout, done.stderr
    assert why in done.stdout
    strict = npu_run("selftest", tiny_bundle, "--delegate", delegate, "--strict")
    assert (strict.returncode, strict.stdout) == (1, "")
    assert why in strict.stderr
