"""Moving ranges between layers changes no output, and mends what shared scales break."""

import numpy as np
import pytest
from smallmodels import PER_CHANNEL, images, model, run_onnx, target

from pipeline.graph.fusion import clip_range
from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.calibrate import Tap, calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.equalization import equalize, pairs, rescue
from pipeline.quantize.findings import of_statistics
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.score import score

SHAPE = (1, 3, 8, 8)
PER_TENSOR = Scheme(dict.fromkeys(PER_CHANNEL, False))


def normal(*shape, scale=1.0, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


SKEW = np.float32(10.0) ** np.linspace(-1.5, 1.5, 8, dtype=np.float32)  # 1000:1

OTHER = np.random.default_rng(1).permutation(SKEW)


def skewed(clamp="Relu (a)", clamp2="Relu (c)"):
    """Three convolutions, the middle one depthwise, whose channels were made unlike on purpose."""
    return model(
        f"g (float[1,3,8,8] x) => (float[1,5,8,8] y) {{ a = Conv <pads = [1,1,1,1]> (x, w1, b1) \n b = {clamp}"
        f" c = Conv <group = 8, pads = [1,1,1,1]> (b, w2, b2) \n d = {clamp2} \n y = Conv (d, w3, b3) }}",
        w1=normal(8, 3, 3, 3, scale=0.3) * SKEW[:, None, None, None], b1=normal(8, seed=1) * SKEW,
        w2=normal(8, 1, 3, 3, seed=2, scale=0.3) * (OTHER / SKEW)[:, None, None, None],
        b2=normal(8, seed=3, scale=0.1) * OTHER,
        w3=normal(5, 8, 1, 1, seed=4) / OTHER[:, None, None], b3=normal(5, seed=5),
        zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


def statistics(floating):
    return calibrate(floating, view(floating), images(SHAPE, count=8))


def engine_db(floating, scheme):
    encodings = quantize(view(floating), statistics(floating).histograms, scheme, Choosing("minmax"))
    engine = Engine(qdq.insert(floating, encodings), target("kirin-970"))
    seen = images(SHAPE, count=4, seed=9)
    return score(engine, seen, [run_onnx(floating, {"x": image}) for image in seen]).sqnr_db


@pytest.mark.parametrize("aim", ["weights", "activations", "both"])
@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("clamp", ["Relu", "Clip6"])
def test_the_function_stays(aim, absorb, clamp):
    words = ("Clip (a, zero, six)", "Clip (c, zero, six)") if clamp == "Clip6" else ("Relu (a)", "Relu (c)")
    floating = skewed(*words)
    moved, places = equalize(floating, statistics(floating), PER_TENSOR, aim, absorb)
    assert places == 2
    for image in images(SHAPE, count=8):
        exact, found = run_onnx(floating, {"x": image})["y"], run_onnx(moved, {"x": image})["y"]
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max())
    assert {clip_range(n) for n in view(moved).nodes if n.op == "Clip"} <= {(0.0, 6.0)}


def first_weight(floating):
    return next(n for n in view(floating).nodes if n.op == "Conv").required(1).real


@pytest.mark.parametrize("aim", ["weights", "activations", "both"])
def test_a_clamp_cuts_nothing_more_on_images_brighter_than_any_seen(aim):
    floating = skewed("Clip (a, zero, six)", "Clip (c, zero, six)")
    taken = calibrate(floating, view(floating), images(SHAPE, count=8, low=-0.3, high=0.3))
    dim = taken.channels
    assert (dim["b"].high == 0).any()  # a channel that is dead on what was seen
    moved, _ = equalize(floating, taken, PER_TENSOR, aim, absorb=True)
    divided = (first_weight(floating) / first_weight(moved))[:, :1, 0, 0, None]
    assert divided.min() < 0.9  # something is evened still
    before, after = Tap(floating, ["b"]), Tap(moved, ["b"])
    encoded = quantize(view(floating), taken.histograms, PER_TENSOR, Choosing("minmax")).activations["x"]
    ends = [(q - encoded.zero_point) * encoded.scale for q in (-128, 127)]
    brighter = 0
    for image in images(SHAPE, count=16):
        for entering in (image.clip(*ends), np.where(image > 0, *reversed(ends)).astype(np.float32)):
            wanted = before.read(entering)["b"]
            assert (after.read(entering)["b"] * divided >= wanted * 0.9999 - 1e-4).all()
            brighter += (wanted.max(axis=(0, 2, 3)) > 1.2 * dim["b"].high).sum()
    assert brighter > 0


@pytest.mark.parametrize("aim", ["weights", "both"])
def test_channels_skewed_1000_to_1_come_back_per_tensor(aim):
    floating = skewed()
    naive = engine_db(floating, PER_TENSOR)
    moved, _ = equalize(floating, statistics(floating), PER_TENSOR, aim, absorb=True)
    evened = engine_db(moved, PER_TENSOR)
    assert naive < 12
    assert evened > 25


CLAMPED = ("Clip (a, zero, six)", "Clip (c, zero, six)")


@pytest.mark.parametrize(("per_channel", "before", "after"), [(False, 5, 17), (True, 9, 33)])
def test_channels_skewed_1000_to_1_come_back_between_clamps_too(per_channel, before, after):
    floating, scheme = skewed(*CLAMPED), Scheme(dict.fromkeys(PER_CHANNEL, per_channel))
    taken = statistics(floating)
    assert engine_db(floating, scheme) < before
    assert engine_db(equalize(floating, taken, scheme, "both", absorb=True)[0], scheme) > after


@pytest.mark.parametrize("aim", ["weights", "activations", "both"])
def test_between_clamps_the_function_stays_at_the_ends_of_the_input_too(aim):
    floating = skewed(*CLAMPED)
    moved, _ = equalize(floating, statistics(floating), PER_TENSOR, aim, absorb=True)
    divided = first_weight(floating) / first_weight(moved)
    assert divided.min() < 0.1
    assert run_onnx(floating, {"x": images(SHAPE)[0]})["y"].any()
    for image in images(SHAPE, count=24, seed=5):
        wide = np.sign(image)  # as bright and dark as anything can be
        exact, found = run_onnx(floating, {"x": wide})["y"], run_onnx(moved, {"x": wide})["y"]
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max())


BEHIND = {
    "LeakyRelu": "r = LeakyRelu (a)",
    "PRelu": "r = PRelu (a, slope)",
    "Relu": "r = Relu (a)",
}


def behind(between, seed):
    """Two convolutions whose channels are unlike, then a clamp; and what makes its channels as large as can be."""
    draw = np.random.default_rng(seed)
    first, second, third, fourth = 10 ** draw.uniform(-1.5, 1.5, (4, 6, 1, 1, 1))
    w1 = draw.normal(size=(6, 3, 3, 3)) * first
    w2 = draw.normal(size=(6, 6, 1, 1)) * second[:, 0] * third * 0.1
    w3 = draw.normal(size=(4, 6, 1, 1)) * fourth[:, 0]
    b1, b2 = draw.normal(size=(2, 6)) * 0.1
    constants = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "slope": 0.2, "zero": 0, "six": 6}
    floating = model(
        f"g (float[1,3,5,5] x) => (float[1,4,3,3] y) {{ a = Conv (x, w1, b1) \n {between}"
        " b = Conv (r, w2, b2) \n c = Clip (b, zero, six) \n y = Conv (c, w3) }",
        **{name: np.float32(value) for name, value in constants.items()},
    )
    extremes = np.zeros((6, 1, 3, 5, 5), np.float32)
    extremes[:, 0, :, :3, :3] = np.sign(np.einsum("kc,cijl->kijl", w2[:, :, 0, 0], w1)) * 0.99
    return floating, extremes


@pytest.mark.parametrize("between", BEHIND)
@pytest.mark.parametrize("aim", ["activations", "both"])
def test_behind_channels_that_were_divided_a_clamp_cuts_nothing_of_those_made_larger(between, aim):
    larger = 0
    for seed in range(12):
        floating, extremes = behind(BEHIND[between], seed)
        seen = images((1, 3, 5, 5), count=4, seed=seed, low=-0.3, high=0.3)
        seen[0].flat[:2] = 1, -1
        moved, places = equalize(floating, calibrate(floating, view(floating), seen), PER_TENSOR, aim, absorb=False)
        assert places == 2
        biases = [next(t for t in m.graph.initializer if t.name == "b2") for m in (floating, moved)]
        divided = np.divide(*(np.frombuffer(b.raw_data, np.float32) for b in biases))
        before, after = Tap(floating, ["c"]), Tap(moved, ["c"])
        for k in np.flatnonzero(divided < 0.999):
            wanted, found = (tap.read(extremes[k])["c"][0, k, 0, 0] for tap in (before, after))
            assert found * divided[k] == pytest.approx(wanted, rel=1e-3, abs=1e-4)
            larger += 1
    assert larger or between != "Relu"


def test_a_high_bias_moves_into_the_next_layer():
    floating = model(
        "g (float[1,3,8,8] x) => (float[1,2,8,8] y) { a = Conv (x, w, b) \n r = Relu (a) \n y = Conv (r, v, c) }",
        w=normal(4, 3, 1, 1, scale=0.1), b=np.float32([50, 40, 30, 0]),
        v=normal(2, 4, 1, 1, seed=1), c=np.float32([1, 2]),
    )  # fmt: skip
    moved, _ = equalize(floating, statistics(floating), PER_TENSOR, "weights", absorb=True)
    seen = statistics(moved).channels["a"]
    np.testing.assert_allclose(seen.low[:3], 0, atol=1e-4)
    assert (seen.high < 2).all()
    for image in images(SHAPE):
        exact, found = run_onnx(floating, {"x": image})["y"], run_onnx(moved, {"x": image})["y"]
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-3)


def test_outliers_of_a_transformer_move_from_a_norm_into_its_weights():
    gain = np.ones(16, np.float32)
    gain[3] = 100
    floating = model(
        "g (float[1,8,16] x) => (float[1,8,4] y) { n = LayerNormalization (x, gain, shift) \n y = MatMul (n, w) }",
        gain=gain, shift=normal(16), w=normal(16, 4) / gain[:, None],
    )  # fmt: skip
    taken = calibrate(floating, view(floating), images((1, 8, 16)))
    (told,) = (said for said in of_statistics(view(floating), taken) if said.startswith("n "))
    assert "n has 1 of 16 channels beyond 8 times the median: 3; the largest is" in told
    moved, places = equalize(floating, taken, PER_TENSOR, "activations", absorb=False)
    assert places == 1
    again = calibrate(moved, view(moved), images((1, 8, 16))).channels["n"].largest
    assert again.max() / np.median(again) < 4
    image = images((1, 8, 16))[0]
    np.testing.assert_allclose(
        run_onnx(moved, {"x": image})["y"], run_onnx(floating, {"x": image})["y"], rtol=1e-3, atol=1e-3
    )


NO_PAIRS = {
    "a residual": "a = Conv (x, w) \n b = Conv (a, v) \n y = Add (a, b)",
    "an output between": "y = Conv (x, w) \n z = Conv (y, v)",
    "no homogeneous function": "a = Conv (x, w) \n b = Sigmoid (a) \n y = Conv (b, v)",
    "a shared weight": "a = Conv (x, w) \n b = Relu (a) \n y = Conv (b, w)",
    "a clamp from below zero": "a = Conv (x, w) \n b = Clip (a, low, six) \n y = Conv (b, v)",
    "a clamp to below zero": "a = Conv (x, w) \n b = Clip (a, , low) \n y = Conv (b, v)",
    "a clamp to zero": "a = Conv (x, w) \n b = Clip (a, , zero) \n y = Conv (b, v)",
}


@pytest.mark.parametrize("case", NO_PAIRS)
def test_where_channels_cannot_be_rescaled(case):
    outputs = "float[1,3,8,8] y, float[1,3,8,8] z" if case == "an output between" else "float[1,3,8,8] y"
    floating = model(
        f"g (float[1,3,8,8] x) => ({outputs}) {{ {NO_PAIRS[case]} }}",
        w=normal(3, 3, 1, 1), v=normal(3, 3, 1, 1, seed=1), low=np.float32(-1), six=np.float32(6),
        zero=np.float32(0),
    )  # fmt: skip
    assert pairs(view(floating)) == ()


def test_a_bias_for_each_of_a_batch_is_of_no_channel():
    floating = model(
        "g (float[2,3] x) => (float[2,4] y) { a = Gemm (x, w, b) \n y = MatMul (a, v) }",
        w=normal(3, 6), b=normal(2, 6), v=normal(6, 4),
    )  # fmt: skip
    assert pairs(view(floating)) == ()


OTHER_AXES = {
    "the last of four of a norm": ("n = LayerNormalization (x, gain) \n y = MatMul (n, square)", [1, 4, 4, 4]),
    "the width, which is another": ("n = Conv (x, taps) \n y = MatMul (n, narrow)", [1, 4, 4, 3]),
    "the width, as wide as there are channels": ("n = Conv (x, taps) \n y = MatMul (n, square)", [1, 4, 4, 4]),
    "pooled over what a norm scales": (
        "n = LayerNormalization (x, gain) \n m = MaxPool <kernel_shape = [3], pads = [1,1]> (n) y = MatMul (m, square)",
        [1, 4, 4],
    ),
}


@pytest.mark.parametrize("case", OTHER_AXES)
def test_channels_on_another_axis_than_the_one_that_is_read_stay(case):
    body, shape = OTHER_AXES[case]
    sizes = ",".join(map(str, shape))
    floating = model(
        f"g (float[{sizes}] x) => (float[{','.join(map(str, shape[:-1]))},4] y) {{ {body} }}",
        gain=np.float32([1, 100, 1, 1]), taps=normal(4, 4, 1, 1) * np.float32([1, 100, 1, 1])[:, None, None, None],
        square=normal(4, 4, seed=1), narrow=normal(3, 4, seed=2),
    )  # fmt: skip
    assert pairs(view(floating)) == ()
    taken = calibrate(floating, view(floating), images(shape))
    assert equalize(floating, taken, PER_TENSOR, "both", absorb=True) == (floating, 0)
    assert rescue(floating, taken, PER_TENSOR)[2] == ()


@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 1), (1, 6)])
def test_a_bias_of_any_form_that_broadcasts_over_the_batch_is_scaled_with_its_channels(shape):
    floating = model(
        "g (float[1,5] x) => (float[1,3] y) { a = Gemm (x, w, b) \n r = Relu (a) \n y = Gemm <transB = 1> (r, v, c) }",
        w=normal(5, 6) * SKEW[:6], b=np.full(shape, 0.5, np.float32) + normal(*shape, seed=2) * 0.1,
        v=normal(3, 6, seed=1), c=normal(1, 3),
    )  # fmt: skip
    taken = calibrate(floating, view(floating), images((1, 5)))
    moved, places = equalize(floating, taken, PER_TENSOR, "weights", absorb=False)
    assert places == 1
    assert len(view(moved).nodes[0].input(2).dims) == max(len(shape), 1)
    for image in images((1, 5), count=8):
        exact, found = run_onnx(floating, {"x": image})["y"], run_onnx(moved, {"x": image})["y"]
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max())


def test_a_dead_channel_stays_dead():
    floating = skewed()
    tensor = next(i for i in floating.graph.initializer if i.name == "w1")
    weight = np.frombuffer(tensor.raw_data, np.float32).copy().reshape(8, -1)
    weight[2] = 0
    tensor.raw_data = weight.tobytes()
    moved, _ = equalize(floating, statistics(floating), PER_TENSOR, "both", absorb=False)
    assert np.isfinite(run_onnx(moved, {"x": images(SHAPE)[0]})["y"]).all()


@pytest.mark.parametrize("scheme", [PER_TENSOR, Scheme(PER_CHANNEL)])
@pytest.mark.parametrize("clamps", [(), CLAMPED])
def test_only_channels_far_beyond_the_others_are_rescued_without_another_calibration(scheme, clamps):
    floating = skewed(*clamps)
    taken = calibrate(floating, view(floating), images(SHAPE), histograms=False)
    moved, seen, places = rescue(floating, taken, scheme)
    assert places
    again = calibrate(moved, view(moved), images(SHAPE), histograms=False)
    for name, histogram in seen.histograms.items():
        if name in again.histograms and again.histograms[name].updates:
            ends = histogram.low, histogram.high
            assert ends == pytest.approx((again.histograms[name].low, again.histograms[name].high), rel=1e-3, abs=1e-5)
    for image in images(SHAPE, count=4):
        exact, found = run_onnx(floating, {"x": image})["y"], run_onnx(moved, {"x": image})["y"]
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max())
    assert rescue(moved, again, scheme)[2] == ()


def test_channels_are_rescued_within_ranges_that_are_given_whatever_was_seen():
    floating = skewed(*CLAMPED)
    taken = calibrate(floating, view(floating), images(SHAPE, low=-0.3, high=0.3), histograms=False)
    seen, wide = (first_weight(rescue(floating, taken, PER_TENSOR, given)[0]) for given in ({}, {"x": (-1.0, 1.0)}))
    divided = [(first_weight(floating) / weight)[:, 0, 0, 0] for weight in (seen, wide)]
    before, after = Tap(floating, ["b"]), Tap(rescue(floating, taken, PER_TENSOR, {"x": (-1.0, 1.0)})[0], ["b"])
    assert (divided[1] >= divided[0] * 0.999).any()
    for image in images(SHAPE, count=8):
        bright = np.sign(image)
        wanted = before.read(bright)["b"]
        assert (after.read(bright)["b"] * divided[1][:, None, None] >= wanted * 0.9999 - 1e-4).all()
