"""``report.json``: what a run came to, for scripts."""

import json
import math
from pathlib import Path
from typing import Any

from pipeline.files import write_atomically
from pipeline.summary import RunSummary

SCHEMA = 1


def document(summary: RunSummary) -> dict[str, Any]:
    """The report as plain data; numbers that JSON cannot say (infinite, not a number) become ``null``."""
    return {
        "schema": SCHEMA,
        "name": summary.name,
        "config": summary.config_file.as_posix(),
        "config_digest": summary.config_digest,
        "target": summary.target,
        "git_commit": summary.git_commit,
        "stages": [
            {"name": s.name, "state": s.state, "seconds": round(s.seconds, 3), "why": s.why, "ran": s.ran}
            for s in summary.stages
        ],
        "metrics": {name: value if math.isfinite(value) else None for name, value in summary.metrics.items()},
        "gates_missed": list(summary.gates),
        "coverage": _coverage(summary),
    }


def text(summary: RunSummary) -> str:
    """The report as JSON text."""
    return json.dumps(document(summary), indent=2, allow_nan=False) + "\n"


def write(summary: RunSummary) -> Path:
    """Write ``report.json`` into the run's folder and return its path.

    Raises:
        OSError: the folder cannot be written.
    """
    path = summary.folder / "report.json"
    write_atomically(path, text(summary).encode())
    return path


def _coverage(summary: RunSummary) -> list[dict[str, Any]]:
    """The nodes of ``coverage/coverage.json`` when the coverage stage is up to date, otherwise none."""
    folder = summary.current("coverage")
    if folder is None or not (folder / "coverage.json").exists():
        return []
    nodes: list[dict[str, Any]] = json.loads((folder / "coverage.json").read_bytes())["nodes"]
    return nodes
