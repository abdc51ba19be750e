"""The mixed-precision ladder: what departs where, what it gains, what it costs, and where it ends."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from smallmodels import run_onnx, target

from pipeline.checking.check import Demands
from pipeline.cost import hosts
from pipeline.graph.view import view
from pipeline.quantize import scheme as schemes
from pipeline.quantize import trials
from pipeline.quantize.budget import Budget
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.journal import Journal
from pipeline.quantize.recipe import PRESETS
from pipeline.quantize.score import score
from pipeline.quantize.split import split
from pipeline.quantize.trials import Search
from pipeline.quantize.variants import Variant, tail_of, unit_of, varied
from pipeline.quantizing import ladder, rungs
from pipeline.quantizing.ladder import Ground, climb
from pipeline.quantizing.pareto import Point, marked
from pipeline.quantizing.price import Price, pricer
from pipeline.workspace import Quiet

sys.path.append(str(Path(__file__).parents[1] / "quantize"))
from enginenets import net, smooth

SEEN = smooth(12, seed=1)


def skewed():
    """``net`` with a first layer whose channels differ by 200:1, which one scale per tensor loses."""
    made = net()
    weight = next(i for i in made.graph.initializer if i.name == "w1")
    values = np.frombuffer(weight.raw_data, np.float32).reshape(12, 27) * np.geomspace(1, 200, 12)[:, None]
    weight.raw_data = values.astype(np.float32).tobytes()
    return made


WIDE = target("stm32mp2").model_copy(update={"contract": "tflite-r1/tflite-r8"})
"""A target that computes with int16 too."""


def ground(floating, floor, aim=None, search=None, measure=lambda made: None):
    taken = calibrate(floating, view(floating), SEEN, True)
    recipe = PRESETS["fast"]
    parts, _ = split(len(SEEN), recipe, lambda: SEEN, lambda places: [SEEN[p] for p in places])
    aim = aim or target("stm32mp2")
    host = hosts.named(aim.host)
    price = pricer(aim, host, Demands(prices=False, objective="coverage"))
    scheme = schemes.of(aim)
    stand = Ground(
        floating, taken, parts, recipe, aim, scheme, search or Search(), price, measure,
        enough=lambda db, accuracy: db >= floor,
    )  # fmt: skip
    return stand, trials.run(floating, taken, parts, recipe, aim, scheme)


def test_layers_in_real_numbers_have_the_weights_that_were_never_rounded():
    stand, _ = ground(net(), 0)
    recipe = PRESETS["best"].model_copy(update={"equalize": (), "range": ("mse",), "weight_range": ("max",)})
    found = trials.run(net(), stand.calibration, stand.images, recipe, stand.target, stand.scheme)
    assert any(t.what == "weights rounded for the outputs" and t.kept for t in found.trials)
    everything = frozenset(n.name for n in view(net()).nodes)
    exact = varied(found.state, Variant(everything), stand.scheme).quantized()
    for image in SEEN[:2]:  # but for the input, which is what the sensor gives
        rounded = Engine(exact, stand.target).enter(image)
        real = Engine(exact, stand.target).real("x_quantized", rounded)
        assert np.allclose(run_onnx(exact, {"x": image})["y"], run_onnx(net(), {"x": real})["y"], atol=1e-5)


def scored(state, floating, aim=None):
    wanted = [run_onnx(floating, {"x": image}) for image in SEEN]
    return score(Engine(state.quantized(), aim or target("stm32mp2")), SEEN, wanted).sqnr_db


def test_a_layer_in_real_numbers_has_no_error_of_its_own():
    floating = skewed()
    _, found = ground(floating, 0)
    graph = view(floating)
    everything = frozenset(n.name for n in graph.nodes)
    engine = Engine(varied(found.state, Variant(everything), schemes.Scheme()).quantized(), target("stm32mp2"))
    assert {unit.device for unit in engine.units} == {"cpu"}
    first = unit_of(graph, "Conv")
    assert len(first) == 2  # with its clamp
    alone = varied(found.state, Variant(first), schemes.Scheme())
    engine = Engine(alone.quantized(), target("stm32mp2"))
    assert {unit.name: unit.device for unit in engine.units if unit.device == "cpu"} == {"Conv": "cpu"}
    assert "w1" not in alone.encodings.weights
    assert alone.encodings.activations.keys() == found.state.encodings.activations.keys()  # it goes on to the NPU
    assert scored(alone, floating) > scored(found.state, floating)
    onnx.checker.check_model(alone.quantized())
    for image in SEEN[:2]:  # what the engine computes is what ONNX Runtime makes of the file
        own, other = engine.run(image)["y"], run_onnx(alone.quantized(), {"x": image})["y"]
        assert np.abs(own - other).max() < 0.05 * np.abs(other).max()


def test_from_a_layer_to_the_end_nothing_is_quantized():
    floating = net()
    _, found = ground(floating, 0)
    graph = view(floating)
    last = varied(found.state, Variant(tail_of(graph, "Gemm")), schemes.Scheme())
    assert "y" not in last.encodings.activations
    names = tail_of(graph, "Conv#3")
    assert names >= {"Conv#3", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    assert not names & {"Conv", "Clip", "Conv#2", "Relu"}
    late = varied(found.state, Variant(names), schemes.Scheme())
    assert found.state.encodings.activations.keys() - late.encodings.activations.keys() == {"e", "f", "p", "q", "y"}
    assert scored(late, floating) > scored(last, floating) > scored(found.state, floating)


def test_a_scale_per_channel_where_the_scheme_has_one():
    floating = skewed()
    stand, found = ground(floating, 0)
    finer = varied(found.state, Variant(per_channel=frozenset({"Conv"})), stand.scheme)
    changed = {name for name, e in finer.encodings.weights.items() if e != found.state.encodings.weights[name]}
    assert changed == {"w1"}
    assert len(finer.encodings.weights["w1"].scales) == 12
    assert scored(finer, floating) > scored(found.state, floating) + 3


def test_int16_of_one_layer_and_of_all():
    floating = net()
    stand, found = ground(floating, 0, WIDE)
    before = scored(found.state, floating, WIDE)
    one = varied(found.state, Variant(wide=frozenset({"d"})), stand.scheme)
    assert {n for n, e in one.encodings.activations.items() if e.dtype == "int16"} == {"d"}
    assert one.encodings.weights["w1"] == found.state.encodings.weights["w1"]
    every = varied(found.state, Variant(wide=frozenset(found.state.encodings.activations)), stand.scheme)
    engine = Engine(every.quantized(), WIDE)
    assert {unit.device for unit in engine.units} == {"npu"}
    assert {spec.dtype for spec in engine.specs.values()} == {"int16"}
    assert scored(every, floating, WIDE) > before + 3
    pairs = zip(every.encodings.weights.values(), found.state.encodings.weights.values(), strict=True)
    assert all(a >= b for wide, narrow in pairs for a, b in zip(wide.scales, narrow.scales, strict=True))


def test_the_rung_of_int16_comes_before_the_host(monkeypatch):
    monkeypatch.setattr(ladder, "_recipes", lambda asked: [])
    stand, found = ground(net(), 190.0, target("ethos-u55-256"))
    climbed = climb(stand, found)
    assert list(dict.fromkeys(p.rung for p in climbed.points)) == ["as asked", "int16", "cpu"]
    whole = next(p for p in climbed.points if p.what == "every layer")
    assert whole.gain_db > 0
    assert set(whole.layers) == {"x", "b", "d", "e", "f", "p", "q", "y"}
    rows = ladder.sensitivities(Engine(found.state.quantized(), WIDE), net(), SEEN[:2])
    assert rungs.int16(stand.target, schemes.of(target("stm32mp2")), found.state, rows) == []


def only_int16(monkeypatch, floor, search=None):
    """A ladder of the rung of int16 alone, on a target that has it."""
    monkeypatch.setattr(ladder, "_recipes", lambda asked: [])
    monkeypatch.setattr(ladder, "RUNGS", {"int16": rungs.RUNGS["int16"]})
    return climb(*ground(net(), floor, target("ethos-u55-256"), search))


def test_weights_that_int8_shaped_are_rounded_anew_for_int16(monkeypatch):
    made = []  # nothing is made twice
    monkeypatch.setattr(ladder, "varied", lambda *given: made.append((id(given[0]), given[1])) or varied(*given))
    missed = only_int16(monkeypatch, 190.0)
    assert len(set(made)) == len(made) > 1
    plain = max(p.sqnr_db for p in missed.points[:-1])
    anew = missed.points[-1]
    assert (anew.what, anew.kept, missed.reached) == ("every layer, weights rounded anew", True, False)
    assert anew.sqnr_db > plain + 3
    assert abs(anew.added.ms) < 0.001
    floor = (plain + anew.sqnr_db) / 2
    reached = only_int16(monkeypatch, floor)
    assert reached.reached
    again = [p for p in reached.points if p.what.endswith("rounded anew")]
    kept = [p for p in again if p.kept]
    assert len(again) > 1  # faster ones are tried too
    assert len(kept) == 1
    assert kept[0].price.ms == min(p.price.ms for p in again if p.sqnr_db >= floor)
    graph = view(reached.state.quantized())
    assert all(t.quantization.dtype == "int16" for n in graph.nodes for t in n.outputs if t.name in kept[0].layers)


def test_a_faster_one_that_reaches_the_floor_takes_the_place_of_the_slower(monkeypatch):
    """With a floor that all reach once they are rounded anew, though none does before."""
    climbed = only_int16(monkeypatch, 190.0)
    front = [p for p in marked(climbed.points[1:-1]) if p.front and p.what != "every layer"]
    stand, found = ground(net(), 190.0, target("ethos-u55-256"))
    stand = replace(stand, enough=lambda db, accuracy: bool(accuracy), measure=lambda made: float(anew))
    walked, anew = trials.walked, False

    def rounded(*given):
        nonlocal anew
        anew = True
        return walked(*given)

    monkeypatch.setattr(trials, "walked", rounded)
    taken = climb(stand, found)
    kept = [p for p in taken.points if p.kept and p.rung == "int16"]
    assert taken.reached
    assert [p.what for p in kept] == [f"{min(front, key=lambda p: p.price.ms).what}, weights rounded anew"]


def test_rounding_anew_is_left_out_when_the_time_is_up(monkeypatch):
    class Over(Budget):
        spent = False

    budget, layers = Over(1.0), ladder._layers

    def slow(*given):
        tried = layers(*given)
        Over.spent = True
        return tried

    monkeypatch.setattr(ladder, "_layers", slow)
    climbed = only_int16(monkeypatch, 190.0, Search(budget=budget))
    assert climbed.untried == ("int16: every layer, weights rounded anew",)


def test_a_floor_that_int8_reaches_needs_no_rung():
    stand, found = ground(net(), 0.0)
    climbed = climb(stand, found)
    assert [(p.rung, p.kept, p.front) for p in climbed.points] == [("as asked", True, True)]
    assert (climbed.reached, climbed.state) == (True, found.state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A ladder whose floor cannot be reached, of the skewed network, and its journal."""
    path = tmp_path_factory.mktemp("ladder") / "t.jsonl"
    stand, found = ground(skewed(), 190.0, search=Search(Journal(path, "key")))
    return stand, climb(stand, found), path


def test_the_rungs_come_in_order_and_only_what_gains_is_kept(whole):
    _, climbed, _ = whole
    rungs = [p.rung for p in climbed.points]
    assert list(dict.fromkeys(rungs)) == ["as asked", "better range", "recovery", "per channel", "cpu"]
    assert not climbed.reached
    kept = [p for p in climbed.points if p.kept]
    assert [p.sqnr_db for p in kept] == sorted(p.sqnr_db for p in kept)
    assert kept[-1].sqnr_db == max(p.sqnr_db for p in kept) > climbed.points[0].sqnr_db + 20
    free = [p for p in climbed.points if p.rung in ("as asked", "better range", "recovery")]
    assert {p.added.ms for p in free} == {0.0}
    assert {p.added.crossings for p in free} == {0}
    host = next(p for p in climbed.points if p.layers == ("Clip", "Conv"))
    assert host.price.crossings > climbed.points[0].price.crossings - 1
    assert host.price.ms > climbed.points[0].price.ms


def test_the_state_is_what_was_kept_and_its_file_says_so(whole):
    stand, climbed, _ = whole
    wanted = [run_onnx(stand.model, {"x": image}) for image in stand.images.judging]
    again = score(Engine(climbed.state.quantized(), stand.target), stand.images.judging, wanted)
    assert again.sqnr_db == [p for p in climbed.points if p.kept][-1].sqnr_db


def test_what_is_added_up_comes_in_the_order_of_its_worth(whole):
    _, climbed, _ = whole
    alone = [p for p in climbed.points if p.rung == "cpu" and " + " not in p.what and p.gain_db > 0]
    best = max(alone, key=lambda p: p.worth)
    assert best.kept
    assert best.gain_per_ms is None or all(
        p.added.ms <= 0 or p.gain_db / p.added.ms <= best.gain_per_ms for p in alone if p.added.ms is not None
    )


def test_accuracy_is_measured_of_what_is_kept_and_may_end_the_climb():
    levels = iter([0.5, 0.9])
    stand, found = ground(skewed(), 0.0, measure=lambda made: next(levels))
    stand = replace(stand, enough=lambda db, accuracy: accuracy > 0.8)
    climbed = climb(stand, found)
    assert [p.accuracy for p in climbed.points if p.kept] == [0.5, 0.9]
    assert climbed.reached
    assert {p.rung for p in climbed.points} <= {"as asked", "better range", "recovery"}


def test_a_floor_that_is_missed_leaves_the_best_accuracy_not_the_most_decibels(monkeypatch):
    monkeypatch.setattr(ladder, "RUNGS", {})
    levels = iter([0.5, 0.4])
    stand, found = ground(skewed(), 190.0, measure=lambda made: next(levels))
    climbed = climb(stand, found)
    assert next(levels, None) is None
    assert [(p.rung, p.accuracy) for p in climbed.points if p.kept] == [("as asked", 0.5)]
    assert (climbed.reached, climbed.state) == (False, found.state)
    lower = next(p for p in climbed.points if p.accuracy == 0.4)
    assert lower.sqnr_db > climbed.points[0].sqnr_db


class Recorder(Quiet):
    """Keeps the names of the trials that it is told."""

    def __init__(self):
        self.names = []

    def trial(self, what, numbers):
        self.names.append(what)


def test_every_trial_is_recorded_once(monkeypatch):
    monkeypatch.setattr(ladder, "RUNGS", {})
    recorder = Recorder()
    stand, found = ground(skewed(), 190.0, search=Search(progress=recorder))
    climbed = climb(stand, found)
    assert [p.rung for p in climbed.points] == ["as asked", "better range", "recovery"]
    assert {f"{p.rung}: {p.what}" for p in climbed.points} <= set(recorder.names)
    assert len(set(recorder.names)) == len(recorder.names)


def test_a_ladder_that_its_budget_stopped_says_what_is_untried():
    stand, found = ground(skewed(), 190.0, search=Search(budget=Budget(0.0)))
    stopped = climb(stand, found)
    assert [p.rung for p in stopped.points] == ["as asked"]
    assert stopped.untried == ("better range", "recovery", "per channel", "cpu")


@pytest.mark.parametrize(("name", "budget", "rungs"), [("stm32mp2", 0.0, 3), ("ethos-u55-256", None, 2)])
def test_layers_are_not_looked_at_without_time_or_an_offer(monkeypatch, name, budget, rungs):
    monkeypatch.setattr(ladder, "_recipes", lambda asked: [])
    monkeypatch.setattr(ladder, "RUNGS", dict(list(ladder.RUNGS.items())[:rungs]))
    monkeypatch.setattr(ladder, "sensitivities", lambda *given: pytest.fail("is not needed"))
    aim = target(name)
    if budget is None:
        aim = aim.model_copy(update={"contract": target("stm32mp2").contract})  # int8 only
    stand, found = ground(net(), 190.0, aim, Search(budget=Budget(budget)))
    climbed = climb(stand, found)
    assert [p.rung for p in climbed.points] == ["as asked"]
    assert bool(climbed.untried) == (budget is not None)


def test_a_ladder_goes_on_with_what_it_measured(monkeypatch, whole):
    _, first, path = whole
    stand, found = ground(skewed(), 190.0, search=Search(Journal(path, "key")))
    monkeypatch.setattr(trials, "score", lambda *given: pytest.fail("is known"))
    again = climb(stand, found)
    assert [(p.what, p.sqnr_db, p.kept) for p in again.points] == [(p.what, p.sqnr_db, p.kept) for p in first.points]
    assert again.state.quantized() == first.state.quantized()


def point(db, ms, crossings=0, gain=0.0, added=None):
    return Point("r", f"{db} {ms}", (), db, None, Price(ms, None, 2), gain, Price(added, None, crossings), 0.0)


def test_the_front_is_what_nothing_beats():
    generator = np.random.default_rng(0)
    points = [point(float(db), float(ms)) for db, ms in generator.integers(0, 12, (60, 2))] + [point(99.0, None)]
    for p in marked(points):
        beaten = any(
            o.sqnr_db >= p.sqnr_db and o.price.ms <= p.price.ms and (o.sqnr_db, o.price.ms) != (p.sqnr_db, p.price.ms)
            for o in points[:-1]
            if p.price.ms is not None
        )
        assert p.front == (not beaten)


def test_worth_is_decibels_per_millisecond_then_crossings():
    free, cheap, dear = (point(1, 1, gain=g, added=a) for g, a in ((0.1, 0.0), (3.0, 0.5), (9.0, 4.0)))
    assert max((free, cheap, dear), key=lambda p: p.worth) is free
    assert max((cheap, dear), key=lambda p: p.worth) is cheap
    assert dear.gain_per_ms == 9 / 4
    unknown, fewer = point(1, None, crossings=2, gain=3.0), point(1, None, crossings=1, gain=1.0)
    assert max((unknown, fewer), key=lambda p: p.worth) is fewer
    assert unknown.gain_per_ms is None


def test_a_recipe_that_names_everything_leaves_only_layers():
    assert [rung for rung, _ in ladder._recipes(PRESETS["fast"])] == ["better range", "recovery"]
    assert ladder._recipes(PRESETS["best"]) == []
