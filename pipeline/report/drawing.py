"""Drawing for pages: matplotlib figures as inline SVG; the same input gives the same text, colours are the page's."""

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, LINE, FIRST, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES: Mapping[str, str] = MappingProxyType(
    {INK: "--ink", FAINT: "--faint", LINE: "--line", FIRST: "--first", SECOND: "--second", THIRD: "--third"}
)
"""Stand-ins that become the page's colours, so that a chart follows a light and a dark scheme."""

_STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "svg.fonttype": "none",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": FAINT,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": FAINT,
        "ytick.labelcolor": FAINT,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "path.simplify": False,
    }
)


def style(salt: str) -> AbstractContextManager[None]:
    """Draw in the page's style; ``salt`` makes a chart's identifiers its own, and the same every time."""
    return mpl.rc_context({**_STYLE, "svg.hashsalt": salt})


def blank(width: float, height: float, left: float = 0.5) -> tuple[Figure, Axes]:
    """A figure of so many inches with room for labels at the left, below, and for a legend or title above."""
    right, bottom, top = 0.08, 0.42, 0.25
    figure = Figure(figsize=(width, height))
    room = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(room)


def legend(axes: Axes, columns: int = 2) -> None:
    """Name what is drawn, above the chart at its right, at most so many names in a row."""
    room = {"borderaxespad": 0.2, "handlelength": 1.4, "columnspacing": 1.2}
    axes.legend(frameon=False, loc="lower right", ncols=columns, bbox_to_anchor=(1, 1), **room)


def svg(figure: Figure, label: str) -> str:
    """The figure as an ``<svg>`` element that can stand in a page beside others.

    Colours become the page's variables, the font the page's; no date, no version, no identifier that nothing refers to.
    """
    file = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    text = re.sub(r"font: ?([\d.]+px) '[^;\"]*", r"font-size: \1", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    return re.sub(
        r'<svg width="[^"]*" height="[^"]*"', f'<svg class="chart" role="img" aria-label="{label}"', text, count=1
    )


def alone(element: str) -> str:
    """An ``<svg>`` element of ``svg`` as a file of its own, in the colours of a light page."""
    sheet = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    colours = dict(reversed(re.findall(r"--([\w-]+): (#\w+)", sheet)))  # the first of each name, which is the light one
    text = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], element)
    style = f"background: {colours['paper']}; font-family: sans-serif"
    return text.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" style="{style}" ', 1) + "\n"
