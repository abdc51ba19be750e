"""A use case's YAML file and the ``--set`` options, checked and resolved; every mistake is told at once."""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline import configerrors, yamltree
from pipeline.config import FOLDERS, RunConfig
from pipeline.errors import ConfigError
from pipeline.yamltree import Document, Keys

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration.

    Attributes:
        path: the file it came from.
        config: with every path resolved against the file's folder.
        settings: every setting, defaults included, as plain values by dotted name; paths as they were written.
        files: the files and folders that settings name, resolved, by dotted name of the setting.
        digest: SHA-256 of the settings but for ``tracking``; the same wherever the repository lies.
    """

    path: Path
    config: RunConfig
    settings: Mapping[str, Any]
    files: Mapping[str, Path]
    digest: str


def load(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read the use case in ``path``; each override is ``section.key=value`` with a YAML value.

    Raises:
        ConfigError: the file cannot be read or is not YAML, or settings are unknown, missing, said twice or
            have impossible values; one line for each.
    """
    document = yamltree.read(path)
    origins = _override(document.values, overrides)
    if document.values.get("tracking") is False:  # YAML reads off as false
        document.values["tracking"] = "off"
    try:
        written = RunConfig.model_validate(document.values)
    except ValidationError as error:
        raise _report(path, document, origins, error) from None
    settings = dict(flatten(written))
    return LoadedConfig(
        path=path,
        config=_resolve(written, path.parent.absolute()),
        settings=settings,
        files={name: path.parent.absolute() / file for name, file in _paths(written)},
        digest=_digest({k: v for k, v in settings.items() if k.partition(".")[0] != "tracking"}),
    )


def missing_files(loaded: LoadedConfig) -> list[str]:
    """A line for each file or folder that the configuration names and that does not exist or is the other of both."""
    return [
        f"{loaded.path}: {name} is {loaded.settings[name]}, which {problem}"
        for name, file in loaded.files.items()
        if (problem := _unusable(file, name in FOLDERS))
    ]


def schema() -> str:
    """The JSON schema of a use case, as text that ends with a newline."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunConfig.model_json_schema()}
    return json.dumps(document, indent=2) + "\n"


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a section as ``(dotted name, plain value)``; lists stay whole, paths become text."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, _plain(value)


def covers(sections: Sequence[str], name: str) -> bool:
    """Whether one of the dotted ``sections`` is the setting ``name`` or holds it."""
    return any(name == section or name.startswith(f"{section}.") for section in sections)


def narrow(section: Model, wanted: Sequence[str], prefix: str = "") -> Model:
    """The same section without the settings that ``wanted`` does not cover.

    Reading one of those raises ``AttributeError``: a stage whose result depends on a setting that its key does not
    hold would be taken for fresh when it is stale.
    """
    copy = section.model_copy()
    for name in type(section).model_fields:
        path, value = prefix + name, getattr(section, name)
        if covers(wanted, path):
            continue
        if isinstance(value, BaseModel) and any(each.startswith(f"{path}.") for each in wanted):
            copy.__dict__[name] = narrow(value, wanted, f"{path}.")
        else:
            del copy.__dict__[name]
    return copy


def _unusable(file: Path, folder: bool) -> str | None:
    """What is wrong with a file, or a ``folder``; ``None`` when nothing is."""
    try:
        found = stat.S_ISDIR(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist (paths are relative to this file)"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return f"cannot be a path: {error}"
    if found == folder:
        return None
    return "is a folder (name a file in it)" if found else "is a file (name the folder it lies in)"


def _plain(value: object) -> object:
    """``value`` as JSON can say it."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _resolve(section: Model, folder: Path) -> Model:
    """The same section with every path resolved against ``folder``."""
    update: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            update[name] = folder / value
        elif isinstance(value, BaseModel):
            update[name] = _resolve(value, folder)
    return section.model_copy(update=update)


def _paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            yield prefix + name, value
        elif isinstance(value, BaseModel):
            yield from _paths(value, f"{prefix}{name}.")


def _override(values: dict[str, Any], overrides: Sequence[str]) -> dict[Keys, str]:
    """Put each override into ``values``; where each came from, by keys.

    Raises:
        ConfigError: an override has no ``=`` or no key, its value is not YAML, or it goes through a plain value.
    """
    origins: dict[Keys, str] = {}
    for text in overrides:
        where = f"--set {text}"
        name, equals, value = text.partition("=")
        keys = tuple(name.strip().split("."))
        if not equals or not all(keys):
            raise ConfigError("is not an override", where=where, fix="write --set section.key=value")
        section = values
        for depth, key in enumerate(keys[:-1]):
            inner = section.get(key)
            if inner is None or inner is False or inner == "off":
                inner = section[key] = {}
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"{'.'.join(keys[: depth + 1])} is {yamltree.kind(inner)}, not a section", where=where
                )
            section = inner
        section[keys[-1]] = _value(value, where)
        origins[keys] = where
    return origins


def _value(text: str, where: str) -> object:
    try:
        return yamltree.value(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError("the value is not valid YAML", where=where, fix="quote it") from None


def _report(path: Path, document: Document, origins: Mapping[Keys, str], error: ValidationError) -> ConfigError:
    """One error that tells every problem, each with its file and line or its ``--set``."""
    problems = []
    for problem in configerrors.explain(error, RunConfig):
        where, place = _origin(problem.keys, path, document, origins)
        problems.append(ConfigError(problem.what, where=where, fix=problem.fix).args[0] + place)
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError("\n".join(problems))


def _origin(keys: Keys, path: Path, document: Document, origins: Mapping[Keys, str]) -> tuple[str, str]:
    """The file or ``--set`` that says ``keys``, and the line in words."""
    for length in range(len(keys), 0, -1):
        if keys[:length] in origins:
            return origins[keys[:length]], ""
    line = document.lines.get(keys)
    return str(path), f" at line {line}" if line else ""
