"""Recipes: typed, unknown keys rejected, saved and read back; and that every pass is kept only when it pays."""

import time

import numpy as np
import pytest
from enginenets import SHAPE, net, smooth
from pydantic import ValidationError
from smallmodels import images, run_onnx, target

from pipeline.errors import ConfigError
from pipeline.graph.view import view
from pipeline.quantize import scheme, trials
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.recipe import PRESETS, Calibrated, Recipe, dump, load
from pipeline.quantize.score import score
from pipeline.quantize.split import split

TARGET = target("kirin-970")


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(tmp_path, name):
    recipe = PRESETS[name].model_copy(
        update={"target": "kirin-970", "calibrated": Calibrated(images=3, digest="ab"), "metrics": {"sqnr_db": 1.5}}
    )
    assert load(written(tmp_path, dump(recipe)), "kirin-970") == recipe


BAD = {
    "equalise: [weights]": "equalise is not a setting",
    "range: [minmux]": r"range\[0\] should be 'minmax'",
    "range: []": "range .* at least 1 item",
    "percentiles: [40]": "percentiles should lie above 50 and up to 100",
    "schema: 2": "schema",
    "overrides: [{tensors: '[', range: mse}]": "should be a regular expression",
    "overrides: [{tensors: a, range: [2, 1]}]": "should have a range from a smaller to a larger number",
    "overrides: [{tensors: a}]": r"overrides\[0\].range is missing",
    "rounding: up\nbias_correction: maybe": r"rounding .*; bias_correction ",
    "target: rk3588": "is a recipe for rk3588, not for kirin-970",
    "- a": "must be a mapping of settings",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_with_a_recipe(tmp_path, text):
    with pytest.raises(ConfigError, match=BAD[text]) as error:
        load(written(tmp_path, text), "kirin-970")
    assert "recipe.yaml" in str(error.value)


def tried(recipe, floating=None, count=9, seen=None):
    floating = floating or net()
    seen = seen or images(SHAPE, count=count)
    count = len(seen)
    taken = calibrate(floating, view(floating), seen, recipe.needs_histograms)
    parts, notes = split(count, recipe, lambda: seen, lambda places: [seen[p] for p in places])
    return trials.run(floating, taken, parts, recipe, TARGET, scheme.of(TARGET)), notes


def test_each_trial_is_kept_only_if_it_is_the_best_so_far():
    best = PRESETS["best"].model_copy(
        update={
            "no_worse_than": None,
            "range": ("percentile", "mse"),
            "percentiles": (60.0,),
            "equalize": ("weights",),
            "weight_range": ("max",),
        }
    )
    found, notes = tried(best)
    assert not notes
    assert len({t.what for t in found.trials}) == len(found.trials) == 7
    level = -np.inf
    for trial in found.trials:
        assert trial.kept == (trial.sqnr_db > level)
        level = max(level, trial.sqnr_db)
    assert found.score.sqnr_db == level
    assert not all(t.kept for t in found.trials)
    again, _ = tried(best)
    assert [(t.what, t.sqnr_db) for t in again.trials] == [(t.what, t.sqnr_db) for t in found.trials]
    assert again.state.quantized().SerializeToString(deterministic=True) == (
        found.state.quantized().SerializeToString(deterministic=True)
    )


def test_where_the_greedy_order_goes_wrong_the_cheaper_end_is_gone_on_from():
    floating, seen = net("HardSwish (a)"), smooth(9, 2)
    alone = tried(PRESETS["best"].model_copy(update={"no_worse_than": None}), floating, seen=seen)[0]
    cheaper, found = (tried(PRESETS[name], floating, seen=seen)[0] for name in ("balanced", "best"))
    assert alone.score.sqnr_db < cheaper.score.sqnr_db <= found.score.sqnr_db
    path = [f"as balanced: {t.what}" if t.what.startswith("biases") else t.what for t in cheaper.trials if t.kept]
    kept = [t.what for t in found.trials if t.kept]
    assert kept[: len(path)] == path
    assert all(what.startswith("from the earlier end, ") for what in kept[len(path) :])
    assert found.score.sqnr_db == max(t.sqnr_db for t in found.trials)
    assert len({t.what for t in found.trials}) == len(found.trials)


@pytest.mark.parametrize("middle", ["Relu (a)", "HardSwish (a)"])
def test_the_first_that_balanced_tries_is_what_fast_does(middle):
    floating, seen = net(middle), smooth(9, 0)
    fast, _ = tried(PRESETS["fast"], floating, seen=seen)
    balanced, _ = tried(PRESETS["balanced"], floating, seen=seen)
    assert [t.what for t in balanced.trials[:2]] == ["range minmax, weights max", "as fast: biases corrected, fast"]
    wanted = [run_onnx(floating, {"x": image}) for image in seen[1::3]]
    corrected = score(Engine(fast.state.quantized(), TARGET), seen[1::3], wanted)
    assert corrected.sqnr_db == balanced.trials[1].sqnr_db <= balanced.score.sqnr_db
    assert balanced.trials[0].sqnr_db <= balanced.score.sqnr_db


def test_a_recipe_worse_than_what_it_may_be_no_worse_than_gives_that():
    narrow = Recipe(no_worse_than="fast", range=("percentile",), percentiles=(60.0,), bias_correction="fast")
    found, _ = tried(narrow)
    kept = [t.what for t in found.trials if t.kept]
    assert kept[0] == "range minmax, weights max"
    assert "range percentile 60, weights max" in {t.what for t in found.trials} - {*kept}
    assert found.score.sqnr_db == max(t.sqnr_db for t in found.trials)


def test_a_recipe_that_decides_nothing_is_not_judged():
    found, _ = tried(PRESETS["fast"])
    assert (found.trials, found.untried, found.score) == ((), (), None)
    plain, _ = tried(Recipe(range=("minmax",)))
    biases = [[n.required(2).real for n in view(each.state.model).nodes if n.op == "Gemm"] for each in (found, plain)]
    assert (biases[0][0] != biases[1][0]).any()
    assert found.state.real.SerializeToString() == plain.state.model.SerializeToString()


def test_overrides_reach_the_tensors_they_name():
    recipe = Recipe(range=("minmax",), overrides=[{"tensors": "[de]", "range": (-7.0, 7.0)}])
    found, _ = tried(recipe)
    encoded = found.state.encodings.activations
    assert {(encoded[t].low, encoded[t].high) for t in "de"} == {(-7.0, 7.0)}
    with pytest.raises(ConfigError, match="no activation is called nothing"):
        tried(Recipe(overrides=[{"tensors": "nothing", "range": "mse"}]))


def test_one_image_is_learnt_from_and_judged_with_and_that_is_said():
    found, notes = tried(PRESETS["balanced"], count=1)
    assert "the one calibration image is both" in notes[0]
    assert found.score.images == 1


def test_the_split_is_even_and_disjoint():
    recipe = Recipe(learning_images=4, judging_images=3)
    parts, notes = split(30, recipe, list, list)
    assert [len(places) for places in (parts.learning, parts.judging, parts.held_out)] == [4, 3, 3]
    assert len({*parts.learning, *parts.judging, *parts.held_out}) == 10
    assert min(map(max, (parts.learning, parts.judging, parts.held_out))) > 15
    assert notes == ()


def test_many_images_are_split_in_no_time():
    start = time.process_time()
    parts, _ = split(40_000, PRESETS["balanced"], list, list)
    assert time.process_time() - start < 0.5
    assert set(parts.learning).isdisjoint(parts.held_out)


def test_the_images_of_a_part_are_read_once_when_they_are_asked_for():
    read = []
    parts, _ = split(9, PRESETS["fast"], list, lambda places: read.append(places) or list(places))
    assert read == []
    assert parts.judging is parts.judging
    assert [list(places) for places in read] == [[1, 4, 7]]


def test_too_few_images_to_hold_any_out_is_said_where_something_is_decided():
    parts, notes = split(3, PRESETS["balanced"], list, list)
    assert parts.held_out == parts.judging == [1]
    assert "3 calibration images are too few to hold any out" in notes[0]
    assert split(3, PRESETS["fast"], list, list)[1] == ()
    assert split(4, PRESETS["balanced"], list, list)[0].held_out == [3]


@pytest.mark.parametrize("more", [{"range": ("mse",)}, {"overrides": ({"tensors": "a", "range": "mse"},)}])
def test_a_rescue_goes_with_extremes_alone(more):
    with pytest.raises(ValidationError, match="should have rescue only with range minmax"):
        Recipe.model_validate({"range": ("minmax",), "rescue": True, **more})
