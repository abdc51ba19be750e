"""Where each rule fits and where it almost does; what it makes there, in numbers, structure and names."""

import pytest
from rewritecases import FITS, MISSES
from smallmodels import raw

from pipeline.errors import ModelError
from pipeline.graph.model import check
from pipeline.graph.view import view
from pipeline.rewrites.equivalence import equivalent
from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.rule import EXACT_BOUND
from pipeline.rewrites.table import RULES, candidates, rule

FITTING = [pytest.param(case, opset, id=f"{case}@{opset}") for case in FITS for opset in case.opsets]
MISSING = [pytest.param(case, opset, id=f"{case}@{opset}") for case in MISSES for opset in case.opsets]
TUNED = {"hard-swish-to-relu6": 3.0, "silu-to-hard-swish": 0.4, "gelu-to-sigmoid": 0.03, "resize-to-nearest": 10.0}


def build(case, opset):
    return raw(case.text, opset, **case.constants)


def test_every_rule_has_a_name_a_sentence_a_place_where_it_fits_and_one_where_it_almost_does():
    names = [r.name for r in RULES]
    assert len(set(names)) == len(names)
    assert {case.rule for case in FITS} == {case.rule for case in MISSES} == set(names)
    assert all(r.sentence.endswith(".") and "\n" not in r.sentence for r in RULES)
    assert [r.kind for r in RULES] == sorted((r.kind for r in RULES), key=list(Kind).index)
    assert all((r.bound is None) == (r.kind is Kind.NEEDS_FINE_TUNING) for r in RULES)
    assert set(TUNED) == {r.name for r in RULES if r.bound is None}


@pytest.mark.parametrize(("case", "opset"), FITTING)
def test_a_rule_that_fits_keeps_the_results_and_says_what_it_changed(case, opset):
    before = build(case, opset)
    untouched = before.SerializeToString(deterministic=True)
    known = check(before, "test")
    places = [c for c in candidates(before) if c.rule == case.rule]
    applied = rule(case.rule).apply(before)

    assert places
    assert before.SerializeToString(deterministic=True) == untouched
    assert [n.op for n in view(applied.model).nodes] == case.after.split()
    bound = rule(case.rule).bound
    difference = equivalent(before, applied.model, 1)
    if bound is None:
        assert 1e-4 < difference.absolute < TUNED[case.rule]
    else:
        assert difference.relative <= bound
    assert list(applied.model.graph.input) == list(known.graph.input)
    assert list(applied.model.graph.output) == list(known.graph.output)

    old, new = {n.name for n in known.graph.node}, {n.name for n in applied.model.graph.node}
    assert len(new) == len(applied.model.graph.node)
    assert set(applied.nodes) <= new
    for change in applied.replacements:
        assert set(change.before) <= old
        assert all(any(name.split("/")[0].split("#")[0] == b for b in change.before) for name in change.after)


@pytest.mark.parametrize(("case", "opset"), FITTING)
def test_a_rule_fits_no_more_where_it_was_applied(case, opset):
    once = rule(case.rule).apply(build(case, opset)).model
    twice = rule(case.rule).apply(once)
    assert not twice.replacements
    assert twice.model is once
    assert case.rule not in {c.rule for c in candidates(once)}


@pytest.mark.parametrize(("case", "opset"), MISSING)
def test_a_rule_leaves_alone_what_it_does_not_fit(case, opset):
    model = build(case, opset)
    check(model, "test")
    assert case.rule not in {c.rule for c in candidates(model)}
    applied = rule(case.rule).apply(model)
    assert applied.model is model
    assert applied.nodes == ()


@pytest.mark.parametrize(("case", "opset"), FITTING)
def test_a_rule_can_be_applied_to_one_candidate(case, opset):
    model = build(case, opset)
    place = next(c for c in candidates(model) if c.rule == case.rule)
    applied = rule(case.rule).apply(model, place.nodes)
    (change,) = applied.replacements
    assert change.before == place.nodes
    rest = {n.name for n in check(model, "test").graph.node if n.op_type != "Constant"} - set(place.nodes)
    assert {n.name for n in applied.model.graph.node} == rest | set(change.after)


def test_exact_rules_are_exact():
    assert all(r.bound == EXACT_BOUND for r in RULES if r.kind is Kind.EXACT)
    with pytest.raises(ModelError, match="gemm-to-cnv: is not a rewrite rule"):
        rule("gemm-to-cnv")
    with pytest.raises(ModelError, match=r"\(did you mean gemm-to-conv") as error:
        rule("gemm-to-cnv")
    assert "matmul-to-conv" in str(error.value)
