"""Every limit of every shipped profile, from the profile itself: a node just inside it and one just outside."""

import pytest
from limitcases import RULES
from limitnodes import base
from smallmodels import TARGETS, target

from pipeline.targets import library
from pipeline.targets import rules as product
from pipeline.targets.rules import violations


def uses():
    """Every use of a rule: target, operator, rule, limits, form; rules of the target are asked about one operator."""
    for name in library.names(TARGETS):
        profile = target(name)
        for op, entry in profile.operators.items():
            for use in entry.rules:
                yield name, op, use
        if profile.rules and profile.operators:
            common = "Relu" if "Relu" in profile.operators else next(iter(profile.operators))
            for use in profile.rules:
                yield name, common, use


USES = [pytest.param(*use, id=f"{use[0]}-{use[1]}-{use[2].rule}-{use[2].when or 'any'}") for use in uses()]

SAME_CAUSE = {
    "batch_one": {"max_rank"},
    "max_rank": {"batch_one"},
    "pad_keeps_batch": {"batch_one", "max_rank"},
    "split_keeps_batch": {"batch_one", "max_rank"},
    "slice_keeps_batch": {"batch_one", "max_rank"},
    "vector_output": {"batch_one"},
    "max_padding": {"max_kernel_size"},
    "max_groups": {"max_dimension", "max_output_channels"},
    "max_output_channels": {"max_dimension"},
    "max_columns": {"max_dimension"},
    "max_dimensions": {"two_spatial_dimensions"},
    "two_spatial_dimensions": {"half_pixel_factor", "resize_factors_or_point", "resize_whole_factor_or_point"},
    "constant_operands": {"activation_types", "int8_activations", "batch_one", "max_rank", "exact_dimensions"},
}
"""Rules that one misfit breaks together: they say the same of it, have the same limit, or ask of a factor that is not
known without height and width; a computed operand is an activation as well."""

ALSO = {
    ("max_padding", "MaxPool"): {"max_kernel_size"},
    ("max_padding", "AveragePool"): {"max_kernel_size"},
    ("max_stride", "AveragePool"): {"average_buffer"},
}
"""Rules that break already just inside a limit, which lies beyond what others leave possible: ONNX wants paddings below
the kernel's size, and the Ascend strides of at most two kernels, whose average takes too large a buffer."""


def test_every_rule_has_a_case():
    assert RULES.keys() == product.RULES.keys()


@pytest.mark.parametrize(("name", "op", "use"), USES)
def test_a_limit_holds_and_no_further(name, op, use):
    inside, outside = RULES[use.rule](op, use.when, dict(use.limits))
    profile = target_of(name)
    before = {v.rule for v in violations(inside, profile)}
    found = {v.rule: v for v in violations(outside, profile)}
    assert before <= ALSO.get((use.rule, op), set())
    assert use.rule in found
    assert found.keys() - before - {use.rule} <= SAME_CAUSE.get(use.rule, set())


PROFILES = {}


def target_of(name):
    if name not in PROFILES:
        PROFILES[name] = target(name)
    return PROFILES[name]


OPERATORS = [(n, op) for n in library.names(TARGETS) for op in target_of(n).operators]


@pytest.mark.parametrize(("name", "op"), OPERATORS)
def test_an_ordinary_operator_is_taken(name, op):
    found = [
        v
        for when in ({u.when for u in target_of(name).operators[op].rules} or {None})
        for v in violations(base(op, when), target_of(name))
    ]
    assert not found
