"""The formulas of the fast path against the rule itself, on every reachable accumulator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_programs import scaling as folded

from runtime.npu.contracts import find_contract
from runtime.npu.steps import find_steps, fit_corrected, fit_long, fit_short, fit_signed, scaling

MAGIC = np.float32(1.5 * 2**23)


def make(factors, low, high, bounds, contract="tflite-r1"):
    constants = folded(factors, contract)
    count = len(constants["shift"])
    reach = np.full(count, low), np.full(count, high)
    factor = tuple(constants[name].astype(np.int64) for name in ("multiplier", "shift"))
    return scaling(find_contract(contract), factor, reach, bounds)


def every(item, channel):
    acc = np.arange(item.low[channel], item.high[channel] + 1)
    want = item.rule(np.broadcast_to(acc, (len(item.low), len(acc))))[channel]
    return acc, np.clip(want, *item.bounds)


ranges = st.tuples(st.integers(-60000, 0), st.integers(0, 60000))
bounds = st.sampled_from([(0, 255), (-128, 127), (-100, 155), (-3, 4), (0, 0), (-255, 0)])
factors = st.one_of(
    st.floats(2.0**-12, 4.0), st.sampled_from([2.0**-e for e in range(-2, 14)]), st.sampled_from([1 / 6, 1 / 130, 0.0])
)


@settings(max_examples=60, deadline=None)
@given(factors, ranges, bounds)
def test_steps_are_where_the_rule_steps(factor, reach, limits):
    item = make(factor, *reach, limits)
    acc, want = every(item, 0)
    steps = find_steps(item)[0]
    for level, step in zip(item.levels(), steps, strict=True):
        reached = acc[want >= level]
        assert step == (reached[0] if len(reached) else item.high[0] + 1)


@settings(max_examples=120, deadline=None)
@given(factors, ranges, bounds)
def test_a_formula_that_is_accepted_is_the_rule(factor, reach, limits):
    item = make(factor, *reach, limits)
    acc, want = every(item, 0)
    steps = find_steps(item)
    short, long = fit_short(item, steps), fit_long(item, steps)
    if short is not None:
        exact = acc.astype(np.float64) * np.float64(short[0])
        for product in (acc.astype(np.float32) * short[0], exact):  # without and with fused multiply-add
            lifted = (product + np.float64(MAGIC)).astype(np.float32)
            np.testing.assert_array_equal(np.clip(lifted, MAGIC + limits[0], MAGIC + limits[1]) - MAGIC, want)
    assert long is not None
    value = long.evaluate(acc[None])[0]
    np.testing.assert_array_equal(np.clip(value, *limits), want)


def corrected(formula, acc, limits, fused):
    """The corrected formula as onnxruntime evaluates it, without or with fused multiply-add."""

    def line(slope, x, offset):
        if fused:
            return (np.float64(slope) * x + np.float64(offset)).astype(np.float32)
        return np.float32(slope) * x + np.float32(offset)

    x = (acc + formula.bias[0]).astype(np.float32)
    k = np.clip(line(formula.slope[0], x, MAGIC), MAGIC + limits[0], MAGIC + limits[1] - 1) - MAGIC
    rest = line(-formula.whole[0], k, 0) + x
    distance = line(-formula.part[0], k, -formula.offset[0]) + rest
    return k + np.clip(line(formula.steepness[0], distance, 0.5), 0, 1)


@settings(max_examples=150, deadline=None)
@given(st.floats(2.0**-12, 0.24), ranges, bounds)
def test_a_corrected_formula_that_is_accepted_is_the_rule(factor, reach, limits):
    item = make(factor, *reach, limits)
    acc, want = every(item, 0)
    formula = fit_corrected(item, find_steps(item))
    if formula is not None:
        np.testing.assert_array_equal(corrected(formula, acc, limits, False), want)
        np.testing.assert_array_equal(corrected(formula, acc, limits, True), want)


def test_most_factors_have_the_corrected_formula_after_a_relu():
    rng = np.random.default_rng(0)
    items = [make(factor, -(2**20), 2**20, (0, 255)) for factor in rng.uniform(0.0006, 0.02, 200)]
    formulas = [fit_corrected(item, find_steps(item)) for item in items]
    assert sum(formula is not None for formula in formulas) >= 195
    for item, formula in list(zip(items, formulas, strict=True))[:10]:
        acc, want = every(item, 0)
        if formula is not None:
            np.testing.assert_array_equal(corrected(formula, acc, (0, 255), False), want)


@settings(max_examples=150, deadline=None)
@given(factors, ranges, bounds)
def test_a_signed_formula_that_is_accepted_is_the_rule(factor, reach, limits):
    item = make(factor, *reach, limits)
    acc, want = every(item, 0)
    formula = fit_signed(item, find_steps(item))
    if formula is not None:
        ahead = np.clip(acc.astype(np.float32), -formula.ahead, formula.ahead)
        total = acc.astype(np.float32) + ahead
        assert total.dtype == np.float32
        np.testing.assert_array_equal(np.clip(np.rint(total * formula.slope), *limits), want)


def test_most_products_of_two_have_the_signed_formula():
    rng = np.random.default_rng(0)
    items = [make(factor, -65025, 65025, (-128, 127)) for factor in rng.uniform(0.0004, 0.02, 200)]
    assert sum(fit_signed(item, find_steps(item)) is not None for item in items) >= 190


def test_a_signed_formula_is_for_one_factor_and_two_roundings():
    two, once = make([0.01, 0.02], -500, 500, (-8, 8)), make(0.01, -500, 500, (-8, 8), "tflite-r2")
    assert fit_signed(two, find_steps(two)) is None
    assert fit_signed(once, find_steps(once)) is None
    one = make(0.01, -500, 500, (-4, 4))
    steps = find_steps(one)
    assert fit_signed(one, steps) is not None
    steps[0, 2] += 2
    assert fit_signed(one, steps) is None


@pytest.mark.parametrize("limits", [(0, 255), (-128, 127)])
def test_even_reciprocals_always_have_the_short_formula(limits):
    reciprocals = np.array([n for n in range(30, 4001, 2) if n & (n - 1)])
    item = make(1 / reciprocals, -(2**22), 2**22, limits)
    assert fit_short(item, find_steps(item)) is not None


def test_a_wrong_slope_is_refused():
    """The check has teeth: shift one step by one accumulator and no formula passes."""
    item = make(1 / 130, -40000, 40000, (-128, 127))
    steps = find_steps(item)
    assert fit_short(item, steps) is not None
    steps[0, 40] += 1
    assert fit_short(item, steps) is None
    assert fit_long(item, steps) is None


def test_a_wrong_period_is_refused():
    item = make(1 / 130.3, 0, 40000, (0, 255))
    steps = find_steps(item)
    assert fit_corrected(item, steps) is not None
    steps[0, 40] += 1
    assert fit_corrected(item, steps) is None
