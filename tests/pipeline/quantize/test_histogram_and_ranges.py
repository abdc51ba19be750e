"""Statistics that do not depend on order or batches, and the ranges chosen from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.quantize.histogram import BINS, Histogram
from pipeline.quantize.ranges import CHOICES, minmax, mse, percentile
from pipeline.quantize.scheme import DEAD_RANGE, Scheme

VALUES = st.lists(
    st.one_of(st.floats(-1e6, 1e6, width=32), st.floats(-(2.0**-20), 2.0**-20, width=32), st.just(0.0), st.just(-0.0)),
    min_size=1, max_size=40,
)  # fmt: skip


def counted(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.update(np.array(batch, np.float32))
    return histogram


@settings(deadline=None, derandomize=True)
@given(VALUES, st.randoms(use_true_random=False), st.integers(0, 40))
def test_neither_order_nor_batches_matter(values, random, at):
    whole = counted(values)
    shuffled = random.sample(values, len(values))
    for parts in ([shuffled[:at], shuffled[at:]], [[v] for v in shuffled]):
        other = counted(*parts)
        assert (other.low, other.high, other.exponent, other.zeros) == (
            whole.low, whole.high, whole.exponent, whole.zeros,
        )  # fmt: skip
        np.testing.assert_array_equal(other.counts, whole.counts)
    assert whole.counts.sum() + whole.zeros == len(values)
    assert (whole.low, whole.high) == (min(np.float32(values)), max(np.float32(values)))


@settings(deadline=None, derandomize=True)
@given(VALUES)
def test_doubling_is_exactly_a_single_pass_with_the_final_limit(values):
    histogram = counted(*[[v] for v in values])
    if histogram.exponent is None:
        assert not np.any(values)
        return
    limit = 2.0**histogram.exponent
    assert limit / 2 <= np.abs(np.float32(values)).max() < limit
    edges = np.linspace(-limit, limit, BINS + 1)
    expected = np.histogram(np.float32(values).astype(np.float64), bins=edges)[0]
    np.testing.assert_array_equal(histogram.counts, expected)


def test_an_empty_update_changes_nothing():
    histogram = counted([], [1.0], [])
    assert histogram.counts.sum() == 1
    assert (histogram.low, histogram.high) == (1.0, 1.0)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("value", [0.0, 3.25, -3.25, 1e-9, 1e9])
def test_a_constant_is_its_own_range(choice, value):
    low, high = CHOICES[choice](counted([value] * 5), 99.0, Scheme())
    scale, zero = Scheme().activation(low, high)
    assert np.isfinite(scale)
    reals = (np.arange(-128, 128) - zero) * scale
    assert np.abs(reals - np.float32(value)).min() <= max(scale / 2, abs(value) * 1e-6)


@pytest.mark.parametrize("percent", [100, 99.9, 99, 80, 60])
def test_percentile_against_sorted_values(percent):
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    histogram = counted(values)
    low, high = percentile(histogram, percent, Scheme())
    width = 2.0**histogram.exponent / (BINS / 2)
    cut = int((1 - percent / 100) / 2 * len(values) + 1e-9)
    ordered = np.sort(values)
    assert low <= ordered[cut] < low + width + 1e-9
    assert high >= ordered[-1 - cut] > high - width - 1e-9
    if percent == 100:
        assert (low, high) == minmax(histogram, percent, Scheme()) == (ordered[0], ordered[-1])


def test_percentile_of_simple_data():
    histogram = counted([-100.0], [0.0] * 98, [100.0])
    assert percentile(histogram, 100, Scheme()) == (-100.0, 100.0)
    low, high = percentile(histogram, 97, Scheme())
    assert low == 0.0
    assert 0.0 < high < 0.1


def brute_force(values, low, high):
    scale, zero = Scheme().activation(low, high)
    q = np.clip(np.rint(values / scale) + zero, -128, 127)
    return float((((q - zero) * scale - values) ** 2).sum())


@pytest.mark.parametrize("seed", range(4))
def test_mse_is_no_worse_than_any_range_of_a_grid(seed):
    generator = np.random.default_rng(seed)
    values = generator.standard_t(2.5, 4000).astype(np.float32).astype(np.float64)
    values = np.abs(values) if seed % 2 else values
    chosen = mse(counted(values), 0, Scheme())
    grid = [(values.min() * a, values.max() * b) for a in np.linspace(0.2, 1, 15) for b in np.linspace(0.2, 1, 15)]
    best = min(brute_force(values, lo, hi) for lo, hi in grid)
    assert brute_force(values, *chosen) <= 1.1 * best
    assert brute_force(values, *chosen) <= brute_force(values, values.min(), values.max())


@settings(deadline=None, derandomize=True)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_affine_covers_the_range_and_represents_zero(a, b):
    low, high = min(a, b), max(a, b)
    scale, zero = Scheme().activation(low, high)
    assert scale == float(np.float32(scale)) > 0
    assert -128 <= zero <= 127
    slack = 0.5001 * scale
    assert (-128 - zero) * scale <= min(low, 0) + slack
    assert (127 - zero) * scale >= max(high, 0) - slack
    assert scale * 255 <= max(max(high, 0) - min(low, 0), DEAD_RANGE) * 1.000001


def test_affine_of_one_side_uses_every_integer():
    assert Scheme().activation(0.0, 255.0) == (1.0, -128)
    assert Scheme().activation(3.0, 255.0) == (1.0, -128)
    assert Scheme().activation(-255.0, 0.0) == (1.0, 127)
    assert Scheme().activation(-128.0, 127.0) == (1.0, 0)
    assert Scheme().activation(0.0, 0.0)[0] == pytest.approx(DEAD_RANGE / 255)
