"""Aligned scales suit the integer kernels, and cost nearly nothing."""

import numpy as np
from smallmodels import images, model, quantized, target

from pipeline.compile.lower import lower
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.aligned import align, even_reciprocals
from runtime.npu.contracts import find_contract
from runtime.npu.device import Device

TEXT = """g (float[1,3,16,16] x) => (float[1,6,8,8] y) {
    a = Conv <pads = [1,1,1,1]> (x, w, b)
    r = Relu (a)
    d = Conv <group = 8, strides = [2,2], pads = [1,1,1,1]> (r, v)
    y = Conv (d, u)
}"""
R1 = find_contract("tflite-r1")


def net():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return model(TEXT, w=normal(8, 3, 3, 3), b=normal(8), v=normal(8, 1, 3, 3), u=normal(6, 8, 1, 1))


def test_every_factor_becomes_one_over_an_even_integer():
    floating = net()
    _, scales = quantized(floating, images((1, 3, 16, 16)))
    aligned = align(view(floating), scales, R1)
    seen = view(check(qdq.insert(floating, aligned), "test"))
    program = lower(seen, seen.nodes, seen.inputs, seen.outputs, target())
    for item in program.instructions:
        multiplier, shift = (item.constants[name].astype(np.float64) for name in ("multiplier", "shift"))
        reciprocal = 2.0 ** (31 - shift) / multiplier
        assert (np.abs(reciprocal - 2 * np.rint(reciprocal / 2)) < 1e-4 * reciprocal).all()
    assert len(Device(program, threads=1)._steps) == 1
    for name, before in scales.weights.items():
        ratio = np.array(aligned.weights[name].scales) / np.array(before.scales)
        assert (ratio >= 1 - 1e-6).all()
        assert (ratio <= 1 + 3 / 32).all()


def test_other_rules_and_shared_weights_keep_their_scales():
    floating = net()
    _, scales = quantized(floating, images((1, 3, 16, 16)))
    assert align(view(floating), scales, find_contract("tflite-r2")) == scales
    shared = model(
        "g (float[1,3,4,4] x) => (float[1,3,4,4] y) { a = Conv (x, w) \n y = Conv (a, w) }",
        w=np.ones((3, 3, 1, 1), np.float32),
    )
    _, scales = quantized(shared, images((1, 3, 4, 4)))
    assert align(view(shared), scales, R1) == scales


def test_even_reciprocals_keep_away_from_powers_of_two():
    found = even_reciprocals(np.array([10.0, 33.9, 64.0, 65.0, 127.0, 128.0, 130.5, 1e6]))
    assert found.tolist() == [0, 0, 60, 60, 120, 120, 130, 0]
