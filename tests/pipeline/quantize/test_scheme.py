"""Each target's own scheme: zero points, shared scales, powers of two, fixed outputs."""

import numpy as np
import pytest
from smallmodels import images, model, quantized, run_onnx, target

from pipeline.errors import TargetError
from pipeline.graph.view import view
from pipeline.quantize import scheme
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import DEAD_RANGE, FIXED_OUTPUT, SMALLEST_STEP, Scheme
from pipeline.quantize.score import score
from pipeline.targets.rules import violations

SHAPE = (1, 2, 4, 4)
RESIDUAL = """g (float[1,2,4,4] x) => (float[1,2,4,4] y) {
    a = Conv (x, w) \n b = Mul (a, a) \n s = Sigmoid (x) \n c = Add (a, b) \n d = Add (c, s) \n y = Identity (d) }"""


def residual():
    return model(RESIDUAL, w=np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1) * 3)


def made(wanted):
    floating = residual()
    taken = calibrate(floating, view(floating), images(SHAPE)).histograms
    return quantize(view(floating), taken, wanted, Choosing("minmax")).activations


def test_the_dla_gets_symmetric_activations_and_one_scale_for_what_is_added():
    dla = target("jetson-xavier-nx-dla")
    found = made(scheme.of(dla))
    assert {e.zero_point for e in found.values()} == {0}
    assert found["a"].scale == found["b"].scale
    assert found["c"].scale == found["s"].scale
    assert found["x"].scale != found["a"].scale
    lossy, _ = quantized(residual(), images(SHAPE), dla.per_channel(), symmetric=True, shared_scales=frozenset(["Add"]))
    broken = {str(v) for n in view(lossy).nodes for v in violations(n, dla) if "zero point" in str(v)}
    assert not broken


def test_a_contract_narrows_the_scheme():
    shifting = target().model_copy(update={"contract": "pot-r9-half-up"})
    wanted = scheme.of(shifting)
    assert (wanted.symmetric, wanted.power_of_two) == (True, True)
    floating = residual()
    lossy, _ = quantized(floating, images(SHAPE), symmetric=True, power_of_two=True)
    engine = Engine(lossy, shifting)
    assert {unit.device for unit in engine.units} == {"npu"}
    seen = images(SHAPE, count=3, seed=5)
    assert score(engine, seen, [run_onnx(floating, {"x": image}) for image in seen]).sqnr_db > 25
    with pytest.raises(TargetError, match="its contract tflite-r8 computes with int16"):
        scheme.of(target().model_copy(update={"contract": "tflite-r8"}))


def test_other_targets_keep_their_zero_points_and_their_own_scales():
    found = made(scheme.of(target()))
    assert found["b"].zero_point == -128
    assert found["a"].scale != found["b"].scale
    assert (found["s"].scale, found["s"].zero_point) == FIXED_OUTPUT["Sigmoid"]


def test_symmetric_covers_the_range_on_both_sides():
    wanted = Scheme(symmetric=True)
    assert wanted.activation(-1.0, 127.0) == (1.0, 0)
    assert wanted.activation(-254.0, 3.0) == (2.0, 0)
    assert wanted.fixed("int8")["Sigmoid"] == (1 / 128, 0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_powers_of_two_cover_the_range(symmetric):
    wanted = Scheme({"Conv": True}, symmetric=symmetric, power_of_two=True)
    for low, high in [(-1.0, 3.0), (0.0, 255.0), (-1e-9, 0.0), (-700.0, 1.0)]:
        scale, zero = wanted.activation(low, high)
        assert np.log2(scale) == np.rint(np.log2(scale))
        assert (-128 - zero) * scale <= low + scale / 2
        assert (127 - zero) * scale >= high - scale / 2
    lossy, encodings = quantized(residual(), images(SHAPE), symmetric=symmetric, power_of_two=True)
    scales = [e.scale for e in encodings.activations.values()] + list(encodings.weights["w"].scales)
    assert all(float(np.log2(s)).is_integer() for s in scales)
    assert lossy.graph.node


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("width", [1e-3, 1e-9, 1e-15])
def test_small_ranges_keep_their_levels_and_ranges_of_nothing_get_one(symmetric, width):
    scheme = Scheme(symmetric=symmetric)
    assert scheme.activation(0.0, width)[0] == pytest.approx(width / (127 if symmetric else 255))
    assert scheme.activation(0.0, 1e-30)[0] == pytest.approx(SMALLEST_STEP)
    assert scheme.activation(0.0, 0.0)[0] == pytest.approx(DEAD_RANGE / (254 if symmetric else 255))
