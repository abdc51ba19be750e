"""The partitioned graph as SVG text: a pure function of boxes and arrows."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Literal

from pipeline.report.layout import BOX, Layout, Point, Spot, lay_out

WIDEST = 1120.0
"""Columns are added until the picture is so wide, in CSS pixels."""

_TITLE_LETTERS, _NAME_LETTERS, _RADIUS = 24, 28, 8.0

Place = Literal["npu", "cpu", "edge"]


@dataclass(frozen=True)
class Box:
    """An operator with what is fused into it, a whole partition, or an input or output of the model.

    Attributes:
        key: what arrows call it.
        title: its first line.
        name: its second line; its beginning is left out when it is long.
        place: the device, or ``edge`` for what enters or leaves the model.
        hint: what is shown on pointing at it.
    """

    key: str
    title: str
    name: str
    place: Place
    hint: str = ""


@dataclass(frozen=True)
class Arrow:
    """A tensor from one box to another; ``crossing`` when it goes from one device to the other."""

    source: str
    target: str
    hint: str = ""
    crossing: bool = False


def picture(boxes: Sequence[Box], arrows: Sequence[Arrow], label: str) -> str:
    """The graph as an ``<svg>`` element without fixed colours: the page's style sheet gives them to its classes.

    NPU boxes are round, CPU boxes are square, dashed and say so, crossings are dashed and carry a diamond: colour is
    never the only sign.

    Args:
        boxes: every one after those that point to it; keys are unique.
        arrows: each pair of boxes once.
        label: what the picture shows, for those who do not see it.
    """
    layout = lay_out([box.key for box in boxes], [(a.source, a.target) for a in arrows], WIDEST)
    width, height = f"{layout.width:.0f}", f"{layout.height:.0f}"
    lines = [
        f'<svg class="graph" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(label)}">'
    ]
    lines += [_arrow(arrow, layout) for arrow in arrows]
    lines += [_box(box, layout.spots[box.key]) for box in boxes]
    return "\n".join([*lines, "</svg>"])


def _box(box: Box, spot: Spot) -> str:
    width, height = BOX
    radius = {"npu": 9.0, "cpu": 0.0, "edge": height / 2}[box.place]
    x, y = spot.x, spot.y
    middle = spot.centre
    tag = ""
    if box.place == "cpu":
        tag = f'<text class="tag" x="{x + width - 8:.1f}" y="{y + 3:.1f}" text-anchor="end">CPU</text>'
    return (
        f'<g class="box {box.place}"><title>{escape(box.hint or box.name)}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.0f}" height="{height:.0f}" rx="{radius:.0f}"/>{tag}'
        f'<text x="{middle:.1f}" y="{y + 17:.1f}" text-anchor="middle">{escape(_head(box.title))}</text>'
        f'<text class="name" x="{middle:.1f}" y="{y + 31:.1f}" text-anchor="middle">{escape(_tail(box.name))}</text>'
        "</g>"
    )


def _head(text: str) -> str:
    return text if len(text) <= _TITLE_LETTERS else f"{text[: _TITLE_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _tail(text: str) -> str:
    return text if len(text) <= _NAME_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{text[1 - _NAME_LETTERS :]}"


def _arrow(arrow: Arrow, layout: Layout) -> str:
    points = layout.routes[arrow.source, arrow.target]
    kind = "arrow crossing" if arrow.crossing else "arrow"
    x, y = points[-1]
    head = f'<path class="head" d="M {x:.1f} {y:.1f} l -4 -7 h 8 z"/>'
    mark = ""
    if arrow.crossing:
        (ax, ay), (bx, by) = points[-2:]
        mark = f'<path class="mark" d="M {(ax + bx) / 2:.1f} {(ay + by - 7) / 2 - 6:.1f} l 6 6 l -6 6 l -6 -6 z"/>'
    return (
        f'<g class="{kind}"><title>{escape(arrow.hint)}</title><path d="{_path(points)}"/>{head}{mark}</g>'
        if arrow.hint
        else f'<g class="{kind}"><path d="{_path(points)}"/>{head}{mark}</g>'
    )


def _path(points: Sequence[Point]) -> str:
    """Slanted pieces become curves that leave and arrive upright, right angles become round corners."""
    words = [f"M {points[0][0]:.1f} {points[0][1]:.1f}"]
    for index, ((ax, ay), (bx, by)) in enumerate(pairwise(points)):
        if abs(ax - bx) > 0.05 and abs(ay - by) > 0.05:
            middle = (ay + by) / 2
            words.append(f"C {ax:.1f} {middle:.1f} {bx:.1f} {middle:.1f} {bx:.1f} {by:.1f}")
            continue
        after = points[index + 2] if index + 2 < len(points) else None
        if after is None or (abs(after[0] - bx) > 0.05 and abs(after[1] - by) > 0.05):
            words.append(f"L {bx:.1f} {by:.1f}")
            continue
        sx, sy = _towards((bx, by), (ax, ay))
        ex, ey = _towards((bx, by), after)
        words.append(f"L {sx:.1f} {sy:.1f} Q {bx:.1f} {by:.1f} {ex:.1f} {ey:.1f}")
    return " ".join(words)


def _towards(start: Point, end: Point) -> Point:
    """The point a corner's radius away from ``start``, at most half way to ``end``."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = abs(dx) + abs(dy)
    share = min(_RADIUS, length / 2) / length if length else 0.0
    return start[0] + dx * share, start[1] + dy * share
