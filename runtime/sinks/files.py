"""Events as lines of a file: JSON (``.jsonl``) or comma-separated values (``.csv``)."""

import csv
import errno
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from runtime.events import FIELDS, Event
from runtime.sinks import SinkError


def json_line(event: Event) -> str:
    """An event as a line of JSON, every field in it."""
    return json.dumps(event.facts(), ensure_ascii=False) + "\n"


def csv_line(event: Event) -> str:
    """An event as a line of CSV, the fields in the order of ``FIELDS``; what does not apply is empty."""
    facts = event.facts()
    return _row([facts[name] for name in FIELDS])


def _row(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    return text.getvalue()


_NO_DISK = (errno.EINVAL, errno.ENOTSUP)
"""What a pipe or a device says when it is flushed."""

CSV_HEAD = _row(FIELDS)
"""The first line of a CSV file."""


class LineSink:
    """Appends a line per event, each once: the mark is the length of the file, and what is behind it is cut off."""

    def __init__(self, path: Path, line: Callable[[Event], str], head: str = "") -> None:
        """Write to ``path``, which is opened later; ``head`` comes first in a new file."""
        self.name = f"file:{path.absolute()}"
        self._path, self._line, self._head = path, line, head
        self._file: IO[bytes] | None = None

    def open(self, mark: int | None) -> int:
        """Open the file, or make it, and cut off what is behind ``mark``; with no mark go on after what it has.

        Raises:
            SinkError: it cannot be written, or is shorter than ``mark``, so somebody changed it.
        """
        self.close()
        try:
            self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
            size = self._file.seek(0, os.SEEK_END)
            if 0 < size < (mark or 0):
                fact = f"has {size} bytes, of {mark} that were written"
                raise SinkError(fact, where=self._path, fix="move it away, a new one is begun then")
            if mark is not None and size:
                self._file.truncate(mark)
            return min(size, mark or size) or self._append(self._head)
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror}", where=self._path) from error

    def deliver(self, events: Sequence[Event]) -> int:
        """Append events, and see them onto the disk.

        Raises:
            SinkError: the disk is full or fails; a part that was written is cut off again.
        """
        try:
            return self._append("".join(map(self._line, events)))
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror}", where=self._path) from error

    def _append(self, text: str) -> int:
        assert self._file is not None
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            _flush(self._file)
        except OSError:
            self._file.truncate(end)  # a part of a line, on a full disk
            raise
        return end + len(text.encode())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _flush(file: IO[bytes]) -> None:
    """See a file onto the disk, where it lies on one."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_DISK:
            raise
