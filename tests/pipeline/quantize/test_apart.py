"""Parts of an output that would share one scale: what stays in float for them, and what that saves."""

import time
from itertools import pairwise

import numpy as np
import pytest
from smallmodels import PER_CHANNEL, images, model, run_onnx, target

from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.apart import apart
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import Scheme

SHAPE = (1, 4, 4, 4)
GRID = np.linspace(0, 400, 32, dtype=np.float32).reshape(1, 2, 4, 4)
EIGHT, WEIGHT = np.float32(8), np.random.default_rng(0).normal(size=(6, 4, 1, 1)).astype(np.float32)
HEAD = """g (float[1,4,4,4] x) => (float[1,6,16] y) {
    h = Conv (x, w) \n l, r, c = Split <axis = 1, num_outputs = 3> (h) \n p = Sigmoid (c) """
DECODED = """a = Sub (grid, l) \n b = Add (grid, r) \n s = Add (a, b) \n d = Sub (b, a)
    o = Concat <axis = 1> (s, d) \n k = Mul (o, eight) \n j = Concat <axis = 1> (k, p)
    y = Reshape (j, shape) }"""


def head(tail):
    return model(HEAD + tail, w=WEIGHT, grid=GRID, eight=EIGHT, shape=np.array([1, 6, 16], np.int64))


def seen(floating):
    return calibrate(floating, view(floating), images(SHAPE, count=6)).histograms


def test_a_decoded_head_stays_in_float_up_to_its_distances():
    floating = head(DECODED)
    assert apart(view(floating), seen(floating)) == {"a", "b", "s", "d", "o", "k", "j", "y"}


def test_scores_beside_pixels_keep_their_levels_on_the_engine():
    floating = head(DECODED)
    encodings = quantize(view(floating), seen(floating), Scheme(PER_CHANNEL), Choosing("minmax"))
    assert set(encodings.activations) == {"x", "h", "l", "r", "c", "p"}
    engine = Engine(qdq.insert(floating, encodings), target("ethos-u55-256"))
    floats = [n.op for u in engine.units if u.program is None for n in u.nodes]
    assert sorted(floats) == ["Add", "Add", "Concat", "Concat", "Mul", "Reshape", "Sub", "Sub"]
    for image in images(SHAPE, count=2, seed=3):
        wanted, found = run_onnx(floating, {"x": image})["y"], engine.run(image)["y"]
        assert np.abs(found[:, 4:] - wanted[:, 4:]).max() < 0.02
        assert np.abs(found[:, :4] - wanted[:, :4]).max() < 1.0
        assert np.abs(wanted[:, :4]).max() > 3000


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (
            "k = Mul (grid, l) \n j = Concat <axis = 1> (k, p, l) \n z = Relu (j) \n y = Reshape (z, shape) }",
            "computes",
        ),
        ("j = Concat <axis = 1> (l, r, p) \n y = Reshape (j, shape) }", "are alike"),
    ],
)
def test_nothing_stays_in_float_where_something_behind_computes_or_parts_are_alike(tail, why):
    floating = head(tail)
    assert apart(view(floating), seen(floating)) == set(), why


def test_what_others_read_too_stays_in_integers():
    floating = head("k = Mul (grid, l) \n j = Concat <axis = 1> (k, p, r) \n y = Reshape (j, shape) }")
    assert apart(view(floating), seen(floating)) == {"k", "j", "y"}
    floating = model(
        HEAD.replace("(float[1,6,16] y)", "(float[1,6,16] y, float[1,2,4,4] n)")
        + "k = Mul (grid, l) \n n = Neg (k) \n j = Concat <axis = 1> (k, p, r) \n y = Reshape (j, shape) }",
        w=WEIGHT, grid=GRID, shape=np.array([1, 6, 16], np.int64),
    )  # fmt: skip
    assert apart(view(floating), seen(floating)) == {"j", "y"}


def test_a_chain_of_diamonds_takes_no_longer_than_its_length():
    names = ["k", *(f"k{i}" for i in range(18))]
    chain = "\n".join(f"{y} = Add ({x}, {x})" for x, y in pairwise(names))
    floating = head(f"k = Mul (grid, l) \n {chain} \n j = Concat <axis = 1> (k17, p, r) \n y = Reshape (j, shape) }}")
    graph, taken, start = view(floating), seen(floating), time.process_time()
    assert apart(graph, taken) == {*names, "j", "y"}
    assert time.process_time() - start < 1
