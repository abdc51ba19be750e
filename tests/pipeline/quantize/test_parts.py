"""Parts of an output are found where ONNX Runtime puts them, and each decides."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from smallmodels import PER_CHANNEL, images, model, run_onnx, target
from test_apart import DECODED, SHAPE, head, seen

from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.engine import Engine
from pipeline.quantize.parts import parts
from pipeline.quantize.ptq import Choosing, quantize
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.score import Noise, score

JOINS = {
    "a Concat": "y = Concat <axis = 2> (p, q)",
    "moved": "j = Concat <axis = -2> (p, q) \n t = Transpose <perm = [0,2,1]> (j) \n y = Reshape (t, shape)",
    "turned round": "j = Concat <axis = 1> (q, p) \n y = Transpose (j)",
    "nested": "j = Concat <axis = 1> (p, r) \n s = Concat <axis = 1> (r, q) \n y = Concat <axis = 2> (j, s)",
    "with a constant": "j = Concat <axis = 1> (p, c, q) \n k = Squeeze (j) \n y = Unsqueeze (k, zero)",
    "twice the same": "y = Concat <axis = 1> (p, q, p)",
}


def joined(tail, outputs="float[N,H,W] y"):
    floating = model(
        f"g (float[1,4,6] p, float[1,4,6] q, float[1,4,6] r) => ({outputs}) {{ {tail} }}",
        shape=np.array([2, 6, -1], np.int64), c=np.zeros((1, 4, 6), np.float32), zero=np.array([0], np.int64),
    )  # fmt: skip
    for output in floating.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(floating, strict_mode=True, data_prop=True)


@pytest.mark.parametrize("case", JOINS)
def test_parts_stand_where_onnxruntime_puts_them(case):
    floating = joined(JOINS[case])
    found = parts(view(floating))["y"]
    read = [name for name in "pqr" if any(name in node.input for node in floating.graph.node)]
    assert set(found) == set(read)
    for name in read:
        feeds = {each: np.full((1, 4, 6), each == name, np.float32) for each in "pqr"}
        np.testing.assert_array_equal(found[name], run_onnx(floating, feeds)["y"] == 1)


@pytest.mark.parametrize("tail", ["y = Identity (p)", "j = Concat <axis = 1> (p, q) \n y = Relu (j)"])
def test_an_output_that_joins_nothing_is_whole(tail):
    assert parts(view(joined(tail))) == {}


def test_an_output_of_open_shape_is_whole():
    floating = joined(JOINS["a Concat"])
    floating.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert parts(view(floating)) == {}


def noisy(narrow):
    """The head whose scores' logits are kept to ``narrow`` times what they take, and its score."""
    floating = head(DECODED)
    taken = seen(floating)
    found = quantize(view(floating), taken, Scheme(PER_CHANNEL), Choosing("minmax"))
    logits = found.activations["c"]
    kept = {**found.activations, "c": replace(logits, scale=logits.scale * narrow)}
    engine = Engine(qdq.insert(floating, replace(found, activations=kept)), target("ethos-u55-256"))
    shown = images(SHAPE, count=4, seed=3)
    return engine, shown, [run_onnx(floating, {"x": image}) for image in shown]


def test_scores_beside_pixels_are_judged_by_their_own_signal():
    engine, shown, wanted = noisy(1.0)
    fine = score(engine, shown, wanted)
    assert set(fine.parts["y"]) == {"k", "p"}
    levels = {}
    for name, rows in (("k", slice(0, 4)), ("p", slice(4, 6))):
        noise = Noise()
        for image, real in zip(shown, wanted, strict=True):
            noise.add(real["y"][:, rows], engine.run(image)["y"][:, rows])
        levels[name] = noise.sqnr_db
    assert fine.parts["y"] == pytest.approx(levels)
    assert fine.sqnr_db == pytest.approx(np.mean(list(levels.values())))
    assert fine.metrics == {
        "sqnr_db": fine.sqnr_db, "sqnr_db.y": fine.outputs["y"], "sqnr_db.y.k": levels["k"], "sqnr_db.y.p": levels["p"],
    }  # fmt: skip
    coarse = score(*noisy(16.0))
    assert abs(coarse.outputs["y"] - fine.outputs["y"]) < 0.5  # the boxes drown it
    assert fine.sqnr_db - coarse.sqnr_db > 5
