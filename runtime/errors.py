"""Errors a user can act on: what is wrong, where, the fact, and the fix."""


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, where and how to mend it.

    Commands print it as one line and exit with code 1; any other exception is our bug and shows its traceback.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        """Compose ``where: what (fix)``; leave out the parts that are not given."""
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        prefix = f"{self.where}: " if self.where else ""
        suffix = f" ({fix})" if fix else ""
        super().__init__(f"{prefix}{what}{suffix}")


class BundleError(UserError):
    """A bundle cannot be read, is damaged, or was written by a newer version."""


class LimitError(BundleError):
    """A bundle asks for more memory or time than the limits of this device allow."""


class TrustError(BundleError):
    """A bundle is not signed by somebody who is trusted, was changed, or is older than one that ran before."""


class SwapError(UserError):
    """A bundle cannot take over from the one that runs."""


class PlacementError(UserError):
    """A partition would run elsewhere than planned, and that was forbidden."""


class ProgramError(UserError):
    """An NPU program is malformed or does not match this device."""


class DeviceError(UserError):
    """The device failed at a job: ``kind`` is ``timeout``, ``lost``, ``memory`` or ``flip``."""

    def __init__(self, what: str, *, kind: str) -> None:
        """Say what failed."""
        super().__init__(what)
        self.kind = kind


class SourceError(UserError):
    """A video, an image or a camera cannot be read."""
