"""Bounds hold for every input that the engine can be given, and some input comes to them."""

from types import MappingProxyType

import numpy as np
import pytest
from smallmodels import PER_CHANNEL, images, model, run_onnx

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize.bounds import Interval, carried, encoded
from pipeline.quantize.calibrate import calibrate
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
