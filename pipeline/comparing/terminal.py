"""A comparison for people: one table in stable columns, and below it what its figures leave out."""

from collections.abc import Callable, Iterator

from pipeline.comparing.nouns import Comparison, Row
from pipeline.comparing.wording import accuracy, band, coverage, energy, known, partitions, per_watt, unit, worth
from pipeline.report.formats import count, percent, plural
from runtime.text import printable

Column = tuple[str, Callable[[Row], str]]


def text(comparison: Comparison) -> str:
    """The comparison, without a newline at its end: what is compared, the table, what a reader must know."""
    head = f"{comparison.model}: {plural(comparison.operators, 'operator')}, {count(comparison.macs)} MACs"
    if comparison.accuracy is not None:
        head += f"; AP50 of the float model {percent(comparison.accuracy.ap50, 2)}, measured"
    blocks = ([head], _table(comparison), _legend(comparison))
    return "\n\n".join("\n".join(map(printable, lines)) for lines in blocks)


def _columns(comparison: Comparison) -> list[Column]:
    columns: list[Column] = [
        ("device", unit),
        ("kind", lambda row: str(row.kind).upper()),
        ("MACs on it", coverage),
        ("partitions", partitions),
        ("ms", lambda row: known(row.ms)),
        ("band", band),
        ("fps", lambda row: known(row.fps)),
        ("mJ", energy),
        ("fps/W", per_watt),
        ("fps/$", lambda row: known(row.fps_per_dollar)),
    ]
    if comparison.accuracy is not None:
        columns.append(("AP50 int8", accuracy))
    return [
        *columns,
        ("times", lambda row: row.provenance),
        ("profile", lambda row: row.confidence),
        ("worth it?", worth),
    ]


LEFT = ("device", "kind", "times", "profile", "worth it?")


def _table(comparison: Comparison) -> Iterator[str]:
    columns = _columns(comparison)
    lines = [[name for name, _ in columns], *([cell(row) for _, cell in columns] for row in comparison.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [name in LEFT for name, _ in columns]
    for line in lines:
        cells = (f"{c:<{w}}" if to_left else f"{c:>{w}}" for c, w, to_left in zip(line, widths, left, strict=True))
        yield "  ".join(cells).rstrip()


def _legend(comparison: Comparison) -> Iterator[str]:
    yield "Times are estimated, never measured on a device; partitions in all (on the NPU or GPU)."
    yield "fps/W: inferences per joule; > and < where a power is not known; fps/$: price of 2019 or 2020, host apart."
    timed = [row for row in comparison.rows if row.time is not None]
    for said, lacking in (
        ("Not public, so not in the times", {row.name: row.missing for row in timed}),
        ("Not public, so not in the mJ", {r.name: r.energy_missing for r in timed if r.known_energy_mj}),
    ):
        for figures in dict.fromkeys(filter(None, lacking.values())):
            yield f"{said} ({', '.join(figures)}): {', '.join(n for n, own in lacking.items() if own == figures)}"
    yield from (f"note: {note}" for note in comparison.notes)
