"""Images per second against images at a time and threads, as rows and as a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pipeline.benches.rows import Row
from pipeline.benches.subjects import Subject, batched, subject
from pipeline.benches.timing import contest, repeated
from pipeline.report.drawing import FIRST, SECOND, alone, style, svg
from pipeline.targets.profile import Target
from pipeline.workspace import Progress

BATCHES = (1, 2, 4, 8)
THREADS = (1, 2)
ROUNDS = 3
IMAGES = 16
"""That a contender runs before the next one's turn."""

Line = tuple[str, int]
"""Contender and its threads."""


@dataclass(frozen=True)
class Curve:
    """A model's images per second: by contender and threads, one per ``BATCHES``."""

    name: str
    lines: Mapping[Line, Sequence[float]]


def rows(subjects: Sequence[Subject], target: Target, picture: Path, progress: Progress) -> Iterator[Row]:
    """A row for each model and number of threads, and the picture."""
    progress.start(len(subjects) * len(BATCHES) * len(THREADS), "throughput")
    curves = [measure(each, target, progress) for each in subjects]
    for curve in curves:
        for (contender, threads), values in curve.lines.items():
            how = f"{contender}, {threads} thread{'s' * (threads > 1)}, "
            how += f"{', '.join(map(str, BATCHES))} images at a time"
            yield Row(f"{curve.name}: images per second", " ".join(f"{value:.0f}" for value in values), how)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(draw(curves), encoding="utf-8")
    yield Row("images per second, drawn", str(len(curves)), str(picture))


def measure(one: Subject, target: Target, progress: Progress) -> Curve:
    """The simulated NPU and ONNX Runtime's int8 session, in turn, for every batch and number of threads."""
    lines: dict[Line, list[float]] = {}
    for size in BATCHES:
        many = one if size == 1 else subject(one.name, batched(one.model, size), target)
        inputs = many.integers()
        for threads in THREADS:
            session, real = many.session(threads)
            device, count = many.device(threads), IMAGES // size
            jobs = {
                "simulated NPU": repeated(partial(device.run, inputs), count),
                "ONNX Runtime int8": repeated(partial(session.run, None, real), count),
            }
            for name, times in contest(jobs, ROUNDS).items():
                lines.setdefault((name, threads), []).append(IMAGES / min(times))
            progress.advance()
    return Curve(one.name, lines)


def draw(curves: Sequence[Curve]) -> str:
    """The curves side by side, as an SVG file."""
    with style("throughput"):
        figure = Figure(figsize=(max(3.6 * len(curves), 5.2), 3.1))
        width = 1 / len(curves)
        for place, curve in enumerate(curves):
            _panel(figure.add_axes((place * width + 0.16 * width, 0.14, 0.8 * width, 0.66)), curve)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="upper left", ncols=2)
        return alone(svg(figure, "Images per second against images at a time and threads"))


def _panel(axes: Axes, curve: Curve) -> None:
    for (contender, threads), values in curve.lines.items():
        colour = FIRST if contender == "simulated NPU" else SECOND
        label = f"{contender}, {threads} thread{'s' * (threads > 1)}"
        axes.plot(BATCHES, values, "-o" if threads > 1 else "--s", color=colour, markersize=4, label=label)
    axes.set_title(curve.name, loc="right", fontsize=9)
    axes.set(xscale="log", ylim=(0, 1.1 * max(max(values) for values in curve.lines.values())))
    axes.set(xlabel="images at a time", ylabel="images per second, host")
    axes.set_xticks(BATCHES, [str(size) for size in BATCHES])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y")
    axes.tick_params(length=0)
