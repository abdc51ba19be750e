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
