"""The engine runs the bits that ship; the walk sees each layer alone and with all before it."""

import json

import numpy as np
import onnx
import pytest
from enginenets import SHAPE, engine, lossy, net, wanted
from smallmodels import images, model, program, quantized, run_onnx, target

from pipeline.graph.view import view
from pipeline.quantize import qdq
from pipeline.quantize.advising import Means, advice
from pipeline.quantize.constants import copied
from pipeline.quantize.encodings import ActivationEncoding, Encodings
from pipeline.quantize.engine import Engine
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.score import LIMIT_DB, Noise, score
from pipeline.quantize.sensitivity import as_rows, culprit, first_divergence, sensitivities, worst
from pipeline.quantize.walk import walk
from runtime.npu.device import Device


def test_unit_by_unit_gives_the_bytes_of_the_whole_program():
    quantized_net = lossy(net())
    whole, units = Device(program(quantized_net), fast=False), Engine(quantized_net, target())
    for image in images(SHAPE, count=3, seed=4):
        values = units.enter(image)
        for unit in units.units:
            units.run_unit(unit, values)
        (wire,) = whole.run({"x_quantized": values["x_quantized"]}).keys()
        np.testing.assert_array_equal(values[wire], whole.run({"x_quantized": values["x_quantized"]})[wire])
        np.testing.assert_array_equal(units.run(image)["y"], units.real(wire, values))


def test_a_limit_that_the_network_computes_is_a_single_number_to_the_host():
    floating = model("g (float[1,4] x) => (float[1,4] y) { t = ReduceMax <keepdims = 0> (x) \n y = Clip (x, , t) }")
    seen = images((1, 4), count=3)
    made, _ = quantized(floating, seen)
    rows = sensitivities(Engine(made, target()), floating, seen)
    assert {row.tensor for row in rows} == {"t", "y"}
    assert min(row.alone_db for row in rows) > 20


def test_what_has_no_integer_form_runs_in_onnx_runtime_and_says_why():
    floating = net("Erf (a)")
    units = engine(floating)
    fallbacks = {unit.name: unit.reasons for unit in units.units if unit.device == "cpu"}
    assert list(fallbacks) == ["Erf"]
    assert "has no kernel for Erf" in fallbacks["Erf"][0]
    seen = images(SHAPE, count=4, seed=3)
    assert score(units, seen, wanted(floating, seen)).sqnr_db > 25


def test_sensitivity_of_each_layer():
    floating, seen = net(), images(SHAPE, count=3, seed=5)
    rows = sensitivities(engine(floating), floating, seen)
    assert [r.tensor for r in rows] == ["b", "d", "e", "f", "p", "q", "y"]
    assert {r.dtype for r in rows} == {"int8"}
    assert rows[0].alone_db == rows[0].sqnr_db  # nothing is before it but the input, rounded
    assert all(20 < r.sqnr_db <= LIMIT_DB and r.cosine > 0.98 for r in rows)
    assert sum(r.alone_db for r in rows) > sum(r.sqnr_db for r in rows)
    assert worst(rows).sqnr_db == min(r.sqnr_db for r in rows)
    assert culprit(rows).alone_db == min(r.alone_db for r in rows)
    assert first_divergence(rows) is None
    assert [len(r.channels) for r in rows] == [3] * 7
    assert json.loads(json.dumps(as_rows(rows)))[0]["tensor"] == "b"
    y = next(r for r in rows if r.tensor == "y")
    found = [engine(floating).run(image)["y"] for image in seen]
    exact = [each["y"] for each in wanted(floating, seen)]
    noise = sum(float(((a - b) ** 2).sum()) for a, b in zip(exact, found, strict=True))
    assert y.sqnr_db == pytest.approx(10 * np.log10(sum(float((a**2).sum()) for a in exact) / noise))


def test_a_spoiled_layer_is_found_where_it_is():
    floating = net()
    spoiled = quantized(floating, images(SHAPE, count=8))[1]
    narrow = dict(spoiled.activations)
    narrow["e"] = ActivationEncoding(-0.1, 0.1, 0.2 / 255, 0)
    units = Engine(qdq.insert(floating, Encodings(narrow, spoiled.weights)), target())
    rows = sensitivities(units, floating, images(SHAPE, count=2))
    assert (culprit(rows).tensor, first_divergence(rows).tensor) == ("e", "e")
    why, fix = advice(culprit(rows), Means("conv-only", frozenset(), frozenset(), Recipe(), climbed=False))
    assert "beyond an end of its range" in why
    assert "a wider range for e" in fix


def test_a_clamp_that_does_its_work_saturates_nothing():
    """Half of what a Relu gives is 0, an end of its range, and no value is beyond it."""
    floating, seen = net(), images(SHAPE, count=3, seed=5)
    rows = sensitivities(engine(floating), floating, seen)
    exact = run_onnx(tapped_at(floating, "d"), {"x": seen[0]})["d"]
    assert np.mean(exact == 0) > 0.2
    assert next(r for r in rows if r.tensor == "d").saturated < 0.01


def tapped_at(floating, name):
    tapped = copied(floating)
    tapped.graph.output.append(onnx.ValueInfoProto(name=name))
    return tapped


def test_a_change_is_what_later_steps_see():
    floating, units = net(), engine(net())
    given = {}
    for step in walk(units, floating, images(SHAPE, count=1)):
        if step.node.name == "Conv":
            step.replace({"bias": np.full(12, 10**6, np.int32)})
        given[step.node.name] = step.feeds[0]
    assert (next(iter(given["Conv#2"].values())) == 127).all()


@pytest.mark.parametrize(("low", "expected"), [(0.0, LIMIT_DB), (-1.0, -LIMIT_DB)])
def test_layers_without_signal(low, expected):
    """A layer that is all zeros has no error when the integers say so too, and no signal when they do not."""
    noise = Noise()
    noise.add(np.zeros(4), np.full(4, low))
    assert noise.sqnr_db == expected


def test_a_layer_that_never_fires_is_told():
    floating = model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { m = Conv (x, w, b)"
                     " r = Relu (m) \n y = Conv (r, w) }",
                     w=np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1), b=np.float32([-9, -9]))  # fmt: skip
    lossy_net, _ = quantized(floating, images((1, 2, 4, 4)))
    rows = sensitivities(Engine(lossy_net, target()), floating, images((1, 2, 4, 4)))
    assert "never fires" in advice(rows[0], Means("x", frozenset(), frozenset(), Recipe(), climbed=False))[0]
    assert rows[0].sqnr_db == LIMIT_DB


def test_the_float_side_reads_constant_nodes():
    floating = model("g (float[1,2,4,4] x) => (float[1,2,4,4] y) {"
                     " w = Constant <value = float[2,2,1,1] {1, 2, 3, 4}> ()"
                     " a = Conv (x, w) \n y = Relu (a) }")  # fmt: skip
    lossy_net, _ = quantized(floating, images((1, 2, 4, 4)))
    image = images((1, 2, 4, 4))[0]
    (step,) = walk(Engine(lossy_net, target()), floating, [image])
    np.testing.assert_allclose(step.reals[0]["y"], run_onnx(floating, {"x": image})["y"], rtol=1e-6)
    assert len(view(floating).nodes) == 2
