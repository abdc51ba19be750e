"""Errors a user can act on, and the gate that a configuration sets."""

from runtime.errors import UserError

__all__ = ["ConfigError", "DataError", "GateMissedError", "ModelError", "TargetError", "TrackingError", "UserError"]


class ConfigError(UserError):
    """A configuration file or a ``--set`` is wrong."""


class DataError(UserError):
    """The user's images, video or annotations are wrong."""


class ModelError(UserError):
    """A model cannot be built, read, exported or compiled."""


class TargetError(UserError):
    """A target profile is missing or wrong."""


class TrackingError(UserError):
    """The tracking server cannot be used."""


class GateMissedError(Exception):
    """A floor or ceiling that the configuration sets was missed; the command ends with exit code 3."""
