import math

import pytest

from pipeline.report import formats


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (formats.percent(0.9312), "93.1 %"),
        (formats.percent(math.nan), "n/a"),
        (formats.points(-0.00512), "\N{MINUS SIGN}0.51 points"),
        (formats.points(0.0123), "+1.23 points"),
        (formats.points(-0.000001), "0.00 points"),
        (formats.points(None), "n/a"),
        (formats.count(1234567.0), "1,234,567"),
        (formats.count(math.inf), "n/a"),
        (formats.size(12), "12 bytes"),
        (formats.size(412345), "412.3 kB"),
        (formats.size(2.5e6), "2.5 MB"),
        (formats.size(3e9), "3.0 GB"),
        (formats.size(None), "n/a"),
        (formats.seconds(9.96), "10.0 s"),
        (formats.seconds(61.4), "1 min 01 s"),
        (formats.plain(2.54321e-6, 3), "2.54e-06"),
        (formats.plain(math.nan), "n/a"),
        (formats.decibel(27.26), "27.3"),
        (formats.decibel(3080.0), "exact"),
        (formats.decibel(math.nan), "n/a"),
        (formats.plural(1, "gate"), "1 gate"),
        (formats.plural(2000, "gate"), "2,000 gates"),
    ],
)
def test_numbers_as_people_read_them(said, expected):
    assert said == expected
