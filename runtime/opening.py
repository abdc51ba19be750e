"""How a device opens bundles: whom it trusts, what it has seen, and how much it gives; the options that say so."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from runtime import versions
from runtime.bundle import Bundle, parse_bundle, read_bundle
from runtime.limits import LIMITS, Limits, read_limits
from runtime.trust import Trust, read_trust


@dataclass(frozen=True)
class Opening:
    """A device's policy.

    Attributes:
        trust: whose signature is demanded; ``None`` opens anything that is sound.
        state: folder of the versions seen; of use only with ``trust``.
        limits: the most that a bundle may ask for.
    """

    trust: Trust | None = None
    state: Path | None = None
    limits: Limits = LIMITS

    def open(self, path: Path) -> Bundle:
        """Open a bundle that this policy accepts.

        Raises:
            TrustError: it is not signed by somebody trusted, was changed, or is older than one that ran here.
            LimitError: it asks for too much.
            BundleError: it is not sound.
            UserError: something that is needed for that cannot be read or is not installed.
        """
        return self.parse(read_bundle(path, self.limits), path)

    def parse(self, data: bytes, path: Path) -> Bundle:
        """As :meth:`open`, of a file's bytes; ``path`` is for messages.

        Raises:
            TrustError, LimitError, BundleError, UserError: as there.
        """
        bundle = parse_bundle(data, path, limits=self.limits, trust=self.trust)
        if self.trust is not None:
            versions.check(self._folder, bundle.manifest, path)
        return bundle

    def accept(self, bundle: Bundle) -> None:
        """Remember that ``bundle`` ran here, so that no older one does after it; only with ``trust``.

        Raises:
            UserError: that cannot be written down.
        """
        if self.trust is not None:
            versions.record(self._folder, bundle.manifest)

    @property
    def _folder(self) -> Path:
        return versions.default_folder() if self.state is None else self.state


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--trust``, ``--state`` and ``--limits``."""
    parser.add_argument("--trust", type=Path, metavar="KEYS", help="file or folder of public keys; refuse all others")
    help_state = (
        "folder of what is kept over restarts: events that are not delivered yet; the versions seen, against going "
        "back, with --trust (for these the default is $STATE_DIRECTORY, or your own)"
    )
    parser.add_argument("--state", type=Path, metavar="FOLDER", help=help_state)
    parser.add_argument("--limits", type=Path, metavar="F", help="JSON file of what a bundle may ask for at most")


def read_options(options: argparse.Namespace) -> Opening:
    """The policy that the options say.

    Raises:
        UserError: the keys or the limits cannot be read.
    """
    trust = None if options.trust is None else read_trust(options.trust)
    limits = LIMITS if options.limits is None else read_limits(options.limits)
    return Opening(trust, options.state, limits)
