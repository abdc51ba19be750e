"""Reading, capturing, fusing and counting."""

import math
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from smallmodels import graph, model, node, raw, run_onnx
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from pipeline.errors import ModelError
from pipeline.graph.capture import capture
from pipeline.graph.fusion import clip_range, fused_activation, fused_outputs, units
from pipeline.graph.macs import macs
from pipeline.graph.model import check, load, save
from pipeline.graph.view import view

TEXT = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = Conv (x, w) \n y = Relu (a) }"
EYE = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.onnx"
    save(model(TEXT, w=EYE), path)
    return path


def test_a_saved_model_is_loaded_with_shapes_and_names(saved):
    loaded = view(load(saved))
    assert [n.name for n in loaded.nodes] == ["Conv", "Relu"]
    assert loaded.nodes[0].outputs[0].dims == (1, 2, 4, 4)
    again = saved.with_name("again.onnx")
    save(load(saved), again)
    save(load(again), saved)
    assert again.read_bytes() == saved.read_bytes()


def one_line(error, path):
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08", "rubbish ü".encode() * 50])
def test_what_is_no_model_is_named(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ModelError) as error:
        load(saved)
    assert any(part in one_line(error, saved) for part in ("not an ONNX file", "holds no operators", "not valid ONNX"))


def test_a_truncated_model_is_named(saved):
    data = saved.read_bytes()
    for size in range(0, len(data) - 1, 7):
        saved.write_bytes(data[:size])
        with pytest.raises(ModelError):
            load(saved)


def test_a_missing_model_and_a_folder_are_named(saved):
    with pytest.raises(ModelError, match="cannot be read: No such file or directory"):
        load(saved.with_name("nowhere.onnx"))
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        load(saved.parent)


def test_missing_weight_files_are_named(saved):
    big = model(TEXT, w=EYE)
    onnx.save(big, saved, save_as_external_data=True, location="weights.bin", size_threshold=0)
    saved.with_name("weights.bin").unlink()
    with pytest.raises(ModelError) as error:
        load(saved)
    assert "weights.bin" in one_line(error, saved)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Convolve (x, w) }",
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, nothing) }",
        "g (float[1,2,4,4] x) => (float[9,9,9,9] y) { y = Conv (x, w) }",
    ],
)
def test_what_is_not_valid_onnx_is_named_in_one_line(text, tmp_path):
    with pytest.raises(ModelError, match="is not valid ONNX") as error:
        check(raw(text, w=EYE), tmp_path)
    one_line(error, tmp_path)


def test_a_network_from_torchvision_is_captured():
    torch.manual_seed(0)
    network = mobilenet_v2(width_mult=0.25).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    captured = capture(network, torch.zeros(1, 3, 64, 64), "image", ["logits"], 18)
    seen = view(captured)
    assert {n.op for n in seen.nodes} <= {
        "Conv",
        "Clip",
        "Add",
        "ReduceMean",
        "GlobalAveragePool",
        "Reshape",
        "Flatten",
        "Gemm",
    }
    assert [t.name for t in seen.inputs] == ["image"]
    assert seen.output_names == ("logits",)
    assert [n.name for n in seen.nodes[:3]] == ["features.0.0", "features.0.2", "features.1.conv.0.0"]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(image).numpy()
    np.testing.assert_allclose(run_onnx(captured, {"image": image.numpy()})["logits"], expected, rtol=1e-3, atol=1e-4)


def test_macs_are_those_that_torchvision_publishes():
    with torch.device("meta"):
        shapes = conv_shapes(mobilenet_v2())
    published = MobileNet_V2_Weights.IMAGENET1K_V1.meta["_ops"]
    assert round(sum(shapes) / 1e9, 3) == published


def conv_shapes(network):
    """The MACs of every layer of a network at 224, through one-operator models of its layers."""
    counts, size = [], 224
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            inner, outer, group, k = layer.in_channels, layer.out_channels, layer.groups, layer.kernel_size[0]
            stride, pad = layer.stride[0], layer.padding[0]
            out = (size + 2 * pad - k) // stride + 1
            text = (
                f"g (float[1,{inner},{size},{size}] x, float[{outer},{inner // group},{k},{k}] w)"
                f" => (float[1,{outer},{out},{out}] y) {{ y = Conv <group = {group}, strides = [{stride},{stride}],"
                f" pads = [{pad},{pad},{pad},{pad}]> (x, w) }}"
            )
            counts.append(macs(graph(text).nodes[0]))
            size = out
        elif isinstance(layer, nn.Linear):
            text = f"g (float[1,{layer.in_features}] x, float[{layer.out_features},{layer.in_features}] w)"
            text += f" => (float[1,{layer.out_features}] y) {{ y = Gemm <transB = 1> (x, w) }}"
            counts.append(macs(graph(text).nodes[0]))
    return counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g (float[1,4,9,9] x, float[6,2,3,5] w) => (float[1,6,7,5] y) { y = Conv <group = 2> (x, w) }", 210 * 2 * 15),
        ("g (float[1,4,3,3] x, float[4,6,2,2] w) => (float[1,6,4,4] y) { y = ConvTranspose (x, w) }", 4 * 9 * 6 * 4),
        ("g (float[7,3] x, float[7,5] w) => (float[3,5] y) { y = Gemm <transA = 1> (x, w) }", 3 * 7 * 5),
        ("g (float[3,7] x, float[5,7] w) => (float[3,5] y) { y = Gemm <transB = 1> (x, w) }", 3 * 7 * 5),
        ("g (float[2,3,7] x, float[2,7,5] w) => (float[2,3,5] y) { y = MatMul (x, w) }", 2 * 3 * 7 * 5),
        ("g (float[3,7] x) => (float[3,7] y) { y = Relu (x) }", 0),
    ],
)  # fmt: skip
def test_macs_by_hand(text, expected):
    assert macs(node(text)) == expected


class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class Raises(nn.Module):
    def forward(self, x):
        raise TypeError("first line\nsecond line")


class Silent(nn.Module):
    def forward(self, x):
        raise ValueError


@pytest.mark.parametrize("network", [Branches(), Raises(), Silent()])
def test_what_torch_cannot_export_is_named_in_one_line(network):
    with pytest.raises(
        ModelError, match=rf"{type(network).__name__}: torch\.onnx\.export\(dynamo=True\) cannot"
    ) as error:
        capture(network, torch.zeros(1, 3, 4, 4), "image", ["y"], 18)
    assert "\n" not in str(error.value)


FUSIONS = {
    "y = Relu (a)": True,
    "y = Clip (a, low, high)": True,
    "y = Clip (a)": True,
    "b = Relu (a) \n y = Add (a, b)": False,
    "y = Clip (x, s, high) \n s = ReduceMax <keepdims = 0> (a)": False,
    "s = ReduceMax <keepdims = 0> (x) \n y = Clip (a, s, high)": False,
    "y = my.Relu (a)": False,
    "y = Sigmoid (a)": False,
}


@pytest.mark.parametrize("body", FUSIONS)
def test_only_a_clamp_that_alone_reads_the_output_is_fused(body):
    if body.startswith("y = Clip (x, s"):
        body = "s = ReduceMax <keepdims = 0> (a) \n y = Clip (x, s, high)"
    text = f"g (float[1,2,4,4] x) => (float[1,2,4,4] y) {{ a = Conv (x, w) \n {body} }}"
    seen = graph(text, w=EYE, low=np.float32(0), high=np.float32(6))
    expected = FUSIONS.get(body, False)
    assert (fused_activation(seen, seen.producer("a")) is not None) == expected
    assert fused_outputs(seen) == ({"a"} if expected else set())
    grouped = [n.name for unit in units(seen) for n in unit]
    assert sorted(grouped) == sorted(n.name for n in seen.nodes)
    assert [len(u) for u in units(seen)].count(2) == expected


def test_an_output_of_the_model_is_not_fused_away():
    seen = graph(
        "g (float[1,2,4,4] x) => (float[1,2,4,4] a, float[1,2,4,4] y) { a = Conv (x, w) \n y = Relu (a) }", w=EYE
    )
    assert fused_activation(seen, seen.nodes[0]) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 6, (0, 6)), (-np.inf, 6, (None, 6)), (0, np.finfo(np.float32).max, (0, None)), (-1, 1, (-1, 1))],
)
def test_limits_of_a_clip(low, high, expected):
    text = "g (float[4] x) => (float[4] y) { y = Clip (x, low, high) }"
    assert clip_range(node(text, low=np.float32(low), high=np.float32(high))) == expected


def test_units_follow_each_other():
    seen = graph(TEXT.replace("y = Relu (a)", "b = Relu (a) \n c = Conv (b, w) \n y = Relu (c)"), w=EYE)
    order = {n.name: i for i, unit in enumerate(units(seen)) for n in unit}
    for before, after in pairwise(seen.nodes):
        assert order[before.name] <= order[after.name]
    assert math.prod(seen.outputs[0].dims) == 32
