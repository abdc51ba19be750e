"""What the limits of rules may be: the type of each, and what would contradict itself."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.errors import nearest
from pipeline.targets.profile import Limit, Limits

Mistake = tuple[str, str | None]
"""What is wrong with a limit, and what to do about it."""


@dataclass(frozen=True)
class Numbers:
    """Limits that are numbers.

    Attributes:
        least: the smallest that makes sense, ``None`` where any does.
        whole: whether they count something.
        several: whether there may be more than one.
    """

    least: float | None = 1
    whole: bool = True
    several: bool = False

    def mistake(self, value: object) -> Mistake | None:
        """What is wrong with one value."""
        kind = "a whole number" if self.whole else "a number"
        bound = "" if self.least is None else f" from {self.least:g}"
        right = isinstance(value, int) or (not self.whole and isinstance(value, float) and math.isfinite(value))
        if not right or (self.least is not None and isinstance(value, int | float) and value < self.least):
            return f"is {_shown(value)}", f"give {kind}{bound}"
        return None


@dataclass(frozen=True)
class Words:
    """Limits that are words of a list; of several words in one value the first must be known.

    Attributes:
        known: the words.
        several: whether there may be more than one.
    """

    known: tuple[str, ...]
    several: bool = True

    def mistake(self, value: object) -> Mistake | None:
        """What is wrong with one value."""
        words = str(value).split()
        if isinstance(value, str) and words and words[0] in self.known:
            odd = [w for w in words[1:] if w not in RESIZE_WORDS]
            return None if not odd else (f"is {_shown(value)}", nearest(odd[0], RESIZE_WORDS))
        return f"is {_shown(value)}", nearest(words[0] if words else "", self.known)


@dataclass(frozen=True)
class Ranges:
    """Limits such as ``0..6`` or ``0..``: the lower end, two dots, the upper end; an end that is left out is none."""

    several: bool = True

    def mistake(self, value: object) -> Mistake | None:
        """What is wrong with one value."""
        match = RANGE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return f"is {_shown(value)}", "write a range as 0..6, 0.. or ..6"
        low, high = match.groups()
        if low and high and float(low) >= float(high):
            return f"is {value}, which holds nothing", f"write {high}..{low}"
        return None


RANGE = re.compile(r"(-?\d+(?:\.\d+)?)?\.\.(-?\d+(?:\.\d+)?)?")

RESIZE_WORDS = (
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric", "tf_crop_and_resize",
    "floor", "ceil", "round_prefer_floor", "round_prefer_ceil",
)  # fmt: skip
"""ONNX's coordinates and rounding of Resize."""

TYPES = Words(("int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"))
COUNT = Numbers()
COUNTS = Numbers(several=True)

KINDS: Mapping[str, Numbers | Words | Ranges] = MappingProxyType(
    {
        **dict.fromkeys(("area", "batch", "bytes", "channels", "columns", "depth", "dilation", "dimensions"), COUNT),
        **dict.fromkeys(("elements", "groups", "height", "high", "inputs", "int16", "int8", "lanes", "linear"), COUNT),
        **dict.fromkeys(("low", "multiple", "multiplier", "nearest", "rank", "rows", "size", "stride", "sum"), COUNT),
        **dict.fromkeys(("uint8", "width"), COUNT),
        **dict.fromkeys(("long", "sizes", "strides"), COUNTS),
        "padding": Numbers(least=0),
        "axes": Numbers(least=0, several=True),
        **dict.fromkeys(("factor", "times"), Numbers(least=0, whole=False)),
        "factors": Numbers(least=0, whole=False, several=True),
        "exponents": Numbers(least=None, whole=False, several=True),
        "types": TYPES,
        "ranges": Ranges(),
    }
)
"""The kind of each limit by its name, which means the same in every rule."""

MODES: Mapping[str, Words] = MappingProxyType(
    {"pad_modes": Words(("constant", "reflect", "edge", "wrap")), "resize_modes": Words(("nearest", "linear", "cubic"))}
)
"""The limit ``modes``, by rule."""

ORDERED = (("low", "high"), ("low", "nearest"), ("low", "linear"))
"""Limits of one rule of which the first must not be larger."""


def kind(rule: str, limit: str) -> Numbers | Words | Ranges:
    """What the limit ``limit`` of ``rule`` must be."""
    return MODES[rule] if limit == "modes" else KINDS[limit]


def mistakes(rule: str, limits: Limits) -> Iterator[Mistake]:
    """What is wrong with the limits that a profile gives ``rule``, all of which it has."""
    wrong = False
    for name, value in limits.items():
        for mistake in _of_limit(kind(rule, name), value):
            wrong = True
            yield f"limit {name} {mistake[0]}", mistake[1]
    for low, high in ORDERED if not wrong else ():
        if low in limits and high in limits and limits[low] > limits[high]:  # type: ignore[operator]
            what = f"limits contradict each other: {low} {limits[low]} is above {high} {limits[high]}"
            yield what, f"give a {low} of at most {limits[high]}"


def _of_limit(wanted: Numbers | Words | Ranges, value: Limit) -> Iterator[Mistake]:
    values = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple) and not wanted.several:
        yield f"is {_shown(list(value))}", "give one value"
    elif not values:
        yield "is empty, so nothing could keep the rule", "name at least one, or leave the operator out"
    else:
        found = (wanted.mistake(each) for each in values)
        yield from (mistake for mistake in found if mistake is not None)


def _shown(value: object) -> str:
    return repr(value)[:60]
