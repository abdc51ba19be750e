"""Frozen dataclasses to JSON and back: unknown, missing, repeated and mistyped keys are errors with their place."""

import dataclasses
import difflib
import functools
import json
import math
import re
import types
from collections.abc import Mapping
from typing import Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from runtime.errors import BundleError

T = TypeVar("T")


def dumps(value: object) -> bytes:
    """A dataclass of strings, numbers, tuples, mappings and dataclasses as JSON, the same bytes every time."""
    text = json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{\]},]', re.DOTALL)
"""A string, closed or not, or what opens, closes or continues a list or an object; it never goes back."""


def measure(data: bytes, *, depth: int, values: int) -> tuple[int, int]:
    """How deep JSON is and how many values it may have, found without building them; it stops past a limit.

    Args:
        data: JSON, or anything else.
        depth: of lists and objects inside each other, the most that is of interest.
        values: as ``depth``.
    """
    level = deepest = count = 0
    for match in _TOKEN.finditer(data):
        token = data[match.start()]
        if token == ord('"'):
            continue
        level += 1 if token in b"[{" else -1 if token in b"]}" else 0
        count += token in b"[{,"
        deepest = max(deepest, level)
        if deepest > depth or count > values:
            break
    return deepest, count


def parse(data: bytes, where: object) -> dict[str, object]:
    """A JSON object; repeated keys, NaN and infinities are refused.

    Raises:
        BundleError: ``data`` is not UTF-8, not JSON, or not an object.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BundleError("has a key twice", where=where)
        return found

    def refuse(constant: str) -> object:
        raise BundleError(f"has {constant}, which is not JSON", where=where)

    try:
        value = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # ValueError also for integers of thousands of digits
        raise BundleError(f"is not JSON ({error})", where=where) from error
    if not isinstance(value, dict):
        raise BundleError(f"is {_named(value)}, not an object", where=where)
    return value


def build(kind: type[T], value: object, where: object) -> T:
    """The dataclass ``kind`` that a JSON value stands for, checked against the annotations of its fields.

    Fields may be ``str``, ``int``, ``float``, ``Literal``, tuples, ``Mapping[str, ...]``, dataclasses, and any of
    these or ``None``. Every field must be given, and nothing else.

    Raises:
        BundleError: a key is unknown (the nearest is named), missing, or of another type; the place is named.
    """
    return cast(T, _read(kind, value, "", where))


def _read(kind: object, value: object, at: str, where: object) -> object:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _object(kind, value, at, where)
    if origin is types.UnionType:
        return None if value is None else _read(arguments[0], value, at, where)
    if origin is tuple:
        return _tuple(arguments, value, at, where)
    if origin is Mapping and isinstance(value, dict):
        items = ((_encodable(key, at, where), item) for key, item in value.items())
        return types.MappingProxyType({k: _read(arguments[1], v, f"{at}.{k[:40]}", where) for k, v in items})
    return _scalar(kind, value, at, where)


def _scalar(kind: object, value: object, at: str, where: object) -> object:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value in choices:
            return value
        raise BundleError(f"{at} is {_named(value)}, not one of {', '.join(map(repr, choices))}", where=where)
    if kind is float and type(value) in (int, float):
        number = _finite(cast(float, value))
        if number is not None:
            return number
    if kind is str and isinstance(value, str):
        return _encodable(value, at, where)
    if kind is int and type(value) is int:
        return value
    raise BundleError(f"{at} is {_named(value)}, not {_EXPECTED.get(kind, 'an object')}", where=where)


def _encodable(text: str, at: str, where: object) -> str:
    """``text``, unless it has half of a surrogate pair, which JSON can escape and UTF-8 cannot write."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BundleError(f"{at} has a character that is none", where=where)
    return text


def _finite(value: float) -> float | None:
    """``value`` as a float, ``None`` where it is infinite, not a number, or an integer too large for one."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_EXPECTED: Mapping[object, str] = {str: "a string", int: "a whole number", float: "a finite number"}


def _object(kind: type, value: object, at: str, where: object) -> object:
    if not isinstance(value, dict):
        raise BundleError(f"{at or 'it'} is {_named(value)}, not an object", where=where)
    hints = _hints(kind)
    prefix = f"{at}." if at else ""
    for key in value:
        if key not in hints:
            short = str(key)[:40]
            near = difflib.get_close_matches(short, hints, 1, 0.0)[0]
            raise BundleError(f"{prefix}{short} is not a key (did you mean {near}?)", where=where)
    for name in hints:
        if name not in value:
            raise BundleError(f"{prefix}{name} is missing", where=where)
    return kind(**{name: _read(hint, value[name], prefix + name, where) for name, hint in hints.items()})


@functools.cache
def _hints(kind: type) -> Mapping[str, object]:
    return types.MappingProxyType(get_type_hints(kind))


def _tuple(arguments: tuple[object, ...], value: object, at: str, where: object) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise BundleError(f"{at} is {_named(value)}, not a list", where=where)
    if arguments[-1] is Ellipsis:
        return tuple(_read(arguments[0], item, f"{at}[{i}]", where) for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise BundleError(f"{at} has {len(value)} items, not {len(arguments)}", where=where)
    return tuple(_read(kind, value[i], f"{at}[{i}]", where) for i, kind in enumerate(arguments))


def _named(value: object) -> str:
    """The value for an error: short, and as JSON would have it."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
