"""The charts of a comparison, as inline SVG; rows are numbered as in its table."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.comparing.nouns import Kind, Row, Time
from pipeline.comparing.wording import known, unit
from pipeline.report.drawing import FAINT, FIRST, INK, LINE, SECOND, THIRD, blank, legend, style, svg

PARTS = (("NPU or GPU", FIRST, "npu_ms"), ("CPU", SECOND, "cpu_ms"), ("crossings", THIRD, "crossing_ms"),
         ("launches", FAINT, "launch_ms"))  # fmt: skip
"""Of a time: name, colour, attribute of ``Time``."""

Numbered = tuple[int, Row]

NAMES = 1.9
"""Inches for names at the left."""

HEIGHT = 0.21
"""Inches for a row."""

OFFSETS = (9, -9, 18, -18)
"""Points above a dot for its number, in turns, so that neighbours do not cover each other."""


def times(rows: Sequence[Numbered]) -> str:
    """Milliseconds with their bands, on a logarithmic axis, and beside it what they are made of, in per cent."""
    timed = [(number, row, row.time) for number, row in reversed(rows) if row.time is not None]
    with style("times"):
        figure, axes, shares = _two(len(timed))
        for place, (_, row, time) in enumerate(timed):
            colour = SECOND if row.kind is Kind.CPU else FIRST
            axes.hlines(place, time.low_ms, time.high_ms, color=colour, linewidth=1.6)
            axes.plot([time.ms], [place], "s" if row.kind is Kind.CPU else "o", color=colour, markersize=4.5)
            _stack(shares, place, time)
            shares.annotate(f"{known(time.ms)} ms", (100, place), (5, 0), textcoords="offset points", va="center")
        _names(axes, [(number, row) for number, row, _ in timed])
        _milliseconds(axes)
        axes.grid(axis="x")
        axes.set_xlabel("ms, with the band in which the truth is expected")
        shares.set(xlim=(0, 128), yticks=[], xticks=range(0, 101, 25), xlabel="what the ms are made of, per cent")
        shares.set_ylim(*axes.get_ylim())
        shares.tick_params(length=0)
        for name, colour, _ in PARTS:
            shares.barh([-9], [0], color=colour, label=name)
        shares.legend(
            frameon=False, loc="lower right", ncols=4, bbox_to_anchor=(1, 1), borderaxespad=0.2, handlelength=1.0,
            columnspacing=1.0, handletextpad=0.4,
        )  # fmt: skip
        return svg(figure, "Milliseconds of each device with its band, and what they are made of")


def coverage(rows: Sequence[Numbered]) -> str:
    """The MACs that each NPU or GPU runs, and those that it could take, in per cent."""
    devices = [(number, row) for number, row in reversed(rows) if row.kind is not Kind.CPU]
    with style("coverage"):
        figure, axes = blank(5.4, 0.75 + HEIGHT * len(devices), left=NAMES)
        for place, (_, row) in enumerate(devices):
            axes.barh(place, 100 * row.taken, 0.62, fill=False, edgecolor=FAINT, linewidth=1)
            axes.barh(place, 100 * row.coverage, 0.62, color=FIRST)
            end = 100 * max(row.taken, row.coverage)
            axes.annotate(f"{100 * row.coverage:.1f}", (end, place), (4, 0), textcoords="offset points", va="center")
        _names(axes, devices)
        axes.barh([-9], [0], color=FIRST, label="runs there")
        axes.barh([-9], [0], fill=False, edgecolor=FAINT, label="could, but is faster or allowed only on the CPU")
        axes.set(xlim=(0, 112), xticks=range(0, 101, 25), xlabel="per cent of the MACs")
        axes.grid(axis="x")
        legend(axes)
        return svg(figure, "Part of the MACs that each device runs")


def accuracy(rows: Sequence[Numbered], floating: float) -> str:
    """AP50 of int8 over milliseconds, by number of the row; the float model's AP50 as a line."""
    known_rows = [(n, row.time.ms, 100 * row.accuracy.ap50) for n, row in rows if row.time and row.accuracy]
    levels = sorted({ap for _, _, ap in known_rows} | {100 * floating})
    spread = max(levels[-1] - levels[0], 1.0)
    with style("accuracy-ms"):
        figure, axes = blank(5.4, 3.4)
        axes.axhline(100 * floating, color=LINE, linewidth=1.2, linestyle="--")
        for level in levels:
            same = sorted((ms, n) for n, ms, ap in known_rows if ap == level)
            for index, (ms, number) in enumerate(same):
                axes.plot([ms], [level], "o", color=FIRST, markersize=5)
                shift = (0, OFFSETS[index % len(OFFSETS)])
                axes.annotate(str(number), (ms, level), shift, textcoords="offset points", ha="center", va="center")
        _milliseconds(axes)
        axes.set_ylim(levels[0] - 0.35 * spread, levels[-1] + 0.35 * spread)
        axes.grid(axis="both")
        axes.tick_params(length=0)
        axes.set(xlabel="ms, estimated", ylabel="AP50, per cent, measured")
        axes.set_title(f"dashed: the float model, {100 * floating:.2f}", fontsize=8, loc="left", color=FAINT)
        return svg(figure, "AP50 of int8 over milliseconds")


def _milliseconds(axes: Axes) -> None:
    """A logarithmic axis along the bottom."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, position: "")


def _two(rows: int) -> tuple[Figure, Axes, Axes]:
    """A figure with room for names, and two axes side by side."""
    width, height = 9.6, 0.75 + HEIGHT * rows
    figure = Figure(figsize=(width, height))
    bottom, tall = 0.42 / height, 1 - 0.68 / height
    first = figure.add_axes((NAMES / width, bottom, 3.7 / width, tall))
    return figure, first, figure.add_axes((5.85 / width, bottom, 3.65 / width, tall))


def _stack(axes: Axes, place: int, time: Time) -> None:
    """The parts of ``time`` as a bar of 100 per cent."""
    start = 0.0
    for _, colour, attribute in PARTS:
        share = 100 * getattr(time, attribute) / time.ms
        axes.barh(place, share, 0.62, left=start, color=colour)
        start += share


def _names(axes: Axes, rows: Sequence[Numbered]) -> None:
    """Numbers and names at the left, from below."""
    axes.set_yticks(range(len(rows)), [f"{unit(row)}  {number}" for number, row in rows], color=INK, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(length=0, which="both")
