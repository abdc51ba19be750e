"""Writing a run's reports into its folder."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline.files import write_atomically
from pipeline.report import json_report
from pipeline.summary import RunSummary, StageSummary

READ = (
    ("train", "history.json"),
    ("quantize", "errors.json"),
    ("quantize", "ladder.json"),
    ("export", "model.onnx"),
    ("coverage", "coverage.json"),
    ("partition", "plan.json"),
    ("partition", "check.json"),
    ("package", "demo/summary.json"),
    ("package", "samples/*.jpg"),
)
"""The files that the page shows, by stage."""


def write(summary: RunSummary) -> Path:
    """Write ``report.json`` and ``report.html`` into the run's folder and return the page's path.

    The page is left alone when it already shows this result: its last line holds a digest of all that it shows (the
    settings' digest, of each stage that is up to date its numbers, of each other one its state and why, and the files
    that it reads) and of the code that makes it. What a run did in a stage that is up to date (found it fresh, or ran
    it and why) and the commit are not part of the digest, so a run with nothing to do neither draws nor writes, and
    the page goes on to say why each stage last ran.

    Raises:
        OSError: the folder cannot be written.
    """
    json_report.write(summary)
    path = summary.folder / "report.html"
    last = f"<!-- {digest(summary)} -->\n".encode()
    if not _ends_with(path, last):
        from pipeline.report import html  # noqa: PLC0415 (a run with nothing to do should not wait for what draws)

        write_atomically(path, html.page(summary).rstrip().encode() + b"\n" + last)
    return path


def digest(summary: RunSummary) -> str:
    """SHA-256 of what the page shows, see ``write``."""
    facts = [
        summary.name,
        summary.folder.as_posix(),
        summary.config_file.as_posix(),
        summary.config_digest,
        summary.target,
        [_facts(stage) for stage in summary.stages],
        [(path.as_posix(), _sha256(path)) for path in _read(summary)],
        [(path.name, _sha256(path)) for path in sorted(Path(__file__).parent.glob("*.*"))],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _facts(stage: StageSummary) -> dict[str, object]:
    facts = asdict(stage)
    if stage.current:
        del facts["state"], facts["why"], facts["ran"]
    return facts


def _read(summary: RunSummary) -> Iterator[Path]:
    for stage, pattern in READ:
        folder = summary.current(stage)
        if folder is not None:
            yield from sorted(folder.glob(pattern))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ends_with(path: Path, last: bytes) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(last), os.SEEK_END)
            return file.read() == last
    except OSError:
        return False
