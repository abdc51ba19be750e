"""What a stage's result depends on, and why the result on disk is stale."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from pipeline import sources
from pipeline.configfile import LoadedConfig, covers, flatten
from pipeline.digests import Digests
from pipeline.errors import UserError
from pipeline.targets import inheritance
from pipeline.workspace import DamagedRecordError, Key, Record, Workspace, without

_REREAD_BELOW = 64 * 2**20
"""Outputs smaller than this, in bytes, are read at every run; larger ones when size or times changed."""

_REASONS_SHOWN = 3

_FACTORY = "train.model.factory"


@dataclass(frozen=True)
class Bound:
    """A setting that says how long a stage may take, and nothing of what it looks for.

    Attributes:
        setting: its dotted name; where nothing else changed, the stage goes on with what its last result left.
        untried: the metric that counts what the bound left out; a result without it is the same with any other bound.
    """

    setting: str
    untried: str


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: its name, its folder's name, and the prefix of its metrics.
        module: what holds its ``run(context) -> Result``; imported only when the stage has to run.
        sections: the parts of the configuration it reads, dotted; ``target`` also stands for the target's profile,
            ``target.quantization`` and ``target.contract`` for these parts of it alone, ``host`` for that of its host.
        after: the earlier stages whose files it reads.
        libraries: the distributions whose versions may change its result.
        packs: packages of the project whose source files it copies into its result, imported or not.
        resumes: whether it goes on with what an earlier try with the same key left; any other starts from nothing.
        together: whether every process that ``torchrun`` started takes part; the others are the first one's.
        switches: a setting, its value, and the parts of the configuration that it reads too where that is so.
        bound: on its time, if it has one.
        ahead: whether its module has ``ahead(context)``, which raises before an earlier stage runs what the stage would
            refuse after it.
    """

    name: str
    module: str
    sections: tuple[str, ...]
    after: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()
    together: bool = False
    resumes: bool = False
    switches: tuple[tuple[str, object, tuple[str, ...]], ...] = ()
    bound: Bound | None = None
    ahead: bool = False

    def under(self, settings: Mapping[str, object]) -> "Stage":
        """The stage as ``settings`` make it: with all the sections that it reads."""
        more = [name for switch, value, names in self.switches if settings.get(switch) == value for name in names]
        return replace(self, sections=(*self.sections, *more))


@dataclass(frozen=True)
class Profiles:
    """The files of the target's profile and of its host's, ``None`` when nothing is known of the host."""

    target: Path
    host: Path | None = None


@dataclass(frozen=True)
class Assessment:
    """Whether a stage has to run.

    Attributes:
        key: what its result depends on, now.
        reasons: why the result on disk will not do; empty when it is fresh.
        record: the record of the result on disk, if there is a readable one.
    """

    key: Key
    reasons: tuple[str, ...]
    record: Record | None

    @property
    def fresh(self) -> bool:
        """Whether the result on disk will do."""
        return not self.reasons

    @property
    def why(self) -> str:
        """The reasons in one line."""
        return "; ".join(self.reasons)

    @property
    def brief(self) -> str:
        """The first reasons in one line, and how many more there are."""
        more = len(self.reasons) - _REASONS_SHOWN
        return self.why if more <= 0 else f"{'; '.join(self.reasons[:_REASONS_SHOWN])}; and {more} more"


class Assessor:
    """Compares what stages depend on now with what their records say."""

    def __init__(
        self, loaded: LoadedConfig, workspace: Workspace, digests: Digests, profiles: Profiles, stages: Sequence[Stage]
    ) -> None:
        """``profiles`` are those of the target and its host.

        The code of all ``stages`` is read now: what changes while a run lasts is not what the run has imported.
        """
        self._loaded = loaded
        self._workspace = workspace
        self._digests = digests
        self._profiles = profiles
        self._imports: dict[Path, tuple[str, ...]] = {}
        self._code = {stage.name: self._read_code(stage) for stage in stages}

    def assess(self, stage: Stage, forced: str | None = None) -> Assessment:
        """Whether ``stage`` has to run; ``forced`` is a reason that needs no other.

        Raises:
            UserError: a file that the stage reads is missing or cannot be read, or the target's profile is wrong.
        """
        key = self._key(stage)
        try:
            record = self._workspace.record(stage.name)
        except DamagedRecordError as error:
            return Assessment(key, (str(error),), None)
        reasons = [forced] if forced else []
        if record is not None:
            reasons += [*_changes(stage, record, key), *self._damage(stage.name, record)]
        elif not self._workspace.interrupted(stage.name):
            reasons.append("never run")
        if (record is None or reasons) and self._workspace.interrupted(stage.name):
            busy = self._workspace.busy()
            reasons.append("another run is at work on it" if busy else "the last run was interrupted")
        return Assessment(key, tuple(reasons), record)

    def _key(self, stage: Stage) -> Key:
        stage = stage.under(self._loaded.settings)
        settings = {**self._loaded.settings, **self._arithmetic(stage)}
        return {
            "settings": {name: value for name, value in settings.items() if covers(stage.sections, name)},
            "inputs": dict(self._inputs(stage)),
            "code": self._code[stage.name],
            "libraries": {name: _version(name) for name in stage.libraries},
        }

    def _arithmetic(self, stage: Stage) -> Mapping[str, object]:
        """What the target's profile says of its integers, by dotted name, for a stage that reads no more of it."""
        if not any(section.startswith("target.") for section in stage.sections):
            return {}
        from pipeline.targets import library  # noqa: PLC0415 (imports onnx)

        return dict(flatten(library.load(self._profiles.target).arithmetic(), "target"))

    def _inputs(self, stage: Stage) -> Iterator[tuple[str, str]]:
        """The digest of each file and folder that the stage reads, by the name that a reason gives it."""
        for name, file in self._loaded.files.items():
            if covers(stage.sections, name):
                yield f"{self._loaded.settings[name]} ({name})", self._digest(file, name)
        if "target" in stage.sections:
            target = self._profiles.target
            yield f"the target's profile {target.name}", self._digest(target, "target")
            for file in inheritance.files(target)[1:]:
                yield f"the target's profile {file.name}", self._digest(file, "target")
        if "host" in stage.sections and self._profiles.host is not None:
            host = self._profiles.host
            yield f"the host's profile {host.name}", self._digest(host, "partition.host")
        for name in stage.after:
            try:
                record = self._workspace.record(name)
            except DamagedRecordError:
                record = None
            for path, output in (record.outputs if record else {}).items():
                yield f"{name}/{path}", output.sha256

    def _digest(self, file: Path, setting: str) -> str:
        try:
            return self._digests.tree(file)
        except OSError as error:
            raise UserError(
                f"{setting} is {file}, which cannot be read: {error.strerror}", where=self._loaded.path
            ) from error

    def _read_code(self, stage: Stage) -> dict[str, str]:
        """The digest of each source file that the stage runs, the user's model factory included."""
        modules = [stage.module]
        if covers(stage.sections, _FACTORY):
            modules.append(str(self._loaded.settings[_FACTORY]).partition(":")[0])
        roots = [sources.project(), *filter(None, map(sources.locate, modules))]
        files = {**sources.walk(modules, roots, self._imports), **sources.packed(stage.packs)}
        return {name: self._digests.file(path) for name, path in files.items()}

    def _damage(self, name: str, record: Record) -> Iterator[str]:
        """A reason for each output that is not what the stage wrote."""
        for path, output in record.outputs.items():
            file = self._workspace.stage(name) / path
            try:
                size = file.stat().st_size
                same = size == output.size and (self._digests.file(file, reread=size < _REREAD_BELOW) == output.sha256)
            except OSError:
                yield f"output {path} is missing"
                continue
            if not same:
                yield f"output {path} changed on disk"


def _changes(stage: Stage, record: Record, key: Key) -> list[str]:
    """Why the result does not do any more; a bound that left nothing out may be another one."""
    bound = stage.bound
    if bound is None or record.metrics.get(bound.untried, 0):
        return changes(record.key, key)
    return changes(*(without(each, bound.setting) for each in (record.key, key)))


def changes(old: Key, new: Key) -> list[str]:
    """A reason for each thing that a result depended on and that is no longer so."""
    reasons = []
    for group, phrase in _PHRASES.items():
        before, now = old.get(group, {}), new.get(group, {})
        for name in dict.fromkeys([*now, *before]):
            if name not in before:
                reasons.append(f"{name} is new")
            elif name not in now:
                reasons.append(f"{name} is gone")
            elif before[name] != now[name]:
                reasons.append(phrase.format(name=name, old=_short(before[name]), new=_short(now[name])))
    return reasons


_PHRASES: Mapping[str, str] = {
    "settings": "{name} changed {old} -> {new}",
    "inputs": "{name} changed",
    "code": "{name} changed",
    "libraries": "{name} {old} -> {new}",
}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
