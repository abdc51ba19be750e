"""Training with rounding: torch computes what ONNX Runtime and the engine do; training recovers what PTQ loses."""

import copy

import numpy as np
import pytest
import torch
from enginenets import net, smooth
from smallmodels import model, quantized, run_onnx, target

from pipeline.errors import ModelError
from pipeline.quantize import qdq
from pipeline.quantize.differentiable import QuantizedNetwork, rounded, rounded_weight
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding
from pipeline.quantize.engine import Engine
from pipeline.quantize.operators import OPERATORS
from pipeline.quantize.score import score
from runtime.npu.contracts import find_contract

CONTRACT = find_contract("tflite-r1")
NOTHING = Encodings({}, {})
RANDOM = np.random.default_rng(3)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def sizes(*values):
    return np.array(values, np.int64)


ONES = np.ones(6, np.float32)
NO_REGION = np.zeros(0, np.float32)
IMAGE = "g (float[1,4,8,6] x) => (float[1,{out}] y) {{ y = {op} }}"
CASES = {
    "Add": ("4,8,6", "Add (x, c)", {"c": normal(1, 4, 1, 1)}),
    "AveragePool": ("4,4,3", "AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)", {}),
    "AveragePool counted": ("4,8,6", "AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (x)", {}),
    "Clip": ("4,8,6", "Clip (x, lo, hi)", {"lo": np.float32(-0.5), "hi": np.float32(0.75)}),
    "Concat": ("8,8,6", "Concat <axis=1> (x, x)", {}),
    "Conv": ("6,4,3", 'Conv <strides=[2,2], auto_pad="SAME_UPPER"> (x, w, b)', {"w": normal(6, 4, 3, 3), "b": ONES}),
    "Conv apart": ("4,8,6", "Conv <group=4, dilations=[2,2], pads=[2,2,2,2]> (x, w)", {"w": normal(4, 1, 3, 3)}),
    "Flatten": ("192", "Flatten (x)", {}),
    "Gemm": ("5", "Gemm <transB=1> (f, w, b)", {"w": normal(5, 192), "b": normal(5)}),
    "Gemm untransposed": ("5", "Gemm (f, w)", {"w": normal(192, 5)}),
    "GlobalAveragePool": ("4,1,1", "GlobalAveragePool (x)", {}),
    "HardSigmoid": ("4,8,6", "HardSigmoid <alpha=0.1666667> (x)", {}),
    "HardSwish": ("4,8,6", "HardSwish (x)", {}),
    "Identity": ("4,8,6", "Identity (x)", {}),
    "LeakyRelu": ("4,8,6", "LeakyRelu <alpha=0.2> (x)", {}),
    "MatMul": ("4,8,5", "MatMul (x, w)", {"w": normal(6, 5)}),
    "MaxPool": ("4,5,4", "MaxPool <kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]> (x)", {}),
    "MaxPool rounded up": ("4,3,2", "MaxPool <kernel_shape=[3,3], strides=[3,3], ceil_mode=1> (x)", {}),
    "Mul": ("4,8,6", "Mul (x, x)", {}),
    "ReduceMean": ("4,6", "ReduceMean <keepdims=0> (x, axes)", {"axes": sizes(2)}),
    "Relu": ("4,8,6", "Relu (x)", {}),
    "Reshape": ("8,24", "Reshape (x, to)", {"to": sizes(1, 8, 24)}),
    "Resize": ("4,20,9", "Resize (x, r, s)", {"r": NO_REGION, "s": np.float32([1, 1, 2.5, 1.5])}),
    "Resize linear": ("4,16,12", 'Resize <mode="linear"> (x, r, s)', {"r": NO_REGION, "s": np.float32([1, 1, 2, 2])}),
    "Sigmoid": ("4,8,6", "Sigmoid (x)", {}),
    "Softmax": ("4,8,6", "Softmax <axis=1> (x)", {}),
    "Sub": ("4,8,6", "Sub (c, x)", {"c": normal(1, 4, 8, 6)}),
    "Tanh": ("4,8,6", "Tanh (x)", {}),
    "Transpose": ("8,6,4", "Transpose <perm=[0,2,3,1]> (x)", {}),
}  # fmt: skip


def small(case):
    out, op, constants = CASES[case]
    text = IMAGE.format(out=out, op=op).replace("y = Gemm", "f = Flatten (x) \n y = Gemm")
    return model(text, **constants)


@pytest.mark.parametrize("case", CASES)
def test_an_operator_is_what_onnx_runtime_computes_for_any_batch(case):
    made = small(case)
    seen = normal(3, 4, 8, 6)
    found = QuantizedNetwork(made, NOTHING, CONTRACT)(torch.from_numpy(seen))["y"].detach().numpy()
    wanted = np.concatenate([run_onnx(made, {"x": image[None]})["y"] for image in seen])
    assert np.allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_an_operator_runs_where_its_input_lies(case):
    network = QuantizedNetwork(small(case), NOTHING, CONTRACT).to("meta")
    assert network(torch.empty(3, 4, 8, 6, device="meta"))["y"].device.type == "meta"


def test_a_network_with_rounding_runs_and_learns_where_it_lies():
    _, scales = quantized(net(), smooth(2, seed=1))
    network = QuantizedNetwork(net(), scales, CONTRACT).to("meta")
    network(torch.empty(5, 3, 12, 12, device="meta"))["y"].sum().backward()
    assert {p.grad.device.type for p in network.parameters()} == {"meta"}


def test_every_operator_has_a_case():
    assert {case.split()[0] for case in CASES} == OPERATORS.keys()


def test_rounding_is_to_the_nearest_half_away_from_zero_within_the_limits():
    encoding = ActivationEncoding(-1.0, 1.0, 0.5, 3)
    values = torch.tensor([0.25, -0.25, 0.24, 0.75, -0.75, 100.0, -100.0], requires_grad=True)
    found = rounded(values, encoding, (-128, 127))
    assert found.tolist() == [0.5, -0.5, 0.0, 1.0, -1.0, 62.0, -65.5]
    found.sum().backward()
    assert values.grad.tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_weights_are_rounded_as_the_file_has_them():
    values, encoding = normal(5, 4, 3, 3), WeightEncoding((0.011, 0.02, 0.017, 0.5, 0.001), 0)
    steps = np.float32(encoding.scales).reshape(5, 1, 1, 1)
    given = torch.from_numpy(values).requires_grad_()
    found = rounded_weight(given, encoding)
    assert np.allclose(found.detach().numpy(), qdq.round_weight(values, encoding) * steps, atol=1e-6)
    found.sum().backward()
    assert set(given.grad.unique().tolist()) == {0.0, 1.0}  # those beyond the range of a scale get none


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_network_computes_what_the_engine_does_but_for_single_steps(per_channel):
    floating = net()
    kinds = dict.fromkeys(("Conv", "Gemm"), per_channel)
    lossy, scales = quantized(floating, smooth(6, seed=1), kinds, contract=CONTRACT)
    engine = Engine(lossy, target())
    network = QuantizedNetwork(floating, scales, CONTRACT)
    step = scales.activations["y"].scale
    for image in smooth(3, seed=5):
        wanted = engine.run(image)["y"]
        found = network(torch.from_numpy(image))["y"].detach().numpy()
        assert np.abs(found - wanted).max() <= 2.01 * step
        assert np.abs(run_onnx(floating, {"x": image})["y"] - wanted).max() > np.abs(found - wanted).max()


def test_what_is_written_untrained_is_the_same_model():
    floating = net()
    _, scales = quantized(floating, smooth(2, seed=1))
    network = QuantizedNetwork(floating, scales, CONTRACT)
    assert network.written() == floating
    assert copy.deepcopy(network).written() == floating
    with torch.no_grad():
        next(iter(network.trained.values())).fill_(torch.nan)
    with pytest.raises(ModelError, match=r"Conv: .*quantize\.qat\.learning_rate"):
        network.written()


def test_an_operator_that_cannot_be_trained_is_named():
    with pytest.raises(
        ModelError, match=r"quantize\.mode: Erf \(Erf\) cannot be trained with rounding \(set it to ptq"
    ):
        QuantizedNetwork(net("Erf (a)"), NOTHING, CONTRACT)


def coarse(floating, seen, levels):
    """Per tensor, and so few levels that rounding to the nearest loses much: scales are widened to 127 / levels."""
    _, scales = quantized(floating, seen, dict.fromkeys(("Conv", "Gemm"), False))
    wide = {n: WeightEncoding((e.scales[0] * 127 / levels,), None) for n, e in scales.weights.items()}
    return Encodings(scales.activations, wide)


def test_training_recovers_on_the_engine_what_four_levels_lose():
    floating, seen = net(), smooth(24, seed=1)
    scales = coarse(floating, seen, 4)
    network = QuantizedNetwork(floating, scales, CONTRACT)
    batch = torch.from_numpy(np.concatenate(seen))
    wanted = torch.from_numpy(np.concatenate([run_onnx(floating, {"x": image})["y"] for image in seen]))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    torch.manual_seed(0)
    for _ in range(120):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(batch)["y"], wanted).backward()
        optimizer.step()
    fresh = smooth(8, seed=9)  # neither learnt from nor calibrated with
    outputs = [run_onnx(floating, {"x": image}) for image in fresh]
    before, after = (
        score(Engine(qdq.insert(made, scales), target("kirin-970")), fresh, outputs).sqnr_db
        for made in (floating, network.written())
    )
    assert before < 15
    assert after > before + 4
