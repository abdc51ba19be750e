"""What was measured: an entry and a peak, and the file that keeps them so that nothing is measured twice or lost.

One JSON object per line, appended as soon as it is known, by any number of processes side by side. A measurement holds
as long as all that it rests on is the same; what is measured again stands below what it replaces.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.benches.quantization.child import Failure, Spent
from pipeline.benches.quantization.contenders import Scheme
from pipeline.benches.quantization.judge import Judgement
from pipeline.errors import UserError

What = tuple[str | int, ...]
"""What is measured, without what comes of it."""


@dataclass(frozen=True)
class Entry:
    """One quantization: who did what, and what came of it.

    Attributes:
        seed: of the draw of calibration images.
        floating: the float model's points.
        spent: time and memory, or why there is nothing to judge.
        judgement: ``None`` when there is nothing to judge.
    """

    case: str
    metric: str
    scheme: Scheme
    contender: str
    seed: int
    floating: float
    spent: Spent | Failure
    judgement: Judgement | None


@dataclass(frozen=True)
class Peak:
    """The most memory that a contender held with so many calibration images; or why it failed."""

    contender: str
    images: int
    spent: Spent | Failure


@dataclass(frozen=True)
class Basis:
    """What a measurement rests on; all but ``tools`` are SHA-256 in hexadecimal digits.

    Attributes:
        model: of the float file.
        images: of the calibration images.
        evaluation: of the inputs to measure with, and of what the float model makes of them; empty of a peak.
        code: of this project's source files that measure.
        tools: versions of the libraries that quantize and run, and the target's profile.
    """

    model: str
    images: str
    evaluation: str
    code: str
    tools: str


@dataclass(frozen=True)
class Line:
    """A line of the file: a measurement and what it rests on."""

    basis: Basis
    found: Entry | Peak

    @property
    def what(self) -> What:
        """What was measured, whatever came of it."""
        if isinstance(self.found, Peak):
            return peak_of(self.found.contender, self.found.images)
        return entry_of(self.found.case, self.found.scheme, self.found.contender, self.found.seed)


def entry_of(case: str, scheme: Scheme, contender: str, seed: int) -> What:
    """What names an entry."""
    return case, scheme, contender, seed


def peak_of(contender: str, images: int) -> What:
    """What names a peak."""
    return contender, images


def read(path: Path) -> Sequence[Line]:
    """The lines of ``path``, oldest first; none without a file. What a kill cut off is left out.

    Raises:
        UserError: it cannot be read.
    """
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=path) from error
    return tuple(line for text in texts if text and (line := _line(text)) is not None)


def append(path: Path, line: Line) -> None:
    """Write ``line`` behind what ``path`` has, whole or not at all for other processes that do the same.

    On a full disk the file stays as it was.

    Raises:
        UserError: it cannot be written.
    """
    kind = "peak" if isinstance(line.found, Peak) else "entry"
    text = json.dumps({"basis": asdict(line.basis), kind: asdict(line.found)}).encode() + b"\n"
    with locked(path) as file:
        try:
            end = os.lseek(file, 0, os.SEEK_END)
            cut_off = end > 0 and os.pread(file, 1, end - 1) != b"\n"
            data = b"\n" + text if cut_off else text
            if os.write(file, data) < len(data):
                os.ftruncate(file, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(path, error) from error


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """The file ``path``, created if it is not there, open for appending and this process's alone until the end.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot be written: {error.strerror or error}", where=path)


def _line(text: bytes) -> Line | None:
    try:
        values = json.loads(text)
        found = _entry(values["entry"]) if "entry" in values else _peak(values["peak"])
        return Line(Basis(**values["basis"]), found)
    except (ValueError, TypeError, KeyError):
        return None


def _entry(values: Mapping[str, Any]) -> Entry:
    judged = values["judgement"]
    judgement = None if judged is None else Judgement(**judged | {"replicates": tuple(judged["replicates"])})
    return Entry(**{**values, "spent": _spent(values["spent"]), "judgement": judgement})


def _peak(values: Mapping[str, Any]) -> Peak:
    return Peak(**{**values, "spent": _spent(values["spent"])})


def _spent(values: Mapping[str, Any]) -> Spent | Failure:
    return Failure(**values) if "reason" in values else Spent(**values)
