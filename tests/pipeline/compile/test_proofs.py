"""Bounds of accumulators: never exceeded by any input, and reached by the worst one."""

from dataclasses import replace

import numpy as np
import pytest
from smallmodels import images, model, program, quantized

from pipeline.compile.proofs import prove
from pipeline.errors import ModelError
from runtime.npu.kernels import convolution
from runtime.npu.program import Instruction, Program
from runtime.npu.requantize import quantize_factor
from runtime.tensors import TensorSpec


def dense(rows, bias=0, factor=2.0**-20, contract="tflite-r1", zero=-128, changes=None):
    """A fully connected layer of one output channel per row of weights."""
    rows = np.atleast_2d(np.array(rows, np.int8))
    x = TensorSpec("x", (1, rows.shape[1]), "int8", 0.1, zero)
    y = TensorSpec("y", (1, len(rows)), "int8", 0.1, 0)
    m, e = quantize_factor(factor, 31)
    constants = {
        "weight": rows,
        "bias": np.full(len(rows), bias, np.int32),
        "multiplier": np.full(len(rows), m, np.int32),
        "shift": np.full(len(rows), e, np.int32),
    }
    item = Instruction(
        "fully_connected", "head", ("x",), "y", {"act_min": -128, "act_max": 127}, constants | (changes or {})
    )
    return Program("toy", contract, {}, (x, y), ("x",), ("y",), (item,))


def test_the_bound_is_what_the_worst_input_gives():
    """x - z in [0, 255]: 255 * (100 + 27) - 0 above, 255 * -50 below, and the bias where it makes either worse."""
    (bound,) = prove(dense([[100, -50, 27]], bias=1000))
    assert (bound.name, bound.low, bound.high, bound.bits) == ("head", -50 * 255, 127 * 255 + 1000, 32)
    assert bound.spare_bits == 31 - (127 * 255 + 1000).bit_length()
    assert prove(dense([[100, -50, 27]], bias=-1000))[0].low == -50 * 255 - 1000


def test_a_clamp_before_it_narrows_the_bound():
    first = dense([[1, 1], [1, 1], [1, 1]])
    narrow = {"act_min": -128, "act_max": -118}
    clamped = replace(first.instructions[0], output="m", attributes=narrow)
    second = replace(dense([[100, 100, 100]]).instructions[0], inputs=("m",), name="next")
    tensors = (first.tensors[0], TensorSpec("m", (1, 3), "int8", 0.1, -128), TensorSpec("y", (1, 1), "int8", 0.1, 0))
    both = replace(first, tensors=tensors, instructions=(clamped, second))
    assert prove(both)[1].high == 300 * 10


def test_no_input_of_a_real_network_leaves_the_bounds(monkeypatch):
    """Every accumulator that the kernels see, on extreme and random inputs, lies inside its bound."""
    text = """g (float[1,3,12,12] x) => (float[1,4,1,1] y) {
      a = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w1, b1)
      r = Relu (a)
      c = Conv (r, w2)
      y = GlobalAveragePool (c)
    }"""
    rng = np.random.default_rng(1)
    weights = {"w1": rng.normal(size=(6, 3, 3, 3)), "b1": rng.normal(size=6), "w2": rng.normal(size=(4, 6, 1, 1))}
    net = model(text, **{name: value.astype(np.float32) for name, value in weights.items()})
    made = program(quantized(net, images((1, 3, 12, 12)))[0])
    compiled = getattr(made, "program", made)
    bounds = {bound.name: bound for bound in prove(compiled)}
    assert len(bounds) == 3
    seen = []
    original = convolution.fits

    def spy(values, operation, what):
        seen.append((operation.instruction.name, int(values.min()), int(values.max())))
        return original(values, operation, what)

    monkeypatch.setattr(convolution, "fits", spy)
    from runtime.npu.device import Device  # noqa: PLC0415

    device, (name,) = Device(compiled, fast=False), compiled.inputs
    for image in (np.full((1, 3, 12, 12), v, np.int8) for v in (-128, 127)):
        device.run({name: image})
    device.run({name: rng.integers(-128, 128, (1, 3, 12, 12)).astype(np.int8)})
    assert len(seen) == 2 * 2 * 3
    assert all(bounds[node].low <= low and high <= bounds[node].high for node, low, high in seen)


WIDE = np.full((2, 70_000), 127, np.int8)

BAD = {
    "accumulator": (
        dense(WIDE),
        r"head: the accumulator of channel 0 may reach 2266950000, tflite-r1 has int32 \(split the layer over",
    ),
    "negative accumulator": (dense(-WIDE), "the accumulator of channel 0 may reach -2266950000"),
    "accumulator with its bias": (dense([[127]], bias=2**31 - 1), "the accumulator of channel 0 may reach 2147516032"),
    "multiplier": (
        dense([[1]], changes={"multiplier": np.array([5], np.int32)}),
        r"head: multiplier 0 is 5, tflite-r1 has \[2\*\*30, 2\*\*31\) \(calibrate again",
    ),
    "shift": (dense([[0]], changes={"shift": np.array([31], np.int32)}), "shift 0 is 31"),
    "scaled": (dense([[127]], factor=2.0**25), r"head: requantizes accumulator times 2\*\*shift leaves int32"),
    "bias": (
        dense([[1]], contract="tflite-r8", changes={"bias": np.array([2**47], np.int64)}),
        "the bias of channel 0 is 140737488355328, tflite-r8 has int48",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_could_overflow_names_the_node_and_what_to_do(name):
    made, message = BAD[name]
    with pytest.raises(ModelError, match=message):
        prove(made)


def test_an_accumulator_that_saturates_is_told_and_not_refused():
    (bound,) = prove(dense(np.full((1, 64), 127, np.int8), contract="tflite-r1+acc16"))
    assert (bound.bits, bound.high) == (16, 64 * 127 * 255)
    assert bound.spare_bits < 0
