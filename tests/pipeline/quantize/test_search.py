"""A search has a budget, can be stopped at any trial, and goes on where it was."""

import json
from dataclasses import replace

import numpy as np
import pytest
from enginenets import SHAPE, net
from smallmodels import images, run_onnx, target
from test_equalization import SHAPE as OF_SKEWED
from test_equalization import skewed

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize import correction, equalization, scheme, trials
from pipeline.quantize.budget import Budget
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.engine import Engine
from pipeline.quantize.journal import Journal, key_of
from pipeline.quantize.recipe import PRESETS, Override, Recipe
from pipeline.quantize.score import Score, score
from pipeline.quantize.split import split
from pipeline.quantize.trials import Search
from pipeline.quantizing.ladder import kept
from pipeline.workspace import Quiet

TARGET = target("kirin-970")
RECIPE = Recipe(range=("percentile", "minmax"), percentiles=(70.0,), equalize=("weights",), bias_correction="fast")


def searched(search, recipe=RECIPE):
    floating, seen = net(), images(SHAPE, count=6)
    taken = calibrate(floating, view(floating), seen)
    parts, _ = split(6, recipe, lambda: seen, lambda places: [seen[p] for p in places])
    return trials.run(floating, taken, parts, recipe, TARGET, scheme.of(TARGET), search)


def outcome(found):
    levels = [(t.what, t.sqnr_db, t.kept) for t in found.trials]
    return levels, found.score, found.state.quantized().SerializeToString(deterministic=True)


class Told(Quiet):
    """Remembers what it is told; Ctrl-C comes after ``stop`` trials."""

    def __init__(self, stop=0):
        self.stop, self.trials, self.said, self.counts = stop, [], [], {}

    def start(self, total, what):
        self.what = what
        self.counts[what] = [0, total]

    def advance(self, n=1):
        self.counts[self.what][0] += n

    def message(self, text):
        self.said.append(text)

    def trial(self, what, numbers):
        self.trials.append((what, numbers))
        if len(self.trials) == self.stop:
            raise KeyboardInterrupt


def test_a_stopped_search_goes_on_where_it_was(tmp_path, scored):
    whole = searched(Search())
    assert len(whole.trials) == len(scored) == 5
    for stopped in (1, 2, 4):
        path = tmp_path / f"{stopped}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            searched(Search(Journal(path, "key"), progress=Told(stopped)))
        scored.clear()
        journal = Journal(path, "key")
        assert len(journal) == stopped
        again = searched(Search(journal))
        assert outcome(again) == outcome(whole)
        assert [t.known for t in again.trials] == [True] * stopped + [False] * (5 - stopped)
        assert len(scored) == 5 - stopped
        journal.finish()
        assert not path.exists()


TWICE = RECIPE.model_copy(update={"no_worse_than": "balanced", "range": ("percentile", "mse")})


def test_a_search_that_goes_through_another_recipe_first_can_be_stopped_on_both_ways(tmp_path, scored):
    whole = searched(Search(), TWICE)
    names = [t.what for t in whole.trials]
    assert names.index("as fast: biases corrected, fast") == 1
    assert names.index("as balanced: biases corrected, fast") == 6
    assert names.count("range mse, weights max") == 1
    assert len(set(names)) == len(scored) == 11
    for stopped in (2, 9):
        path = tmp_path / f"{stopped}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            searched(Search(Journal(path, "key"), progress=Told(stopped)), TWICE)
        scored.clear()
        assert outcome(searched(Search(Journal(path, "key")), TWICE)) == outcome(whole)
        assert len(scored) == 11 - stopped
    found = searched(Search(budget=Budget(0.0)), TWICE)
    assert (len(found.trials), len(found.untried)) == (1, 10)
    assert found.untried[-1] == "biases corrected, fast"
    assert set(found.untried) <= set(names)


def test_a_budget_too_small_for_one_trial_makes_one_and_says_so(scored):
    search = Search(budget=Budget(0.0))
    found = searched(search)
    assert len(found.trials) == len(scored) == 1
    assert found.trials[0].kept
    assert found.untried[0] == "range minmax, weights max"
    assert len(found.untried) == 4
    small, left = search.left_out(found.trials, found.untried, "again")
    assert small.startswith("the budget of 0 s is too small for one trial: the first took ")
    assert left == "the budget of 0 s left out 4 trials, range minmax, weights max first; again"


def test_a_search_tells_what_it_does_and_what_is_left():
    told = Told()
    search = Search(budget=Budget(1000.0), progress=told)
    found = searched(search)
    assert search.left_out(found.trials, found.untried, "") == ()
    assert [what for what, _ in told.trials] == [t.what for t in found.trials]
    assert [numbers["sqnr_db"] for _, numbers in told.trials] == [t.sqnr_db for t in found.trials]
    assert set(told.trials[0][1]) == {"sqnr_db", "sqnr_db.y", "seconds", "kept"}
    assert all(
        f"{t} (" in said and "s of 1000 s left)" in said for t, said in zip(found.trials, told.said, strict=True)
    )
    assert all(done == total > 0 for done, total in told.counts.values())
    assert {"calibrating the equalized model", *(f"judging {t.what}" for t in found.trials)} == told.counts.keys()


def test_every_pass_aims_at_the_float_model_and_what_was_judged_is_what_is_written(monkeypatch):
    floating, seen = net(), images(SHAPE, count=12)
    aimed, correct = [], correction.correct

    def watched(step, learn):
        if step.outputs()[0][1] == "y":
            aimed.extend(values["y"] for values in step.reals)
        return correct(step, learn)

    monkeypatch.setattr(correction, "correct", watched)
    recipe = Recipe(range=("minmax",), rounding="compensated", bias_correction="full")
    parts, _ = split(12, recipe, lambda: seen, lambda places: [seen[p] for p in places])
    found = trials.run(floating, calibrate(floating, view(floating), seen), parts, recipe, TARGET, scheme.of(TARGET))
    assert [t.what for t in found.trials if t.kept][1:3] == [
        "biases corrected, fast",
        "weights rounded for the outputs",
    ]
    learnt = [run_onnx(floating, {"x": image})["y"] for image in (*parts.learning, *parts.judging)]
    np.testing.assert_allclose(aimed, learnt, atol=1e-5)
    written = Engine(found.state.quantized(), TARGET)
    wanted = [run_onnx(floating, {"x": image}) for image in parts.judging]
    assert trials.score(written, parts.judging, wanted) == found.score


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "t.jsonl"
    journal = Journal(path, "key")
    searched(Search(journal))
    whole = path.read_text()
    path.write_text(whole[:-20])
    for known in (4, 5):  # what is measured again stands on a line of its own
        journal = Journal(path, "key")
        assert len(journal) == known
        searched(Search(journal))
        assert path.read_text() == whole


def test_a_journal_of_another_search_is_started_anew(tmp_path):
    path = tmp_path / "t.jsonl"
    searched(Search(Journal(path, "key")))
    assert len(Journal(path, "other")) == 0
    assert json.loads(path.read_text()) == {"search": "other"}


def test_what_a_search_is_of():
    one = key_of(net(), "digest", RECIPE, TARGET)
    assert one == key_of(net(), "digest", RECIPE, TARGET)
    others = [
        key_of(net("Relu (a)"), "digest", RECIPE, TARGET),
        key_of(net(), "another", RECIPE, TARGET),
        key_of(net(), "digest", Recipe(), TARGET),
        key_of(net(), "digest", RECIPE, target()),
    ]
    assert len({one, *others}) == 5


def test_journals_that_cannot_be_used(tmp_path):
    with pytest.raises(ModelError, match="cannot be written"):
        Journal(tmp_path / "no" / "t.jsonl", "key")
    path = tmp_path / "t.jsonl"
    good = {"what": "range", "outputs": {"y": 3.0}, "cosines": {}, "agreement": None, "images": 1, "parts": {}}
    damaged = (
        json.dumps(good | {"outputs": 3}),
        json.dumps(good | {"images": "many"}),
        "{}",
        "[1]",
        "\0\0",
        "[" * 99999,
    )
    for line in damaged:
        path.write_text('{"search": "key"}\n' + json.dumps(good) + f"\n{line}\n" + json.dumps(good) + "\n")
        with pytest.raises(ModelError, match=r"t\.jsonl: is no whole journal of a search \(remove it"):
            Journal(path, "key")
    path.write_text('{"search": "key"}\n' + json.dumps(good) + '\n{"what": "cut')
    assert len(Journal(path, "key")) == 1


LEVELS = {
    "range minmax, weights max": 10.0,
    "range percentile 99.99, weights max": 20.0,
    "range percentile 99.999, weights max": 25.0,
    "range mse, weights max": 30.0,
    "weights rounded for the outputs": 31.0,
}


def test_what_the_end_stands_on_is_told_in_its_own_order_though_measured_before(monkeypatch):
    def judged(what, *rest):
        return Score({"y": LEVELS.get(what, 0.0)}, {"y": 1.0}, None, 1)

    monkeypatch.setattr(trials, "judged", judged)
    ranges = ("minmax", "percentile", "mse")
    recipe = Recipe(no_worse_than="balanced", range=ranges, percentiles=(99.999,), rounding="compensated")
    found = searched(Search(), recipe)
    assert found.state.choosing.choice == "mse"
    told = [what for what in LEVELS if "99.99," not in what]
    order = [t.what for t in found.trials]
    assert order.index(told[2]) < order.index(told[1])
    assert list(kept(found.path, None)) == told
    assert {t.what for t in found.trials if t.kept} == {*told}


def test_the_cheapest_preset_is_among_what_others_try_where_evened_channels_do_not_pay_before_correction(monkeypatch):
    floating, seen = skewed("Clip (a, zero, six)", "Clip (c, zero, six)"), images(OF_SKEWED, count=6)
    exact = trials.judged

    def judged(what, *rest):  # as if evening alone made it worse
        found = exact(what, *rest)
        return replace(found, outputs={"y": -99.0}) if what.startswith("channels") and "biases" not in what else found

    monkeypatch.setattr(trials, "judged", judged)
    parts, _ = split(6, PRESETS["balanced"], lambda: seen, lambda places: [seen[p] for p in places])
    fast, balanced = (
        trials.run(floating, calibrate(floating, view(floating), seen), parts, PRESETS[name], TARGET, scheme.of(TARGET))
        for name in ("fast", "balanced")
    )
    (same,) = (t for t in balanced.trials if t.what.startswith("channels") and "biases" in t.what)
    wanted = [run_onnx(floating, {"x": image}) for image in parts.judging]
    alone = score(Engine(fast.state.quantized(), TARGET), parts.judging, wanted).sqnr_db
    assert same.sqnr_db == alone <= balanced.score.sqnr_db


def test_channels_are_evened_within_the_range_that_the_input_is_given(monkeypatch):
    given, rescue = [], equalization.rescue

    def watched(*args):
        given.append(args[3])
        return rescue(*args)

    monkeypatch.setattr(equalization, "rescue", watched)
    wide = Recipe(no_worse_than="fast", range=("minmax",), overrides=(Override(tensors="x", range=(-9.0, 9.0)),))
    found = searched(Search(), wide)
    assert given == [{"x": (-9.0, 9.0)}]
    assert found.state.encodings.activations["x"].scale > 18 / 260
