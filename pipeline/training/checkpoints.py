"""Reading Lightning's checkpoints, whole or not at all."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

DAMAGE = (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile)
"""What reading a damaged checkpoint raises, beside ``ValueError``."""


def read_checkpoint(path: Path) -> Any:  # noqa: ANN401 (what a damaged file holds is not known)
    """A checkpoint whose every byte is as it was written; torch alone does not look at the checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    return torch.load(path, map_location="cpu", weights_only=True)
