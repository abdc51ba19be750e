"""Bounds hold for every input that the engine can be given, and some input comes to them."""

from types import MappingProxyType

import numpy as np
import pytest
from smallmodels import PER_CHANNEL, images, model, run_onnx

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize.bounds import Interval, carried, encoded
from pipeline.quantize.calibrate import Tap, calibrate
from pipeline.quantize.equalization import pairs
from pipeline.quantize.layers import layer
from pipeline.quantize.scheme import Scheme

SHAPE = (1, 3, 6, 6)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def chain(between="Relu (a)"):
    return model(
        f"g (float[1,3,6,6] x) => (float[1,4,6,6] y) {{ a = Conv (x, w, b) \n r = {between} \n y = Conv (r, v) }}",
        w=normal(0, 5, 3, 1, 1), b=normal(1, 5), v=normal(2, 4, 5, 1, 1), zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


def taken(floating, low=-1.0):
    return calibrate(floating, view(floating), images(SHAPE, count=4, low=low)).histograms


def test_a_range_is_what_its_integers_stand_for():
    floating = chain()
    seen = taken(floating, low=-0.5)
    ranges = encoded(view(floating), seen, Scheme(PER_CHANNEL), {})
    for name, (low, high) in ranges.items():
        assert low <= seen[name].low + 0.01 * seen[name].width
        assert high >= seen[name].high - 0.01 * seen[name].width
    assert set(ranges) == {"x", "r", "y"}  # what is inside a fused operator saturates nowhere
    assert ranges["r"][0] == 0
    assert ranges["x"][0] > -0.52
    wide = encoded(view(floating), seen, Scheme(PER_CHANNEL, types=("int8", "int16")), {})
    assert wide["x"][0] == -wide["x"][1] < -0.9
    assert wide["r"][0] == 0
    symmetric = encoded(view(floating), seen, Scheme(PER_CHANNEL, symmetric=True), {})
    assert symmetric["x"][0] < -0.98
    asked = encoded(view(floating), seen, Scheme(PER_CHANNEL), {"x": (-4.0, 4.0), "y": "entropy"})
    assert asked["x"] == pytest.approx((-4, 4), rel=0.02)
    assert asked["y"] == ranges["y"]


LAYERS = {
    "Conv <pads = [1,1,1,1]>": (5, 4, 3, 3),
    "Conv <group = 2, pads = [1,1,1,1]>": (6, 2, 3, 3),
    "Conv <group = 4, pads = [1,1,1,1]>": (4, 1, 3, 3),
}


@pytest.mark.parametrize("op", LAYERS)
def test_some_input_comes_to_the_bound_and_none_goes_beyond(op):
    shape = LAYERS[op]
    floating = model(
        f"g (float[1,4,5,5] x) => (float[1,{shape[0]},5,5] a) {{ a = {op} (x, w, b) }}",
        w=normal(0, *shape), b=normal(1, shape[0]),
    )  # fmt: skip
    low, high = -1.5, 2.0
    found = layer(view(floating).nodes[0]).bound(Interval(np.full(4, low), np.full(4, high)))
    outputs, into = shape[0], shape[1]
    for channel in range(outputs):
        first = channel // (outputs * into // 4) * into  # of the channels that its group reads
        worst = np.zeros((1, 4, 5, 5), np.float32)
        worst[0, first : first + into, 1:4, 1:4] = np.where(normal(0, *shape)[channel] > 0, high, low)
        middle = run_onnx(floating, {"x": worst})["a"][0, channel, 2, 2]
        assert max(middle, 0) == pytest.approx(found.high[channel], rel=1e-5)
        other = np.where(worst == high, low, np.where(worst == low, high, 0)).astype(np.float32)
        middle = run_onnx(floating, {"x": other})["a"][0, channel, 2, 2]
        assert min(middle, 0) == pytest.approx(found.low[channel], rel=1e-5)
    for image in images((1, 4, 5, 5), count=8):
        given = run_onnx(floating, {"x": image.clip(low, high)})["a"][0]
        assert (given <= found.high[:, None, None] + 1e-5).all()
        assert (given >= found.low[:, None, None] - 1e-5).all()


@pytest.mark.parametrize("op", ["Gemm (x, w, b)", "Gemm <transB = 1> (x, w, b)", "MatMul (x, w)"])
def test_some_row_comes_to_the_bound_of_a_matrix_and_none_goes_beyond(op):
    weight = normal(0, 4, 6)  # [I, O]
    floating = model(
        f"g (float[1,4] x) => (float[1,6] a) {{ a = {op} }}",
        w=np.ascontiguousarray(weight.T if "transB" in op else weight), b=normal(1, 6),
    )  # fmt: skip
    low, high = np.array([-1.5, 0, -0.2, -3]), np.array([2.0, 1, 0, 0.5])
    found = layer(view(floating).nodes[0]).bound(Interval(low, high))
    for channel in range(6):
        rising = weight[:, channel] > 0
        for ends, bound, kept in ((rising, found.high, max), (~rising, found.low, min)):
            row = np.where(ends, high, low)[None].astype(np.float32)
            assert kept(run_onnx(floating, {"x": row})["a"][0, channel], 0) == pytest.approx(bound[channel], rel=1e-5)
    for row in images((1, 4), count=32, low=-4, high=4):
        given = run_onnx(floating, {"x": row.clip(low, high).astype(np.float32)})["a"][0]
        assert (given <= found.high + 1e-5).all()
        assert (given >= found.low - 1e-5).all()


@pytest.mark.parametrize("padded", [0, 1])
def test_an_average_of_what_lies_within_an_interval_does_too(padded):
    pool = f"AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = {padded}> (a)"
    floating = chain(pool)
    (pair,) = pairs(view(floating))
    made = layer(pair.maker).bound(Interval(np.full(3, -0.5), np.full(3, 1.0)))
    found = carried(pair.carriers, made)
    pooled = Tap(floating, ["r"])
    for image in [*images(SHAPE, count=8), *(np.sign(each) for each in images(SHAPE, count=8, seed=1))]:
        given = pooled.read(image.clip(-0.5, 1))["r"][0]
        assert (given <= found.high[:, None, None] + 1e-5).all()
        assert (given >= found.low[:, None, None] - 1e-5).all()


def test_two_clamps_in_a_row_and_several_readers_are_bounded_by_both():
    floating = model(
        "g (float[1,3,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) { a = Conv (x, w, b) \n r = Relu (a)"
        " s = Clip (r, zero, six) \n y = Conv (s, v) \n z = Conv (s, u) }",
        w=normal(0, 5, 3, 1, 1), b=normal(1, 5), v=normal(2, 4, 5, 1, 1), u=normal(3, 4, 5, 1, 1),
        zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip
    (pair,) = pairs(view(floating))
    assert [n.outputs[0].name for n in pair.readers] == ["y", "z"]
    assert pair.ceiling == 6
    found = carried(pair.carriers, Interval(np.full(5, -9.0), np.array([1.0, 7, 0, 6, 20])))
    assert found.low.tolist() == [0] * 5
    assert found.high.tolist() == [1, 6, 0, 6, 6]
    for reader in pair.readers:
        bound, ends = layer(reader).bound(found), reader.required(1).real[:, :, 0, 0]
        exact = np.maximum(np.where(ends > 0, found.high * ends, 0).sum(axis=1), 0)
        np.testing.assert_allclose(bound.high, exact, rtol=1e-6)


def test_carriers_keep_an_interval_between_their_limits():
    made = Interval(np.full(5, -9.0), np.array([1.0, 7, 0, 6, 20]))
    (pair,) = pairs(view(chain("Clip (a, zero, six)")))
    found = carried(pair.carriers, made)
    assert found.low.tolist() == [0] * 5
    assert found.high.tolist() == [1, 6, 0, 6, 6]


def test_what_may_go_beyond_its_input_has_no_bound():
    made = Interval(np.zeros(5), np.ones(5))
    (pair,) = pairs(view(chain("PRelu (a, six)")))
    assert carried(pair.carriers, made) is None
    (pair,) = pairs(view(chain("MaxPool <kernel_shape = [1,1]> (a)")))
    assert carried(pair.carriers, made) == made


def test_a_weight_that_is_not_finite_is_named():
    floating = chain()
    seen = taken(floating)
    broken = chain()
    next(i for i in broken.graph.initializer if i.name == "w").raw_data = np.full(15, np.nan, np.float32).tobytes()
    with pytest.raises(ModelError, match="weight holds values that are not finite"):
        encoded(view(broken), seen, Scheme(PER_CHANNEL), MappingProxyType({}))
