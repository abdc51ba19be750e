"""What a run left, without what tells the time or the place."""

import hashlib

TELL_THE_TIME = {"stage.json", "report.json", "report.html", ".digests.json", ".lock"}


def contents(folder):
    """SHA-256 of every file of a run, by its path in it."""
    files = [
        p for p in folder.rglob("*") if p.is_file() and p.name not in TELL_THE_TIME and "checkpoints" not in p.parts
    ]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
