"""A row of a benchmark's table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A figure: what it is, its value as text, and how it came about."""

    what: str
    value: str
    how: str
