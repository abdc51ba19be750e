"""pydantic's complaints as sentences a user can act on: the setting by its dotted name, the fact, and the fix."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline import yamltree
from pipeline.yamltree import Keys, dotted

_LONGEST = 80
"""Characters of a wrong value that an error shows."""

_MOST_BITS = 256
"""Python refuses to write very large numbers in decimal."""


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        keys: the setting.
        what: the sentence.
        fix: what to do about it, when that is known.
    """

    keys: Keys
    what: str
    fix: str | None = None


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every mistake in ``error``, which validating ``model`` raised; alternatives of a union are joined with *or*."""
    complaints: dict[Keys, list[ErrorDetails]] = {}
    for complaint in error.errors(include_url=False):
        complaints.setdefault(_keys(complaint["loc"], model), []).append(complaint)
    return [
        _problem(keys, group, model)
        for keys, group in complaints.items()
        if not (_alternatives(group) and any(other[: len(keys)] == keys != other for other in complaints))
    ]


def _alternatives(group: Sequence[ErrorDetails]) -> bool:
    """Whether the complaints only say that the value is not one of the listed words."""
    return all(complaint["type"] == "literal_error" for complaint in group)


def _problem(keys: Keys, group: Sequence[ErrorDetails], model: type[BaseModel]) -> Problem:
    complaint = group[0]
    name = dotted(keys)
    if complaint["type"] == "extra_forbidden":
        return Problem(keys, f"{name} is not a setting", _nearest(keys, model))
    if complaint["type"] == "missing":
        return Problem(keys, f"{name} is missing", _description(keys, model))
    if complaint["type"] == "union_tag_not_found":
        return Problem((*keys, "format"), f"{name}.format is missing", f"one of {', '.join(_tags(keys, model))}")
    if complaint["type"] == "union_tag_invalid":
        tags = complaint["ctx"]
        return Problem((*keys, "format"), f"{name}.format is {tags['tag']!r}, not one of {tags['expected_tags']}")
    if complaint["type"] == "value_error":
        return Problem(keys, f"{name} {_demand(complaint)}", _description(keys, model))
    demands = " or ".join(dict.fromkeys(_demand(each) for each in group))
    return Problem(keys, f"{name} {demands}, not {_shown(complaint['input'])}", _description(keys, model))


def _demand(complaint: ErrorDetails) -> str:
    """The complaint's message, as what follows the setting's name."""
    if complaint["type"] in ("model_type", "model_attributes_type"):
        return "should be a mapping of settings"
    if complaint["type"] == "path_type":
        return "should be a path"
    message = str(complaint["msg"])
    for opening in ("Input ", "String ", "Value error, "):
        message = message.removeprefix(opening)
    message = message.replace("tuple", "list")
    return message[0].lower() + message[1:]


def _shown(value: object) -> str:
    if isinstance(value, (dict, list, tuple)) or value is None:
        return yamltree.kind(value)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (str, int, float)) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _nearest(keys: Keys, model: type[BaseModel]) -> str:
    """The setting that was probably meant: the nearest name in the section, or the same name in another one."""
    section = _section(keys[:-1], model)
    names = list(section.model_fields) if section else []
    close = difflib.get_close_matches(str(keys[-1]), names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    elsewhere = [dotted(path) for path in _settings(model) if path[-1] == keys[-1]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"settings here: {', '.join(names)}"


def _description(keys: Keys, model: type[BaseModel]) -> str | None:
    section = _section(keys[:-1], model)
    field = section.model_fields.get(str(keys[-1])) if section else None
    return field.description if field else None


def _settings(model: type[BaseModel], prefix: Keys = ()) -> Iterator[Keys]:
    """The keys of every setting of ``model``."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for inner in _models(field.annotation):
            yield from _settings(inner, (*prefix, name))


def _section(keys: Keys, model: type[BaseModel]) -> type[BaseModel] | None:
    """The section at ``keys``; where several are possible, the first that has the next key."""
    candidates: tuple[type[BaseModel], ...] = (model,)
    for key in keys:
        if isinstance(key, int):
            continue
        fields = [c.model_fields[key] for c in candidates if key in c.model_fields]
        candidates = tuple(inner for field in fields for inner in _models(field.annotation))
    return candidates[0] if candidates else None


def _models(annotation: object) -> tuple[type[BaseModel], ...]:
    """The sections that a field of this type can hold, in lists and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) is Literal:
        return ()
    return tuple(model for inner in get_args(annotation) for model in _models(inner))


def _keys(location: Sequence[str | int], model: type[BaseModel]) -> Keys:
    """pydantic's location without the names of union members that it puts between the keys."""
    keys: list[str | int] = []
    annotation: object = model
    for part in location:
        while get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        if get_origin(annotation) in (Union, UnionType):
            chosen = [each for each in _models(annotation) if part in (each.__name__, _tag(each))]
            annotation = chosen[0] if chosen else None
            continue
        keys.append(part)
        annotation = _step(annotation, part)
    return tuple(keys)


def _tags(keys: Keys, model: type[BaseModel]) -> list[str]:
    section = _section(keys[:-1], model)
    members = _models(section.model_fields[str(keys[-1])].annotation) if section else ()
    return [tag for tag in map(_tag, members) if tag]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("format")
    return get_args(field.annotation)[0] if field and get_args(field.annotation) else None


def _step(annotation: object, part: str | int) -> object:
    """The type of what lies at ``part`` of a value of type ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and part in annotation.model_fields:
        return annotation.model_fields[str(part)].annotation
    inner = get_args(annotation)
    if isinstance(part, int) and inner:
        return inner[0]
    return None
