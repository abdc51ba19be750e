"""The deploy folder: the bundle, the runtime as one runnable file, and what to install beside it."""

import importlib.metadata
from pathlib import Path

import numpy as np
import onnxruntime

import runtime
from runtime.archive import pack

LAUNCHER = b"""import sys

from runtime.__main__ import main

sys.exit(main())
"""

VIDEO = ("av", "pillow", "supervision", "trackers")
"""Distributions of the ``video`` extra."""


def build_pyz(path: Path) -> None:
    """Write the runtime as one runnable zip file, the same bytes for the same sources.

    ``python npu-run.pyz`` is then ``npu-run``; it needs numpy and onnxruntime.
    """
    root = Path(runtime.__file__).parent
    sources = [*root.rglob("*.py"), *root.rglob("*.html"), root / "py.typed"]
    entries = {source.relative_to(root.parent).as_posix(): source.read_bytes() for source in sources}
    path.write_bytes(b"#!/usr/bin/env python3\n" + pack({"__main__.py": LAUNCHER, **entries}))
    path.chmod(0o755)


def requirements() -> str:
    """The exact versions that the bundle was tested with, as a requirements file."""
    return f"numpy=={np.__version__}\nonnxruntime=={onnxruntime.__version__}\n"


def video_requirements() -> str:
    """As ``requirements``, for videos, cameras, images, tracking and drawing."""
    pinned = [f"{name}=={importlib.metadata.version(name)}\n" for name in VIDEO]
    return "-r requirements.txt\n" + "".join(pinned)


def build_deploy(folder: Path, bundle_path: Path) -> None:
    """Fill ``folder`` with what a device needs.

    ``NAME.npub``, ``npu-run.pyz``, ``requirements.txt`` (numpy and onnxruntime) and ``requirements-video.txt``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / bundle_path.name).write_bytes(bundle_path.read_bytes())
    build_pyz(folder / "npu-run.pyz")
    (folder / "requirements.txt").write_text(requirements())
    (folder / "requirements-video.txt").write_text(video_requirements())
