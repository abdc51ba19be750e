"""Where a run keeps its files, and what a stage is given and gives back.

::

    runs/cctv/                 one folder per use case
      train/ ... package/      a stage's files and its record, stage.json; replaced in one step when the stage ends
      .partial/train/          where the stage works; continued after a kill when its key is still the same but for
                               a bound on its time
      .partial/train.key.json  that key
      .partial/train.old/      the replaced folder, for the moment between two renames
      .lock                    held while a run lasts

``stage.json`` is written last, so a folder that has one is complete. ``recover`` finishes what a kill cut off.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import RunConfig
from pipeline.digests import sha256
from pipeline.errors import UserError
from pipeline.files import remove_unfinished, write_atomically

RECORD = "stage.json"
SCHEMA = 1

Key = Mapping[str, Mapping[str, Any]]
"""What a result depends on: groups (settings, inputs, code, libraries) of values by name."""


class Progress(Protocol):
    """What a stage tells while it works; a terminal, a log and MLflow listen."""

    def start(self, total: int, what: str) -> None:
        """Begin counting to ``total``; a second ``start`` replaces the first."""

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more."""

    def message(self, text: str) -> None:
        """Say one line."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Record ``name`` at ``step`` (an epoch, from 0)."""

    def trial(self, what: str, numbers: Mapping[str, float]) -> None:
        """Record something that was tried, with what came of it."""


class Quiet:
    """A ``Progress`` that says nothing; for tests and for library use."""

    def start(self, total: int, what: str) -> None:
        """Say nothing."""

    def advance(self, n: int = 1) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Say nothing."""

    def trial(self, what: str, numbers: Mapping[str, float]) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    Attributes:
        config: the whole configuration; a stage reads only the sections that ``run.STAGES`` names for it.
        out: an existing folder to write into, empty unless an earlier try with the same key was killed.
        inputs: the folder of each earlier stage that this one is ``after``, by name; read only.
        progress: where to tell how far the work is.
        profile: the file of the target's profile.
        host: the file of its host's profile, ``None`` when nothing is known of the host.
        provenance: facts about this run for whoever gets the result: ``config_digest``, ``git_commit``.
    """

    config: RunConfig
    out: Path
    inputs: Mapping[str, Path]
    progress: Progress = field(default_factory=Quiet)
    profile: Path = Path()
    host: Path | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a stage gives back besides the files in ``Context.out``.

    Attributes:
        metrics: numbers by name, without the stage's prefix.
        gates: a sentence for each gate of the configuration that was missed; empty when none was.
    """

    metrics: Mapping[str, float]
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """A file that a stage wrote: its SHA-256 and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Record:
    """What ``stage.json`` says about a result.

    Attributes:
        key: what the result depends on.
        outputs: every file in the folder but the record, by its path in it.
        seconds: how long the work took, the last try only.
        metrics: the stage's numbers.
        gates: a sentence for each gate that was missed.
    """

    key: Key
    outputs: Mapping[str, Output]
    seconds: float
    metrics: Mapping[str, float]
    gates: tuple[str, ...] = ()


class DamagedRecordError(Exception):
    """A ``stage.json`` cannot be read; the stage has to run again."""


class Workspace:
    """The folder of one use case's runs."""

    def __init__(self, folder: Path, elsewhere: Mapping[str, Path] | None = None) -> None:
        """Name the folder, and of stages whose results lie in another one, that; nothing is created before ``open``."""
        self.folder = folder
        self._elsewhere = elsewhere or {}
        self._held = False

    def stage(self, name: str) -> Path:
        """The folder of the stage's last complete result."""
        return self._elsewhere.get(name, self.folder / name)

    def partial(self, name: str) -> Path:
        """The folder in which the stage works."""
        return self.folder / ".partial" / name

    @contextmanager
    def open(self, stages: Sequence[str]) -> Iterator[None]:
        """Create the folder, hold its lock, and finish what an earlier run left between two steps.

        Raises:
            UserError: another run holds the lock, or the folder cannot be written.
        """
        try:
            (self.folder / ".partial").mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("a")
        except OSError as error:
            raise _unusable(self.folder, error) from error
        with lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise UserError(
                    "another run is at work here", where=self.folder, fix="wait for it, or choose another --runs folder"
                ) from None
            self._held = True
            try:
                remove_unfinished(self.folder)
                remove_unfinished(self.folder / ".partial")
                for name in stages:
                    self._recover(name)
            except OSError as error:
                raise _unusable(self.folder, error) from error
            try:
                yield
            finally:
                self._held = False

    def busy(self) -> bool:
        """Whether another run holds the lock; not looked at while this one does, for closing it gives it up."""
        if self._held:
            return False
        try:
            with (self.folder / ".lock").open("r+") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
        return False

    def record(self, name: str) -> Record | None:
        """The record of the stage's last complete result, ``None`` when there is none.

        Raises:
            DamagedRecordError: there is one, but it cannot be read.
        """
        return read_record(self.stage(name))

    def begin(self, name: str, key: Key, resumes: bool = False, bound: str | None = None) -> Path:
        """The folder to work in: what an earlier try with the same key left, if the stage ``resumes``, else empty.

        A setting that is the stage's ``bound`` may be another one; and where no try was cut off, the folder begins with
        the files of the last complete result whose key is the same but for it.
        """
        partial, key_file = self.partial(name), self._key_file(name)
        alike = _alike(_read_json(key_file), key, bound) and not (partial / RECORD).exists()
        if not (resumes and alike):
            self.discard(name)
        if not partial.exists():
            partial.mkdir()
            if bound is not None:
                self._take_over(name, key, bound)
        write_atomically(key_file, json.dumps(key, sort_keys=True).encode())
        return partial

    def _take_over(self, name: str, key: Key, bound: str) -> None:
        """Copy what is intact of the last complete result, if its key is the same but for ``bound``."""
        final = self.stage(name)
        try:
            record = read_record(final)
        except DamagedRecordError:
            return
        if record is None or not _alike(_jsonable(record.key), key, bound):
            return
        for path, output in record.outputs.items():
            if (final / path).is_file() and sha256(final / path) == output.sha256:
                (self.partial(name) / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(final / path, self.partial(name) / path)

    def at_work(self, name: str, key: Key) -> bool:
        """Whether a run has begun the stage with this key and not ended it."""
        return _read_json(self._key_file(name)) == _jsonable(key) and self.partial(name).is_dir()

    def interrupted(self, name: str) -> bool:
        """Whether an earlier try of the stage did not come to its end."""
        return self._key_file(name).exists() and not (self.partial(name) / RECORD).exists()

    def discard(self, name: str) -> None:
        """Forget what an earlier try left."""
        self._key_file(name).unlink(missing_ok=True)
        _remove(self.partial(name))

    def finish(self, name: str, record: Record) -> None:
        """Write the record, which makes the work complete, and put it in the place of the last result."""
        text = json.dumps({"schema": SCHEMA, **_jsonable(asdict(record))}, indent=1, sort_keys=True)
        # beside the folder, so that a kill leaves nothing in it that would pass for an output
        write_atomically(
            self.partial(name) / RECORD, text.encode(), beside=self.folder / ".partial" / f"{name}.{RECORD}"
        )
        self._swap(name)

    def _swap(self, name: str) -> None:
        """Put a complete partial folder in its place; every step can be the last before a kill, see ``_recover``."""
        new, final, old = self.partial(name), self.stage(name), self._old(name)
        _remove(old)
        if final.exists() or final.is_symlink():
            final.rename(old)
        new.rename(final)
        self._key_file(name).unlink(missing_ok=True)
        _remove(old)

    def _recover(self, name: str) -> None:
        """Finish a swap that a kill cut off."""
        partial, final, old = self.partial(name), self.stage(name), self._old(name)
        if (partial / RECORD).exists():
            if old.exists() and not final.exists():
                partial.rename(final)
            else:
                self._swap(name)
        elif old.exists() and not final.exists():
            old.rename(final)
        if final.exists() and not partial.exists():
            self._key_file(name).unlink(missing_ok=True)
        _remove(old)

    def _old(self, name: str) -> Path:
        return self.folder / ".partial" / f"{name}.old"

    def _key_file(self, name: str) -> Path:
        return self.folder / ".partial" / f"{name}.key.json"


def without(key: Key, setting: str | None) -> Key:
    """``key`` without one of its settings."""
    return {**key, "settings": {name: value for name, value in key.get("settings", {}).items() if name != setting}}


def _alike(before: object, key: Key, bound: str | None) -> bool:
    """Whether ``before``, as JSON has it, is ``key`` but for the setting ``bound``."""
    if not isinstance(before, dict) or not isinstance(before.get("settings"), dict):
        return False
    return without(before, bound) == _jsonable(without(key, bound))


def read_record(folder: Path) -> Record | None:
    """The record in ``folder``, ``None`` when there is none.

    Raises:
        DamagedRecordError: there is one, but it cannot be read or has another schema.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_bytes())
        if data.pop("schema") != SCHEMA:
            raise DamagedRecordError(f"{path} was written by another version")
        return Record(
            key={group: dict(values) for group, values in data["key"].items()},
            outputs={name: Output(**output) for name, output in data["outputs"].items()},
            seconds=float(data["seconds"]),
            metrics={name: float(value) for name, value in data["metrics"].items()},
            gates=tuple(map(str, data["gates"])),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedRecordError(f"{path} is damaged") from error


def _unusable(folder: Path, error: OSError) -> UserError:
    fix = "choose another --runs folder"
    return UserError(f"the runs folder cannot be written: {os.strerror(error.errno or 0)}", where=folder, fix=fix)


def _remove(folder: Path) -> None:
    """Delete the folder, or the file or link that lies in its place, if there is one."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def _jsonable(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` as it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _read_json(path: Path) -> object:
    """What the file says, ``None`` when it is missing or damaged."""
    try:
        value: object = json.loads(path.read_bytes())
        return value
    except (OSError, ValueError, RecursionError):
        return None
