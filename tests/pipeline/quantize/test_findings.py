"""What is said of a model before hours of work: dead channels, joined ranges, flat Sigmoids, biases, shifts."""

import numpy as np
import pytest
from smallmodels import PER_CHANNEL, images, model, quantized

from pipeline.graph.view import view
from pipeline.quantize import findings
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding
from pipeline.quantize.ptq import FLAT_BEYOND, Choosing, quantize
from pipeline.quantize.scheme import Scheme
from runtime.npu.contracts import find_contract
from runtime.npu.requantize import SHIFT_MAX

SHAPE = (1, 2, 4, 4)


def eye(*gains):
    return np.diag(np.float32(gains)).reshape(len(gains), len(gains), 1, 1)


def seen(floating):
    return calibrate(floating, view(floating), images(SHAPE))


def said(floating):
    return findings.of_statistics(view(floating), seen(floating))


def test_channels_without_weights():
    floating = model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, w) }", w=eye(1, 1e-9))
    assert findings.of_weights(view(floating)) == (
        "Conv has 1 of 2 output channels without weights: 1; they cost time and tell nothing: prune them",
    )
    floating = model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, w) }", w=eye(1, 0.5))
    assert findings.of_weights(view(floating)) == ()


def test_boxes_and_scores_in_one_concat():
    text = """g (float[1,2,4,4] x) => (float[1,4,4,4] y) {
        boxes = Conv (x, w) \n score = Sigmoid (x) \n y = Concat <axis = 1> (boxes, score) }"""
    (told,) = said(model(text, w=eye(600, 600)))
    assert told.startswith("Concat (Concat) joins boxes and score, which is ")
    assert "each keeps its own scale" in told
    assert said(model(text, w=eye(2, 2))) == ()
    read_on = text.replace("y = Concat", "z = Concat").replace("score) }", "score) y = Relu (z) }")
    (told,) = said(model(read_on, w=eye(600, 600)))
    assert told.startswith("Concat (Concat) gives boxes and score one scale, though the first is ")
    assert "outputs of their own" in told


def test_an_activation_too_small_for_any_multiplier():
    text = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { m = Mul (x, mask) \n y = Conv (m, w) }"
    mask = np.float32([1, 0]).reshape(1, 2, 1, 1)
    floating = model(text, w=eye(1, 1e12), mask=mask)
    (told,) = [each for each in said(floating) if each.startswith("y spans ")]
    assert "less than a multiplier reaches from its inputs: it keeps 17 levels of 256;" in told
    encoded = quantize(view(floating), seen(floating).histograms, Scheme({"Conv": False}), Choosing("minmax"))
    found, (weight,) = encoded.activations, encoded.weights["w"].scales
    assert np.frexp(found["m"].scale * weight / found["y"].scale)[1] <= SHIFT_MAX
    assert not [each for each in said(model(text, w=eye(1, 1), mask=mask)) if "spans" in each]


@pytest.mark.parametrize("op", FLAT_BEYOND)
def test_a_saturating_input_is_cut_where_nobody_else_reads_it(op):
    body = f"a = Conv (x, w) \n y = {op} (a)"
    floating = model(f"g (float[1,2,4,4] x) => (float[1,2,4,4] y) {{ {body} }}", w=eye(90, 90))
    limit = FLAT_BEYOND[op]
    (told,) = said(floating)
    assert told.endswith(f"tells nothing apart beyond {limit:g}: its range was cut to {limit:g}")
    encoded = quantize(view(floating), seen(floating).histograms, Scheme(PER_CHANNEL), Choosing("minmax")).activations
    assert (encoded["a"].low, encoded["a"].high) == (-limit, limit)
    ends = {"Sigmoid": 1 / (1 + np.exp(-limit)), "Tanh": np.tanh(limit)}
    assert 1 - ends[op] < {"Sigmoid": 1 / 512, "Tanh": 1 / 256}[op]
    other = model(
        f"g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) {{ {body} \n z = Neg (a) }}", w=eye(90, 90)
    )
    assert said(other)[0].endswith("others read it too, so its range stays")
    encoded = quantize(view(other), seen(other).histograms, Scheme(PER_CHANNEL), Choosing("minmax")).activations
    assert encoded["a"].high > 50


def test_what_never_fires_and_lone_channels():
    text = "g (float[1,2,4,4] x) => (float[1,12,4,4] y) { a = Conv (x, w, b) \n y = Relu (a) }"
    weight = np.zeros((12, 2, 1, 1), np.float32)
    assert "y never fires: all its values were 0" in said(model(text, w=weight, b=np.full(12, -1, np.float32)))[0]
    bias = np.ones(12, np.float32)
    bias[[3, 7]] = 50, 100
    told = said(model(text, w=weight, b=bias))
    assert told[0] == "a has 2 of 12 channels beyond 8 times the median: 3, 7; the largest is 100 times it"


def test_a_bias_that_leaves_its_weights_few_levels():
    floating = model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, w, b) }", w=eye(1, 1e-6),
                     b=np.float32([1, 1000]))  # fmt: skip
    encodings = quantize(view(floating), seen(floating).histograms, Scheme(PER_CHANNEL), Choosing("minmax"))
    (told,) = findings.of_encodings(view(floating), encodings)
    assert told.startswith("Conv has 1 channels whose bias is so large beside their weights")
    assert ": 1; shrink it where it comes from" in told
    whole = large_bias()
    encodings = quantize(view(whole), seen(whole).histograms, Scheme({"Conv": False}), Choosing("minmax"))
    (told,) = findings.of_encodings(view(whole), encodings)
    assert told.startswith("Conv has a bias so large beside its weights that the weights keep fewer than 16 levels;")


def large_bias():
    return model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, w, b) }", w=eye(1, 1),
                 b=np.float32([1, 1e9]))  # fmt: skip


def test_a_factor_that_no_shift_can_express():
    floating = model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y = Conv (x, w) }", w=eye(1, 1))
    tiny = ActivationEncoding(-1e-9, 1e-9, 1e-11, 0)
    encodings = Encodings({"x": ActivationEncoding(-1, 1, 1.0, 0), "y": tiny}, {"w": WeightEncoding((1.0,), None)})
    (told,) = findings.of_encodings(view(floating), encodings)
    assert told.startswith("Conv would be rescaled by 1e+11 to 1e+11")
    assert "give y a range of its inputs' size: overrides in the recipe" in told


def test_what_has_no_integers_runs_on_the_host():
    taps = 70_000
    floating = model("g (float[1,70000] x) => (float[1,1] y) { a = MatMul (x, w) \n y = Erf (a) }",
                     w=np.ones((taps, 1), np.float32))  # fmt: skip
    seen_net = quantized(floating, images((1, taps), low=0.0))[0]
    product, function = findings.of_integers(view(seen_net), find_contract("tflite-r1"))
    assert product.startswith(
        "MatMul (MatMul) will run on the host: the simulated NPU's MatMul has an int32 accumulator"
    )
    assert "; sum fewer products" in product
    assert function.startswith("Erf (Erf) will run on the host: the simulated NPU has no kernel for Erf")
