"""``pipeline contracts`` as people and scripts call it, and the numbers that it gives."""

import json
import os
from functools import partial

import numpy as np
import onnx
import pytest
from smallmodels import images, model, quantized, target, whole

from pipeline.compile.lower import lower
from pipeline.compile.moves import compare
from pipeline.graph.view import quantize, view
from runtime.npu.device import Device

TEXT = """g (float[1,3,12,12] x) => (float[1,5,6,6] y) {
    a = Conv <pads = [1,1,1,1]> (x, w, b)
    r = Relu (a)
    y = Conv <strides = [2,2], pads = [1,1,1,1]> (r, v)
}"""
KEYS = {"tensor", "node", "opcode", "elements", "moved", "largest", "own_moved"}


@pytest.fixture(scope="module")
def lossy():
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(s).astype(np.float32)
        for name, s in (("w", (8, 3, 3, 3)), ("b", (8,)), ("v", (5, 8, 3, 3)))
    }
    return quantized(model(TEXT, **weights), images((1, 3, 12, 12)))[0]


@pytest.fixture
def command(tmp_path, monkeypatch, command_line, lossy):
    monkeypatch.chdir(tmp_path)
    onnx.save(lossy, "net.onnx")
    return partial(command_line, "contracts")


def random_inputs(lossy, count=6):
    rng = np.random.default_rng(0)
    (tensor,) = view(lossy).inputs
    return [{tensor.wire: rng.integers(-128, 128, tensor.dims).astype(np.int8)} for _ in range(count)]


def test_counts_are_those_of_two_devices(lossy):
    given = random_inputs(lossy)
    found = compare(lossy, target(), ("tflite-r1", "tflite-r2"), given)
    seen, part = whole(lossy)
    outputs = []
    for name in ("tflite-r1", "tflite-r2"):
        profile = target().model_copy(update={"contract": name})
        program = lower(seen, part.nodes, part.inputs, part.outputs, profile)
        device = Device(program, fast=False)
        outputs.append(np.stack([device.run(values)[program.outputs[0]] for values in given]))
    (row,) = found.at_outputs()
    assert row.moved == int((outputs[0] != outputs[1]).sum()) > 0
    assert row.elements == 6 * 5 * 36
    assert found.layers[0].own_moved == found.layers[0].moved > 0  # nothing comes before the first layer
    assert row.largest >= 1


def test_the_same_arithmetic_moves_nothing(lossy):
    found = compare(lossy, target(), ("tflite-r1", "tosa-r3"), random_inputs(lossy))
    assert [row.moved for row in found.layers] == [0] * len(found.layers)


def test_json_for_scripts(command):
    code, out, _ = command("net.onnx", "--contract", "tflite-r1", "--contract", "ort-r4", "--json")
    document = json.loads(out)
    (comparison,) = document["comparisons"]
    assert code == 0
    assert comparison["contracts"] == ["tflite-r1", "ort-r4"]
    assert comparison["outputs"][0].keys() == KEYS
    assert len(comparison["layers"]) == 2


def test_the_targets_contract_against_all_others(command):
    code, out, _ = command("net.onnx", "--count", "1")
    assert code == 0
    assert "tflite-r1 against tflite-r2, 1 inputs (random integers)" in out
    assert "tflite-r1 against tosa-r3" in out
    assert "pot-r9-half-up: " in out  # a model without power-of-two scales has no such form


def test_given_inputs(command, lossy, tmp_path):
    (tensor,) = view(lossy).inputs
    real = images((1, 3, 12, 12), count=1, seed=5)[0]
    np.savez(tmp_path / "in.npz", x=real)
    np.save(tmp_path / "in.npy", quantize(real, tensor.quantization))
    words = ("net.onnx", "--contract", "tflite-r1", "--contract", "tflite-r2", "--json", "--inputs")
    first, second = (json.loads(command(*words, f"in.{end}")[1])["comparisons"] for end in ("npz", "npy"))
    assert first == second
    folder = json.loads(command(*words, ".")[1])["comparisons"]
    assert folder[0]["inputs"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--contract", "tflite-r1", "--contract", "tflite-r99"), "'tflite-r99' is not an integer contract"),
        (("--inputs", "none.npz"), "none.npz: cannot be read"),
        (("--inputs", "empty"), "holds no .npy or .npz"),
        (("--inputs", "wrong.npz"), "has no array x (it has z)"),
        (("--inputs", "small.npz"), "x has shape [1]"),
    ],
)
def test_mistakes_are_told(command, tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "wrong.npz", z=np.zeros(1))
    np.savez(tmp_path / "small.npz", x=np.zeros(1, np.float32))
    code, _, err = command("net.onnx", *words)
    assert code == 1
    assert message in err


def test_wrong_usage(command):
    assert command("net.onnx", *["--contract", "tflite-r1"] * 3)[0] == 2


def test_a_float_model_has_nothing_to_compare(command, tmp_path):
    onnx.save(model("g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }"), tmp_path / "float.onnx")
    code, _, err = command("float.onnx")
    assert code == 1
    assert "float.onnx: its input x is not quantized" in err


@pytest.mark.parametrize("words", [["net.onnx", "--inputs", "pipe.npy"], ["pipe.npy"]])
def test_a_pipe_is_refused(command, tmp_path, words):
    os.mkfifo(tmp_path / "pipe.npy")
    code, _, err = command(*words)
    assert code == 1
    assert "it is a pipe or a device, not a file" in err
