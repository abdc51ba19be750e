"""What a device reports: events, one schema for every sink.

======================  =======================================================================================
``id``                  32 hexadecimal digits; the same event has the same one after every restart and delivery
``kind``                ``crossing`` of a line, ``enter`` or ``leave`` of a zone, ``down`` or ``up`` of a source
``source``              which source, as it is called on the command line
``frame``               the frame, from 0; for ``down`` and ``up`` the next one
``time_s``              seconds after the source's first frame; durations are differences of these
``time``                seconds since 1970 (UTC) when a live frame arrived; ``null`` for a file
``name``                of the line or zone; ``null`` for ``down`` and ``up``
``track``               who, from 0 per source; ``null`` for ``down`` and ``up``
``direction``           of a crossing: ``in`` or ``out``
``dwell_s``             of a leave: seconds from the first to the last frame inside
``occupancy``           of an enter or leave: how many are inside after it
``detail``              of a down: why
======================  =======================================================================================

What does not apply is ``null`` (JSON, SQLite) or empty (CSV). A file's events come out once each, however often the
program is stopped and started again with the same ``--state``. Live events are delivered at least once, and who
counts should count different ids; an ``enter`` without a ``leave`` means that the program was killed in between.
"""

import dataclasses
import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.outputs import FrameResult
from runtime.zones import Happening

Kind = Literal["crossing", "enter", "leave", "down", "up"]


@dataclass(frozen=True)
class Event:
    """One event; the module says what its fields mean."""

    id: str
    kind: Kind
    source: str
    frame: int
    time_s: float
    time: float | None = None
    name: str | None = None
    track: int | None = None
    direction: str | None = None
    dwell_s: float | None = None
    occupancy: int | None = None
    detail: str | None = None

    def facts(self) -> dict[str, object]:
        """The fields by name."""
        return dataclasses.asdict(self)


FIELDS = tuple(field.name for field in dataclasses.fields(Event))
"""The fields in the order of CSV columns."""


def run_of(bundle_sha256: str, source: str, path: Path) -> str:
    """What makes ids of a file's events: the same for the same bundle, source, path, size and date of the file.

    Raises:
        OSError: the file is gone.
    """
    facts = path.stat()
    return _digest(bundle_sha256, source, path.absolute(), facts.st_size, facts.st_mtime_ns)


def new_run() -> str:
    """What makes ids of a live source's events: never the same."""
    return uuid.uuid4().hex


def happened(run: str, source: str, result: FrameResult, item: Happening) -> Event:
    """A track's doing as an event."""
    return Event(
        id=_digest(run, result.index, item.kind, item.name, item.track, item.direction),
        kind=item.kind,
        source=source,
        frame=result.index,
        time_s=round(result.frame.time_s, 6),
        time=None if result.frame.captured is None else round(result.frame.captured, 6),
        name=item.name,
        track=item.track,
        direction=item.direction,
        dwell_s=None if item.dwell_s is None else round(item.dwell_s, 6),
        occupancy=item.occupancy,
    )


def link_changed(
    run: str, source: str, number: int, frame: int, time_s: float, time: float, problem: str | None
) -> Event:
    """A source that came back, or went for ``problem``; ``number`` counts these events of a run."""
    kind: Kind = "up" if problem is None else "down"
    return Event(_digest(run, kind, number), kind, source, frame, round(time_s, 6), round(time, 6), detail=problem)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
