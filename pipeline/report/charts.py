"""The charts of a run's report, as inline SVG."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from pipeline.report.drawing import FIRST, INK, SECOND, blank, legend, style, svg
from pipeline.report.formats import decibel
from pipeline.report.headline import Accuracy
from pipeline.report.results import Epoch, LadderPoint, LayerError, TraceEvent

LOUDEST = 60.0
"""dB; what is better is drawn as this, or layers without any noise would flatten all others."""


def accuracy(forms: Sequence[Accuracy]) -> str:
    """AP50 and AP of each form of the model that was measured, in per cent, as dots on lines from zero."""
    measured = [form for form in reversed(forms) if form.ap50 is not None and math.isfinite(form.ap50)]
    with style("accuracy"):
        figure, axes = blank(4.6, 0.8 + 0.42 * len(measured), left=0.85)
        seen: set[str] = set()
        for row, form in enumerate(measured):
            pairs = ((0.14, form.ap50, "o", FIRST, "AP50"), (-0.14, form.ap, "s", SECOND, "AP"))
            for shift, value, marker, colour, name in pairs:
                if value is None or not math.isfinite(value):
                    continue
                axes.hlines(row + shift, 0, 100 * value, color=colour, linewidth=2)
                dot = axes.plot(100 * value, row + shift, marker, color=colour, markersize=5)[0]
                dot.set_label("_" if name in seen else name)
                seen.add(name)
                axes.annotate(
                    f"{100 * value:.1f}", (100 * value, row + shift), (6, 0), textcoords="offset points", va="center"
                )
        axes.set_yticks(range(len(measured)), [form.form for form in measured], color=INK)
        axes.set(xlim=(0, 112), ylim=(-0.5, len(measured) - 0.5), xticks=range(0, 101, 20), xlabel="per cent")
        axes.grid(axis="x")
        axes.tick_params(length=0)
        legend(axes)
        return svg(figure, "Accuracy of each form of the model")


def losses(epochs: Sequence[Epoch]) -> str:
    """The loss over epochs, counted from 1."""
    with style("losses"):
        figure, axes = _over_epochs(epochs, "loss")
        axes.plot([e.epoch + 1 for e in epochs], [e.loss for e in epochs], "-o", color=FIRST, markersize=3.5)
        axes.set_ylim(bottom=0)
        return svg(figure, "Training loss over epochs")


def scores(epochs: Sequence[Epoch]) -> str:
    """AP50 and AP over epochs, in per cent, the best AP50 marked."""
    with style("scores"):
        figure, axes = _over_epochs(epochs, "per cent")
        numbers = [e.epoch + 1 for e in epochs]
        axes.plot(numbers, [100 * e.ap50 for e in epochs], "-o", color=FIRST, markersize=3.5, label="AP50")
        axes.plot(numbers, [100 * e.ap for e in epochs], "--s", color=SECOND, markersize=3.5, label="AP")
        best = max(epochs, key=lambda e: e.ap50)
        axes.plot(best.epoch + 1, 100 * best.ap50, "o", mfc="none", mec=INK, markersize=9)
        axes.annotate(
            f"{100 * best.ap50:.1f}",
            (best.epoch + 1, 100 * best.ap50),
            (0, 8),
            textcoords="offset points",
            ha="center",
        )
        axes.set_ylim(0, 108)
        legend(axes)
        return svg(figure, "Validation AP50 and AP over epochs")


def noise(rows: Sequence[LayerError]) -> str:
    """Signal to quantization noise of each layer in execution order; the three worst are numbered and named."""
    levels = [min(row.sqnr_db, LOUDEST) if math.isfinite(row.sqnr_db) else 0.0 for row in rows]
    worst = sorted(range(len(rows)), key=lambda index: levels[index])[:3]
    with style("noise"):
        figure, axes = blank(7.2, 2.8)
        colours = [SECOND if index in worst else FIRST for index in range(len(rows))]
        width = max(1.0, min(5.0, 260 / len(rows)))
        axes.vlines(range(1, len(rows) + 1), 0, levels, colors=colours, linewidth=width)
        for place, index in enumerate(worst, 1):
            spot = (index + 1, levels[index])
            axes.annotate(str(place), spot, (0, 3), textcoords="offset points", ha="center")
        names = [f"{n} {_short(rows[i].node)} {decibel(rows[i].sqnr_db)} dB" for n, i in enumerate(worst, 1)]
        axes.set_title(" \N{MIDDLE DOT} ".join(names), fontsize=8, loc="left", color=INK, parse_math=False)
        axes.set(xlim=(0, len(rows) + 1), ylim=(0, (max(levels) or 1) * 1.12), ylabel="SQNR, dB", xlabel="layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.tick_params(length=0)
        return svg(figure, "Signal to quantization noise of each layer, in execution order")


RUNGS: Mapping[str, str] = MappingProxyType({"int8": "o", "per channel": "s", "int16": "^", "cpu": "X"})
"""What quantizations of the ladder are drawn as, by rung; ``int8`` is each that changes no layer's type or place."""
_FAR = 4.0
"""Times that the slowest takes longer than the fastest from which on the axis of time is logarithmic."""


def ladder(points: Sequence[LadderPoint], floor: float | None = None) -> str:
    """Signal to noise against estimated milliseconds of every quantization; the Pareto front is a line.

    ``floor``: the dB to be reached, where the ladder went by them. Raises ``ValueError`` when no time is known.
    """
    known = [(point.ms, point) for point in points if point.ms is not None]
    if not known:
        raise ValueError("no point of the ladder has a known time")
    front = sorted((ms, point.sqnr_db) for ms, point in known if point.front)
    with style("ladder"):
        figure, axes = blank(7.2, 3.2, left=0.6)
        axes.step(*zip(*front, strict=True), where="post", color=INK, linewidth=1.2, label="Pareto front")
        if floor is not None:
            axes.axhline(floor, color=INK, linewidth=1, linestyle=":", label=f"floor, {floor:g} dB")
        for rung, marker in RUNGS.items():
            own = [(ms, point) for ms, point in known if (point.rung if point.rung in RUNGS else "int8") == rung]
            for ms, point in own:
                axes.plot(ms, point.sqnr_db, marker, color=SECOND if point.kept else FIRST, markersize=5.5)
            if own:
                axes.plot([], [], marker, color=FIRST, markersize=5.5, label=rung)
        axes.plot([], [], "o", color=SECOND, markersize=5.5, label="kept")
        if max(ms for ms, _ in known) > _FAR * min(ms for ms, _ in known) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.05, 0.12)
        axes.set(xlabel="ms of one inference, estimated", ylabel="SQNR, dB")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        axes.tick_params(length=0, which="both")
        legend(axes, columns=9)
        return svg(figure, "Signal to noise against estimated time of every quantization that was tried")


ENGINES = ("DMA in", "MAC", "vector", "DMA out")
"""The NPU's engines, from top to bottom."""
_FINEST = 1200
"""Parts of a timeline's width; what lies closer together is drawn as one bar."""


def timeline(events: Sequence[TraceEvent]) -> str:
    """When each engine is busy, in milliseconds from the start of an inference."""
    end = max(event.ts + event.dur for event in events) / 1e3
    with style("timeline"):
        figure, axes = blank(7.2, 2.4, left=0.8)
        for row, engine in enumerate(reversed(ENGINES)):
            bars = _bars([e for e in events if e.cat == engine], end / _FINEST)
            colour = FIRST if engine in ("MAC", "vector") else SECOND
            axes.broken_barh(bars, (row - 0.3, 0.6), facecolors=colour, edgecolors="none")
        axes.set_yticks(range(len(ENGINES)), list(reversed(ENGINES)), color=INK)
        axes.set(xlim=(0, end), ylim=(-0.5, len(ENGINES) - 0.5), xlabel="ms")
        axes.grid(axis="x")
        axes.tick_params(length=0)
        return svg(figure, "When each engine of the NPU is busy during one inference, estimated")


def _bars(events: Sequence[TraceEvent], finest: float) -> list[tuple[float, float]]:
    """Start and length of each bar in milliseconds; nothing is shorter than ``finest``, nor any gap."""
    bars: list[tuple[float, float]] = []
    for event in sorted(events, key=lambda e: e.ts):
        if event.dur <= 0:
            continue
        start, stop = event.ts / 1e3, max((event.ts + event.dur) / 1e3, event.ts / 1e3 + finest)
        if bars and start <= bars[-1][0] + bars[-1][1] + finest:
            start, stop = bars[-1][0], max(stop, bars[-1][0] + bars[-1][1])
            bars.pop()
        bars.append((start, stop - start))
    return bars


def _over_epochs(epochs: Sequence[Epoch], what: str) -> tuple[Figure, Axes]:
    figure, axes = blank(4.6, 2.6)
    axes.set(xlabel="epoch", ylabel=what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.set_xlim(0.5, max(epoch.epoch for epoch in epochs) + 1.5)
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"\N{HORIZONTAL ELLIPSIS}{name[-23:]}"
