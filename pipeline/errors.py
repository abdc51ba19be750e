"""Errors a user can act on, and the gate that a configuration sets."""

import difflib
from collections.abc import Iterable

from runtime.errors import UserError

__all__ = [
    "ConfigError", "DataError", "DivergedError", "GateMissedError", "ModelError", "TargetError", "TrackingError",
    "UserError", "nearest", "one_line",
]  # fmt: skip


class ConfigError(UserError):
    """A configuration file or a ``--set`` is wrong."""


class DataError(UserError):
    """The user's images, video or annotations are wrong."""


class ModelError(UserError):
    """A model cannot be built, read, exported or compiled."""


class DivergedError(ModelError):
    """A training came to numbers that are not finite; what was before it is still there."""


class TargetError(UserError):
    """A target profile is missing or wrong."""


class TrackingError(UserError):
    """The tracking server cannot be used."""


class GateMissedError(Exception):
    """A floor or ceiling that the configuration sets was missed; the command ends with exit code 3."""


def nearest(name: str, known: Iterable[str], are: str = "known") -> str:
    """What to do about a ``name`` that is none of ``known``: the nearest of these, or all of them after ``are``."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else f"{are}: {', '.join(names) or 'none'}"


def one_line(error: Exception) -> str:
    """The message of a library's error on one line."""
    return " ".join(str(error).split())
