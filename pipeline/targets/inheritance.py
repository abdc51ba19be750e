"""Profiles that build on others: ``inherit: NAME`` takes the profile NAME and overrides parts.

NAME is looked for in the same folder, then among the shipped profiles, so that a chip of one's own can build on these.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import yamltree
from pipeline.errors import ConfigError, TargetError

SHIPPED = Path(__file__).parents[2] / "configs" / "targets"
"""The profiles that come with the project."""

INHERIT = "inherit"
MERGED = ("figures", "operators", "absent")
"""Sections whose entries are overridden one by one, ``null`` removing one; other settings are replaced as a whole."""

OWN = ("name", "title")
"""Settings that every profile says for itself."""


def files(path: Path) -> tuple[Path, ...]:
    """The files that the profile ``path`` is made of, itself first.

    Raises:
        TargetError: one cannot be read, is no YAML, or inherits from itself.
    """
    return tuple(file for file, _ in _chain(path))


def document(path: Path) -> dict[str, Any]:
    """The settings of the profile ``path``, with what it inherits filled in; raises as ``files``."""
    chain = _chain(path)
    values = dict(chain[-1][1])
    for _, own in reversed(chain[:-1]):
        inherited = {key: value for key, value in values.items() if key not in OWN}
        values = {**inherited, **own}
        for section in MERGED:
            values[section] = _merged(inherited.get(section), own.get(section))
    values.pop(INHERIT, None)
    return values


def _merged(inherited: object, own: object) -> object:
    """The entries of both, ``own`` first; what is no mapping is left for the profile's check to refuse."""
    if own is None:
        return inherited or {}
    if not isinstance(own, Mapping) or not isinstance(inherited, Mapping):
        return own
    return {key: value for key, value in {**inherited, **own}.items() if value is not None}


def _chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The profile and what it inherits from, nearest first, each with its settings."""
    found: list[tuple[Path, dict[str, Any]]] = []
    while True:
        values = _read(path, found[-1][0] if found else None)
        found.append((path, values))
        parent = values.get(INHERIT)
        if parent is None:
            return found
        beside, shipped = path.with_name(f"{parent}.yaml"), SHIPPED / f"{parent}.yaml"
        known = [file for file, _ in found]
        path = beside if (beside.is_file() and beside not in known) or not shipped.is_file() else shipped
        if path in known:
            raise TargetError(f"inherits from itself through {parent}", where=known[0], fix="end the chain")


def _read(path: Path, child: Path | None) -> dict[str, Any]:
    try:
        return yamltree.read(path, "configs/targets/conv-only.yaml").values
    except ConfigError as error:
        fix = error.fix if child is None else f"mend what {child.name} inherits"
        raise TargetError(error.what, where=error.where, fix=fix) from error
