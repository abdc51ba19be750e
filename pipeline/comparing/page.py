"""A comparison as a page: one HTML file that needs nothing else, with plots, the table and what its figures rest on."""

from collections import Counter
from pathlib import Path

import jinja2
from markupsafe import Markup

from pipeline.comparing import charts, wording
from pipeline.comparing.nouns import Comparison, Kind, Row, Worth
from pipeline.errors import UserError
from pipeline.files import write_atomically
from pipeline.report.formats import count, percent, plain

MOODS = {Worth.YES: "good", Worth.NO: "bad", Worth.UNCERTAIN: "open", Worth.UNKNOWN: "open", None: ""}


def write(path: Path, comparison: Comparison) -> None:
    """Write the page; raises ``UserError`` when ``path`` cannot be written."""
    try:
        write_atomically(path, page(comparison).encode())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", where=path) from error


def page(comparison: Comparison) -> str:
    """The whole page; the same comparison gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("pipeline.comparing", ""), jinja2.PackageLoader("pipeline.report", "")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (wording.known, wording.band, wording.worth, wording.unit, wording.partitions, wording.coverage,
             wording.energy, wording.per_watt)  # fmt: skip
    environment.filters.update({each.__name__: each for each in (*words, wording.accuracy, percent, count, plain)})
    numbered = list(enumerate(comparison.rows, 1))
    floating = comparison.accuracy
    scored = floating is not None and any(row.accuracy and row.time for row in comparison.rows)
    return environment.get_template("compare.html").render(
        comparison=comparison,
        numbered=numbered,
        verdict=_verdict(comparison),
        moods=MOODS,
        tiles=_tiles(comparison),
        times=Markup(charts.times(numbered)) if any(row.time for row in comparison.rows) else None,
        coverage=Markup(charts.coverage(numbered)),
        accuracy=Markup(charts.accuracy(numbered, floating.ap50)) if floating is not None and scored else None,
    )


def _verdict(comparison: Comparison) -> str:
    """Whether the NPUs are worth it, counted."""
    npus = [row for row in comparison.rows if row.kind is Kind.NPU]
    found = Counter(row.worth for row in npus)
    answers = (
        (Worth.YES, "faster than their CPU beyond doubt"),
        (Worth.UNCERTAIN, "perhaps faster"),
        (Worth.NO, "not worth it"),
        (Worth.UNKNOWN, "with too little public to say"),
    )
    told = ", ".join(f"{found[worth]} {words}" for worth, words in answers if found[worth])
    return f"Of {len(npus)} NPUs: {told}." if npus else "No NPU was asked for."


def _tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What each tile is about, its value, and what to know of it."""
    tiles = [("Operators", count(comparison.operators), f"{count(comparison.macs)} MACs per inference")]
    if comparison.accuracy is not None:
        tiles.append(("AP50, float", percent(comparison.accuracy.ap50, 2), "measured, before quantization"))
    real = [row for row in comparison.rows if not row.hypothetical]
    for label, attribute in (("Most fps", "fps"), ("Most fps per watt", "fps_per_watt"),
                             ("Most fps per dollar", "fps_per_dollar")):  # fmt: skip
        best = _best(real, attribute)
        value = None if best is None else getattr(best, attribute)
        tiles.append((label, wording.known(value), "no figure is public" if best is None else best.name))
    return tiles


def _best(rows: list[Row], attribute: str) -> Row | None:
    """The NPU with the most of ``attribute``."""
    known = [row for row in rows if row.kind is Kind.NPU and getattr(row, attribute) is not None]
    return max(known, key=lambda row: float(getattr(row, attribute)), default=None)
