"""A search has a budget, can be stopped at any trial, and goes on where it was."""

import json

import pytest
from enginenets import SHAPE, net
from smallmodels import images, target

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize import scheme, trials
from pipeline.quantize.calibrate import calibrate
from pipeline.quantize.journal import Journal, key_of
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.split import split
from pipeline.quantize.trials import Search

TARGET = target("kirin-970")
RECIPE = Recipe(range=("percentile", "minmax"), percentiles=(70.0,), equalize=("weights",), bias_correction="fast")


@pytest.fixture
def scored(monkeypatch):
    """How often the engine judged."""
    calls = []
    original = trials.score
    monkeypatch.setattr(trials, "score", lambda *given: calls.append(1) or original(*given))
    return calls


def searched(search):
    floating, seen = net(), images(SHAPE, count=6)
    taken = calibrate(floating, view(floating), seen)
    parts, _ = split(6, RECIPE, lambda: seen, lambda places: [seen[p] for p in places])
    return trials.run(floating, taken, parts, RECIPE, TARGET, scheme.of(TARGET), search)


def outcome(found):
    levels = [(t.what, t.sqnr_db, t.kept) for t in found.trials]
    return levels, found.score, found.state.quantized().SerializeToString(deterministic=True)


def stopping_after(count):
    left = [count]

    def tell(_):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return tell


def test_a_stopped_search_goes_on_where_it_was(tmp_path, scored):
    whole = searched(Search())
    assert len(whole.trials) == len(scored) == 5
    for stopped in (1, 2, 4):
        path = tmp_path / f"{stopped}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            searched(Search(Journal(path, "key"), tell=stopping_after(stopped)))
        scored.clear()
        journal = Journal(path, "key")
        assert len(journal) == stopped
        assert outcome(searched(Search(journal))) == outcome(whole)
        assert len(scored) == 5 - stopped
        journal.finish()
        assert not path.exists()


def test_a_budget_too_small_for_one_trial_makes_one(scored):
    found = searched(Search(budget=0.0))
    assert len(found.trials) == len(scored) == 1
    assert found.trials[0].kept
    assert found.untried[0] == "range minmax, weights max"
    assert len(found.untried) == 4


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "t.jsonl"
    journal = Journal(path, "key")
    searched(Search(journal))
    path.write_text(path.read_text()[:-20])
    assert len(Journal(path, "key")) == 4


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
    line = {"what": "range", "outputs": 3, "cosines": {}, "agreement": None, "images": 1}
    path.write_text('{"search": "key"}\n' + json.dumps(line) + "\n")
    with pytest.raises(ModelError, match="is not a search's journal"):
        Journal(path, "key")
