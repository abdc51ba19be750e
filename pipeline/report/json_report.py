"""``report.json``: what a run came to, for scripts."""

import json
import math
from pathlib import Path
from typing import Any

from pipeline.files import write_atomically
from pipeline.report import results
from pipeline.report.results import Absent
from pipeline.summary import RunSummary

SCHEMA = 1


def document(summary: RunSummary) -> dict[str, Any]:
    """The report as plain data; numbers that JSON cannot say (infinite, not a number) become ``null``.

    ``coverage`` is empty unless the coverage stage is up to date; ``problems`` says which file could not be read.
    """
    nodes = results.coverage(summary)
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
        "coverage": []
        if isinstance(nodes, Absent)
        else [node.model_dump(mode="json", exclude_unset=True) for node in nodes],
        "problems": [nodes.why] if isinstance(nodes, Absent) and summary.current("coverage") else [],
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
