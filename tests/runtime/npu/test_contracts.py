import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ProgramError
from runtime.npu import contracts, requantize

int32 = st.integers(-(2**31), 2**31 - 1)


@pytest.mark.parametrize(
    ("real", "want"),
    [
        (0.0, (0, 0)),
        (1.0, (2**30, 1)),
        (0.5, (2**30, 0)),
        (0.25, (2**30, -1)),
        (math.nextafter(1.0, 0.0), (2**30, 1)),  # rounds up to 2**31, which moves into the exponent
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),
        (3.0, (3 * 2**29, 2)),
    ],
)
def test_quantize_multiplier(real, want):
    assert requantize.quantize_factor(real, 31) == want


@given(st.floats(2.0**-30, 2.0**29))
def test_the_multiplier_is_the_nearest_31_bit_number(real):
    m, e = requantize.quantize_factor(real, 31)
    assert 2**30 <= m < 2**31
    assert abs(Fraction(m) * Fraction(2) ** (e - 31) - Fraction(real)) <= Fraction(2) ** (e - 32)


@pytest.mark.parametrize(
    ("real", "message"),
    [(-1.0, "not negative"), (math.nan, "finite"), (math.inf, "finite"), (2.0**31, "needs shift 32, beyond 30")],
)
def test_illegal_factors(real, message):
    with pytest.raises(ProgramError, match=message):
        requantize.quantize_factor(real, 31)


@given(int32, int32)
def test_doubling_high_multiply_is_gemmlowps(a, b):
    nudge = 2**30 if a * b >= 0 else 1 - 2**30
    total = a * b + nudge
    want = total // 2**31 if total >= 0 else -(-total // 2**31)  # C division truncates
    assert requantize.doubling_high_multiply(a, b) == (2**31 - 1 if a == b == -(2**31) else want)


@given(int32, st.integers(0, 31))
def test_rounding_divide_is_half_away_from_zero(x, exponent):
    exact = Fraction(abs(x), 2**exponent)
    want = math.floor(exact + Fraction(1, 2)) * (1 if x >= 0 else -1)
    assert requantize.divide_half_away(x, exponent) == want


def test_multiply_is_vectorised_and_monotone():
    acc = np.arange(-5000, 5000)
    for m, e in [(2**30, -3), (2**30, -7), (1_500_000_000, 2), (2**31 - 1, -5), (0, 0)]:
        got = requantize.multiply_double_rounding(acc, m, e)
        assert (np.diff(got) >= 0).all()
        assert got.tolist()[::997] == [int(requantize.multiply_double_rounding(int(a), m, e)) for a in acc[::997]]


def test_a_positive_shift_that_leaves_int32_is_an_error():
    assert requantize.multiply_double_rounding(2**20, 2**30, 10) == 2**29
    with pytest.raises(ProgramError, match=re.escape("accumulator times 2**shift leaves int32 (2147483648)")):
        requantize.multiply_double_rounding(2**20, 2**30, 11)


def test_an_unknown_contract_lists_the_known_ones():
    assert contracts.find_contract("tflite-r1").quantize_multiplier(0.5) == (2**30, 0)
    with pytest.raises(
        ProgramError, match=r"'tflite-r9' is not an integer contract \(did you mean 'tflite-r\d'\? known: litert-r6"
    ):
        contracts.find_contract("tflite-r9")


EXACT = {
    # a rule's formula in exact arithmetic: (value, real factor as a fraction, bits) -> integer
    "r2": lambda v, f, t: math.floor(v * f + Fraction(1, 2)),
    "r6": lambda v, f, t: half_away(Fraction(float(v) * float(f))),
    "r9-half-up": lambda v, f, t: math.floor(v * f + Fraction(1, 2)),
    "r9-half-even": lambda v, f, t: round(v * f),
}


def half_away(value):
    magnitude = math.floor(abs(value) + Fraction(1, 2))
    return magnitude if value >= 0 else -magnitude


@pytest.mark.parametrize("rule", EXACT)
@given(st.integers(-(2**30), 2**30), st.integers(-20, 0), st.integers(2**30, 2**31 - 1))
def test_rules_are_their_formulas(rule, acc, shift, mantissa):
    bits = requantize.RULES[rule].widths[0]
    multiplier = 1 if bits == 1 else mantissa if bits == 31 else mantissa << 22
    factor = Fraction(multiplier) * Fraction(2) ** (shift - bits)
    got = int(requantize.RULES[rule].multiply(acc, multiplier, shift, bits))
    assert got == EXACT[rule](acc, factor, bits)


@given(st.integers(-(2**29), 2**29), st.integers(-30, 1), st.integers(2**30, 2**31 - 1))
def test_tosas_double_rounding_is_r1(acc, shift, multiplier):
    """Up to a shift of 31 the two are the same by algebra; beyond, TOSA's nudge makes them so."""
    want = int(requantize.multiply_double_rounding(acc, multiplier, shift))
    assert int(requantize.multiply_tosa_double(acc, multiplier, shift)) == want


@given(st.integers(-(2**31), 2**31 - 1), st.floats(2.0**-30, 2.0**10, width=32))
def test_the_float32_rule_is_one_float32_product(acc, factor):
    multiplier, shift = requantize.quantize_factor(factor, 24)
    assert Fraction(multiplier) * Fraction(2) ** (shift - 24) == Fraction(factor)
    want = np.rint(np.float32(acc) * np.float32(factor))
    assert int(requantize.multiply_float32(acc, multiplier, shift)) == int(want)


@given(st.integers(-(2**40), 2**40), st.floats(2.0**-20, 0.99))
def test_the_short_multiplier_is_tflites_for_int16(acc, factor):
    """R8: ``m < 0x7FFF0000 ? (m + 2**15) >> 16 : 0x7FFF``, then one rounding."""
    m, e = requantize.quantize_factor(factor, 31)
    short = (m + 2**15) >> 16 if m < 0x7FFF0000 else 0x7FFF
    assert requantize.quantize_factor(factor, 15) == (short, e)
    want = (acc * short + (1 << (14 - e))) >> (15 - e)
    assert int(requantize.multiply_single_rounding(acc, short, e, 15)) == want


@pytest.mark.parametrize(
    ("divide", "want"),
    [
        (requantize.divide_half_up, [-2, -1, 0, 1, 2, 3]),
        (requantize.divide_half_even, [-2, -2, 0, 0, 2, 2]),
        (requantize.divide_half_away, [-3, -2, -1, 1, 2, 3]),
    ],
)
def test_divisions_differ_at_ties(divide, want):
    assert divide([-5, -3, -1, 1, 3, 5], 1).tolist() == want
    assert divide([-7, 7], 0).tolist() == [-7, 7]


def test_illegal_shifts():
    with pytest.raises(ProgramError, match="a shift of 31 leaves nothing to round"):
        requantize.multiply_single_rounding(1, 2**30, 31, 31)
    with pytest.raises(ProgramError, match=re.escape("outside TOSA's [2, 62]")):
        requantize.multiply_tosa_double(1, 2**30, 30)
    with pytest.raises(ProgramError, match=r"0.3 is no power of two \(quantize with power-of-two scales\)"):
        requantize.quantize_factor(0.3, 1)


def test_a_contract_with_modifiers():
    found = contracts.find_contract("pot-r9-half-up+acc48")
    assert (found.accumulator_bits, found.name) == (48, "pot-r9-half-up+acc48")
    assert contracts.find_contract("tflite-r1+uint8").limits == (0, 255)
    assert contracts.find_contract("tflite-r1+symmetric").symmetric


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tflite-r1+int16", r"asymmetric int16 \(the nearest is .*int8|.*int16.* \(the nearest is"),
        ("tflite-r1+acc40", r"rule r1, 31-bit multipliers, 40-bit accumulators .* \(the nearest is tflite-r1"),
        ("tosa-r2+mul15", ""),
        ("tflite-r8+int8", r"31-bit multipliers, 48-bit accumulators .* \(the nearest is"),
        ("tflite-r8+acc16", r"the nearest is tflite-r8"),
        ("ort-r4+acc48", r"the nearest is ort-r4"),
        ("tflite-r1+wide", r"'wide' does not modify a contract"),
    ],
)
def test_an_unknown_combination_names_the_nearest(name, message):
    if not message:
        assert contracts.find_contract(name).activations == "int8"
        return
    with pytest.raises(ProgramError, match=message):
        contracts.find_contract(name)


def test_int16_sums_of_products_have_a_rule_of_their_own():
    whole = contracts.find_contract("tflite-r8")
    product, other = whole.of("conv2d"), whole.of("add")
    assert (product.rule, product.multiplier_bits, product.accumulator_bits) == ("r2", 15, 48)
    assert (other.rule, other.multiplier_bits, other.accumulator_bits) == ("r1", 31, 32)
    assert product.of("add") == product
    same = contracts.find_contract("tflite-r1")
    assert same.of("conv2d") is same


def test_a_contract_of_two_types():
    found = contracts.find_contract("tflite-r1+uint8/tflite-r8+acc40")
    assert found.types == ("uint8", "int16")
    assert found.by_type("uint8") is found
    assert found.by_type("int16") == contracts.find_contract("tflite-r8+acc40")
    assert found.by_type("int8") is None
    assert contracts.find_contract("tflite-r8").types == ("int16",)
    assert contracts.find_contract("tflite-r8").by_type("int8") is None


@pytest.mark.parametrize("name", ["tflite-r8/tflite-r1", "tflite-r1/tosa-r2", "tflite-r8/tflite-r8"])
def test_two_types_are_8_bits_first_and_int16_second(name):
    with pytest.raises(ProgramError, match=r"computes with .*\(a contract of two types names one of 8 bits first"):
        contracts.find_contract(name)


def test_every_preset_is_legal_and_has_a_source():
    for name, contract in contracts.CONTRACTS.items():
        assert contracts.find_contract(name) == contract
        assert contract.source
        assert contract.multiplier_bits in contract.arithmetic.widths


def test_ratios_are_in_the_rules_precision():
    scales, result = (0.1, 0.003), 0.7
    exact = contracts.find_contract("tflite-r1").ratio(scales, result)
    assert exact == 0.1 * 0.003 / 0.7
    single = contracts.find_contract("ort-r4").ratio(scales, result)
    assert single == float(np.float32(np.float32(0.1) * np.float32(0.003)) / np.float32(0.7))
    assert single != exact
