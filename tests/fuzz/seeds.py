"""Bundles to start from: ``python seeds.py FOLDER``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[2])]

import tiny  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402

from runtime.trust import sign  # noqa: E402


def write_seeds(folder: Path) -> list[Path]:
    """One bundle wholly on the NPU, one split, one signed."""
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return [
        tiny.write(folder / "whole.npub"),
        tiny.write(folder / "split.npub", tiny.split),
        tiny.write(folder / "signed.npub", signer=lambda manifest: sign(manifest, [key])),
    ]


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
