"""Virtual environments with given packages only, kept under ``.cache/`` so that they are made once."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

OPENVINO = ("onnxruntime-openvino==1.24.1", "numpy==2.4.2", "cryptography==46.0.3")
"""ONNX Runtime with another provider, and what checks signatures: one environment for both, as it takes half a GB."""

CACHE = Path(__file__).parents[2] / ".cache" / "environments"


def environment(name, *packages):
    """The Python of an environment with ``packages``; skips, loudly, when no package index can be reached."""
    words = "\n".join([sys.version, *packages])
    folder = CACHE / f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (folder / "ready").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if installed.returncode != 0:
        shutil.rmtree(folder)
        unreachable = "connection" in installed.stderr.lower() and not os.environ.get("CI")
        if unreachable:
            pytest.skip(f"NOT PROVED: no package index can be reached: pip install {' '.join(packages)}")
        pytest.fail(installed.stderr[-2000:])
    (folder / "ready").touch()
    return python


def run(python, *words, **options):
    """Run Python there, away from this project's sources."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(python), *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**variables, **options.pop("env", {})},
        **options,
    )
