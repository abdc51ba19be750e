"""The deploy folder: the bundle, the runtime as one runnable file, and what it takes to run them for good."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType

import runtime
from pipeline.compile.deploy_texts import TEXTS
from runtime.archive import pack
from runtime.extras import EXTRAS

LAUNCHER = b"""import sys

from runtime.__main__ import main

sys.exit(main())
"""


BASE = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")
"""Distributions that the runtime needs, those that ONNX Runtime needs included."""

BENEATH: Mapping[str, tuple[str, ...]] = MappingProxyType({"signing": ("cffi", "pycparser")})
"""By extra, the distributions that its own need, where all of them are pinned."""


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
    return _pinned(BASE)


def extra_requirements(extra: str) -> str:
    """As ``requirements``, with an extra of the runtime: ``video``, ``signing`` or ``mqtt``."""
    return "-r requirements.txt\n" + _pinned((*EXTRAS[extra], *BENEATH.get(extra, ())))


def _pinned(names: Sequence[str]) -> str:
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)


def build_deploy(folder: Path, bundle_path: Path) -> None:
    """Fill ``folder`` with what a device needs.

    ``NAME.npub``, ``npu-run.pyz``, ``requirements.txt`` (numpy and onnxruntime, with what they need),
    ``requirements-video.txt``, ``requirements-signing.txt``, ``requirements-mqtt.txt``, ``npu-run.service`` for
    systemd, ``Dockerfile`` and ``README.md``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / bundle_path.name).write_bytes(bundle_path.read_bytes())
    build_pyz(folder / "npu-run.pyz")
    (folder / "requirements.txt").write_text(requirements())
    for extra in EXTRAS:
        (folder / f"requirements-{extra}.txt").write_text(extra_requirements(extra))
    versions = "".join(f"| `{line.replace('==', '` | ')} |\n" for line in requirements().splitlines())
    for name, text in TEXTS.items():
        (folder / name).write_text(Template(text).substitute(bundle=bundle_path.name, versions=versions.rstrip()))
