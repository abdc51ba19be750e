"""The highest version of each bundle that a device has run, so that nobody can take it back to an older one.

One JSON file per bundle's name in a folder: ``$STATE_DIRECTORY`` (systemd's), else ``$XDG_STATE_HOME/npu-run``, else
``~/.local/state/npu-run``.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from runtime import strict_json
from runtime.errors import TrustError, UserError
from runtime.files import replace_file
from runtime.manifest import Manifest

_MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class _Seen:
    """The content of a state file."""

    name: str
    version: int


def default_folder() -> Path:
    """Where the state lies when nobody says otherwise.

    Raises:
        UserError: there is no such place.
    """
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0])
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "npu-run"
    try:
        return Path.home() / ".local" / "state" / "npu-run"
    except RuntimeError as error:
        raise UserError("there is no home folder to keep the versions seen in", fix="name one with --state") from error


def highest(folder: Path, name: str) -> int | None:
    """The highest version seen of the bundle ``name``; ``None`` when none was.

    Raises:
        TrustError: the state is damaged: going on would forget what was seen.
        UserError: it cannot be read.
    """
    path = _path(folder, name)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=path) from error
    seen = strict_json.build(_Seen, strict_json.parse(data, path), path)
    if seen.name != name:
        raise TrustError(f"is the state of {seen.name[:80]!r}, not of {name[:80]!r}", where=path)
    return seen.version


def check(folder: Path, manifest: Manifest, where: object) -> None:
    """Refuse a version below one that ran here before.

    Raises:
        TrustError: it is below, or the state is damaged.
        UserError: the state cannot be read.
    """
    seen = highest(folder, manifest.name)
    if seen is not None and manifest.version < seen:
        fix = f"publish it with package.version {seen} or higher"
        what = f"is version {manifest.version} of {manifest.name}, and version {seen} ran here before"
        raise TrustError(what, where=where, fix=fix)


def record(folder: Path, manifest: Manifest) -> None:
    """Remember that this version ran; a lower one than was seen changes nothing.

    Raises:
        TrustError: the state is damaged.
        UserError: it cannot be read or written.
    """
    seen = highest(folder, manifest.name)
    if seen is not None and seen >= manifest.version:
        return
    path = _path(folder, manifest.name)
    try:
        replace_file(path, strict_json.dumps(_Seen(manifest.name, manifest.version)))
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=path) from error


def _path(folder: Path, name: str) -> Path:
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
