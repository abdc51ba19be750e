"""YAML text to plain data, with the line of every setting; refuses what plain ``safe_load`` lets pass in silence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.files import read_whole

Keys = tuple[str | int, ...]
"""Where a setting is: keys of mappings and indices of lists, from the top."""

EXAMPLE = "configs/cctv.yaml"
"""A file to learn from, for who has an empty one."""

MOST = 50_000
"""Settings and list items in one document, aliases counted as what they stand for."""


@dataclass(frozen=True)
class Document:
    """What a YAML file says.

    Attributes:
        values: plain data.
        lines: the line, from 1, on which each setting stands.
    """

    values: dict[str, Any]
    lines: Mapping[Keys, int]


def dotted(keys: Keys) -> str:
    """``("package", "lines", 0, "name")`` as ``package.lines[0].name``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def read_text(path: Path, example: str = EXAMPLE) -> str:
    """The text of ``path``; ``example`` is a file of its kind, told when it is empty.

    Raises:
        ConfigError: it does not exist, is a folder, cannot be read, is empty, or is not UTF-8 text.
    """
    try:
        data = read_whole(path)
    except FileNotFoundError:
        raise ConfigError("does not exist", where=path, fix="name a configuration file") from None
    except IsADirectoryError:
        raise ConfigError("is a folder", where=path, fix="name a configuration file in it") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("is not a text file", where=path, fix="write YAML as UTF-8") from None
    if not text.strip():
        raise ConfigError("is empty", where=path, fix=f"{example} is an example")
    if "\0" in text:
        raise ConfigError("is not a text file", where=path, fix="write YAML as UTF-8")
    return text


def read(path: Path, example: str = EXAMPLE) -> Document:
    """The settings in ``path``; ``example`` is a file of its kind, told when it is empty.

    Raises:
        ConfigError: see ``read_text``; or it is not valid YAML, is not a mapping, or says a key twice.
    """
    text = read_text(path, example)
    try:
        values, lines, problems = _load(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax(error), where=path, fix=_syntax_fix(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"is not valid YAML: {reason}", where=path) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", where=path) from None
    if problems:
        raise ConfigError(f"\n{path}: ".join(problems), where=path)
    if not isinstance(values, dict):
        raise ConfigError(f"must be a mapping of settings, not {kind(values)}", where=path)
    return Document(values, lines)


def value(text: str) -> object:
    """The plain data that a piece of YAML says.

    Raises:
        yaml.YAMLError: it is not valid YAML.
        ValueError: it contains itself, says a key twice or more than fits, or has an impossible date or number.
        RecursionError: it is nested too deeply.
    """
    values, _, problems = _load(text)
    if problems:
        raise ValueError(problems[0])
    return values


def _load(text: str) -> tuple[Any, dict[Keys, int], list[str]]:
    """Plain data, the line of every setting, and sentences that say why there is no data; raises as ``value``."""
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    lines: dict[Keys, int] = {}
    problems = _survey(node, (), lines, ()) if node is not None else []
    usable = node is not None and not problems
    return loader.construct_document(node) if usable else None, lines, problems


def kind(value: object) -> str:
    """What YAML calls ``value``, with its article."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "a mapping", list: "a list", tuple: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _survey(node: yaml.Node, keys: Keys, lines: dict[Keys, int], above: tuple[yaml.Node, ...]) -> list[str]:
    """Fill ``lines`` and return a sentence for each key said twice and each node that contains itself."""
    line = node.start_mark.line + 1
    lines.setdefault(keys, line)
    if len(lines) > MOST:
        raise ValueError(f"it says more than {MOST} things; a few aliases can multiply to very many")
    if any(node is parent for parent in above):
        return [f"{dotted(keys)} contains itself at line {line}"]
    above = (*above, node)
    problems: list[str] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            problems += _survey(item, (*keys, index), lines, above)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, here = str(key.value), key.start_mark.line + 1
            if name in seen:
                problems.append(f"{dotted((*keys, name))} is set twice, at lines {seen[name]} and {here}")
            seen[name] = here
            lines[(*keys, name)] = here
            problems += _survey(value, (*keys, name), lines, above)
    return problems


def _syntax(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f" at line {mark.line + 1}" if mark is not None else ""
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return f"is not valid YAML: {said}{place}"


def _syntax_fix(error: yaml.MarkedYAMLError) -> str | None:
    return "indent with spaces, not tabs" if "\\t" in (error.problem or "") else None
