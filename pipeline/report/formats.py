"""Numbers as people read them; what is not a finite number is ``n/a``."""

import math

MISSING = "n/a"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction of one as a percentage."""
    return MISSING if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.{digits}f} %"


def points(difference: float | None) -> str:
    """A difference between two fractions in percentage points, with its sign."""
    if difference is None or not math.isfinite(difference):
        return MISSING
    rounded = round(100 * difference, 2) + 0.0
    return f"{rounded:+.2f} points".replace("-", "\N{MINUS SIGN}") if rounded else "0.00 points"


def count(number: float | None) -> str:
    """A whole number with thousands separated."""
    return MISSING if number is None or not math.isfinite(number) else f"{round(number):,}"


def size(number: float | None) -> str:
    """A number of bytes in decimal units."""
    if number is None or not math.isfinite(number):
        return MISSING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number:.0f} bytes"


def seconds(number: float) -> str:
    """A duration."""
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest:02} s"


def milliseconds(number: float | None) -> str:
    """A time in milliseconds, to four significant digits."""
    return MISSING if number is None or not math.isfinite(number) else f"{number:.4g} ms"


def plain(number: float | None, digits: int = 4) -> str:
    """A number with so many significant digits."""
    return MISSING if number is None or not math.isfinite(number) else f"{number:.{digits}g}"


def decibel(number: float) -> str:
    """A signal to noise ratio; beyond 200 dB there is no noise but that of double precision."""
    return "exact" if number > 200 else f"{number:.1f}" if math.isfinite(number) else MISSING


def plural(number: int, noun: str) -> str:
    """``1 gate``, ``2 gates``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
