"""Rounding for the outputs and correcting biases, on the engine, and written back bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from enginenets import SHAPE, encodings, engine, net, smooth, wanted
from smallmodels import PER_CHANNEL, images, model, quantized, run_onnx, target

from pipeline.graph.view import view
from pipeline.quantize import qdq, writeback
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.correction import correct, expected_shifts
from pipeline.quantize.encodings import Encodings
from pipeline.quantize.engine import Engine
from pipeline.quantize.patches import Geometry, geometry, rows
from pipeline.quantize.rounding import DAMPING, compensate, pull, round_rows
from pipeline.quantize.score import score
from pipeline.quantize.walk import walk

RANDOM = np.random.default_rng(8)


def squared(given, weights, steps, q):
    return float(((given @ weights.T - given @ (q * steps[:, None]).T) ** 2).sum())


@pytest.mark.parametrize(("rank", "most"), [(2, 0.5), (4, 0.15), (20, 0.5)])
def test_rounding_for_outputs_beats_the_nearest(rank, most):
    ratios = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        given = generator.standard_normal((200, rank)) @ generator.standard_normal((rank, 32))
        given += 0.05 * generator.standard_normal((200, 32))
        weights, steps = generator.uniform(-3, 3, (4, 32)), np.full(4, 0.5)
        q = round_rows(weights, steps, given, given @ weights.T)
        assert np.array_equal(q, np.rint(q))
        nearest = np.rint(weights / steps[:, None])
        ratios.append(squared(given, weights, steps, q) / squared(given, weights, steps, nearest))
    assert np.mean(ratios) < most


def test_what_never_varies_is_rounded_to_the_nearest():
    weights = np.array([[0.4, -0.7, 200.0]])
    assert round_rows(weights, np.ones(1), np.zeros((5, 3)), np.zeros((5, 1))).tolist() == [[0, -1, 127]]


def test_rounding_stays_within_int8():
    q = round_rows(np.full((1, 3), 100.0), np.ones(1) * 0.5, RANDOM.standard_normal((50, 3)), np.zeros((50, 1)) + 1e4)
    assert np.abs(q).max() <= 127


CONVOLUTIONS = {
    "plain": ("strides = [1,1]", (5, 4, 3, 3)),
    "strided and padded": ("strides = [2,1], pads = [1,0,2,1]", (5, 4, 3, 3)),
    "dilated": ("dilations = [2,3], pads = [2,3,2,3]", (5, 4, 3, 3)),
    "grouped": ("group = 2, pads = [1,1,1,1]", (6, 2, 3, 3)),
    "depthwise": ("group = 4, auto_pad = \"SAME_UPPER\", strides = [2,2]", (4, 1, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_patches_times_weights_are_the_convolution(case):
    attributes, shape = CONVOLUTIONS[case]
    weight = RANDOM.standard_normal(shape).astype(np.float32)
    floating = model(f"g (float[1,4,9,11] x) => (float[1,N,H,W] y) {{ y = Conv <{attributes}> (x, w) }}", w=weight)
    (node,) = view(floating).nodes
    image = images((1, 4, 9, 11))[0]
    found = rows(geometry(node), [image])
    groups = geometry(node).groups
    product = np.einsum("gpk,gok->gop", found, weight.reshape(groups, len(weight) // groups, -1).astype(np.float64))
    expected = run_onnx(floating, {"x": image})["y"]
    np.testing.assert_allclose(product.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    flat = rows(Geometry(), [np.arange(6.0).reshape(1, 2, 3)])
    assert flat.tolist() == [[[0, 1, 2], [3, 4, 5]]]


def rough(floating):
    """Encodings whose weights have a tenth of the levels of int8."""
    found = encodings(floating)
    coarse = {n: replace(w, scales=tuple(10 * s for s in w.scales)) for n, w in found.weights.items()}
    return Encodings(found.activations, coarse)


def walked(change, learn=10):
    """The network with ``change`` at every step: its engine's score before and after, and what was changed."""
    floating, seen, check = net(), smooth(14, seed=6), smooth(10, seed=77)
    scales = rough(floating)
    units = Engine(qdq.insert(floating, scales), target("kirin-970"))
    before = score(units, check, wanted(floating, check)).sqnr_db
    kept = [step.node.name for step in walk(units, floating, seen) if change(step, learn)]
    written = qdq.insert(writeback.written(floating, units, kept), scales)
    again = Engine(written, target("kirin-970"))
    for image in check[:2]:
        np.testing.assert_array_equal(again.run(image)["y"], units.run(image)["y"])
    return before, score(again, check, wanted(floating, check)).sqnr_db, kept


def test_compensated_rounding_improves_the_engine_and_is_written_back_exactly():
    before, after, kept = walked(compensate)
    assert len(kept) >= 3
    assert after > before + 3


def test_full_bias_correction_improves_the_engine_and_is_written_back_exactly():
    before, after, kept = walked(correct)
    assert len(kept) >= 2
    assert after > before + 1


def test_a_layer_that_would_not_gain_keeps_its_weights():
    floating, units = net(), engine(net())
    constants = {u.name: u.program.instructions[0].constants for u in units.units}
    for step in walk(units, floating, images(SHAPE, count=2)):
        alike = [dict(values) for values in step.reals]
        for values, result in zip(alike, step.results(), strict=True):
            values.update({name: units.real(wire, result) for wire, name in step.outputs()})
        step.reals = alike  # what the engine gives already is what is wanted
        assert not compensate(step, 1)
        assert not correct(step, 1)
    after = {u.name: u.program.instructions[0].constants for u in units.units}
    assert all(np.array_equal(after[n][k], constants[n][k]) for n in after for k in after[n])


def test_expected_shifts_are_the_mean_error_of_rounding():
    weight = np.random.default_rng(0).uniform(-1, 1, (3, 4, 1, 1)).astype(np.float32)
    text = "g (float[1,4,6,6] x) => (float[1,3,6,6] y) { y = Conv (x, w, b) }"
    floating = model(text, w=weight, b=np.zeros(3, np.float32))
    seen = images((1, 4, 6, 6), count=6, low=0.0, high=4.0)
    statistics = calibrate(floating, view(floating), seen)
    scales = quantized(floating, seen, dict.fromkeys(PER_CHANNEL, False))[1]
    rough = replace(scales.weights["w"], scales=(0.3,))
    scales = Encodings(scales.activations, {"w": rough})
    shifts = expected_shifts(view(floating), scales, statistics.channels)["Conv"]
    float_mean = np.mean([run_onnx(floating, {"x": i})["y"] for i in seen], axis=(0, 1, 3, 4))
    coarse_weights = model(text, w=(np.rint(weight / 0.3) * 0.3).astype(np.float32), b=np.zeros(3, np.float32))
    rounded_mean = np.mean([run_onnx(coarse_weights, {"x": i})["y"] for i in seen], axis=(0, 1, 3, 4))
    np.testing.assert_allclose(shifts, rounded_mean - float_mean, rtol=1e-3, atol=1e-4)
    moved = writeback.shifted(floating, {"Conv": shifts})
    np.testing.assert_allclose(view(moved).nodes[0].required(2).real, -shifts, rtol=1e-5)


def test_shared_weights_are_left_alone():
    text = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = Conv (x, w, b) \n y = Conv (a, w, b) }"
    floating = model(
        text, w=np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32), b=np.ones(2, np.float32)
    )
    lossy, _ = quantized(floating, images((1, 2, 4, 4)))
    steps = walk(Engine(lossy, target()), floating, images((1, 2, 4, 4)))
    assert [compensate(step, 2) or correct(step, 2) for step in steps] == [False, False]
    moved = writeback.shifted(floating, {"Conv": np.ones(2)})
    np.testing.assert_array_equal(view(moved).nodes[0].required(2).real, 1)


def test_what_a_few_rows_say_of_many_weights_is_not_believed():
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(8, 64))

    def data(rows):
        return generator.normal(size=(rows, 8)) @ mixing + 0.3 * generator.normal(size=(rows, 64))

    weights = generator.normal(size=(6, 64))
    steps = np.abs(weights).max(axis=1) / 20
    other = data(2000)

    def lost(rows):
        given = data(rows)
        q = round_rows(weights, steps, given, given @ weights.T)
        return float((((q * steps[:, None] - weights) @ other.T) ** 2).mean())

    nearest = float((((np.rint(weights / steps[:, None]) * steps[:, None] - weights) @ other.T) ** 2).mean())
    assert lost(16) < 1.15 * nearest
    assert lost(4000) < 0.5 * nearest
    assert pull(10**9, 8) == pytest.approx(DAMPING, rel=1e-3)
    assert pull(16, 1280) > 90
