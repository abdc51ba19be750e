"""npu-run as a process of its own, watched from outside."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from real_parts import wait_for


class Run:
    """``npu-run BUNDLE ...`` with its outputs in ``folder``; it may be killed and started again."""

    def __init__(self, folder, bundle, *words, environment=None):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.jsonl, self.csv, self.db = (folder / f"events.{kind}" for kind in ("jsonl", "csv", "sqlite"))
        sinks = [word for sink in (self.jsonl, self.csv, self.db) for word in ("--sink", str(sink))]
        self.command = [sys.executable, "-m", "runtime", str(bundle), *map(str, words), *sinks]
        self.command += ["--state", str(folder / "state")]
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self, *words):
        log = (self.folder / "log").open("ab")
        command = [*self.command, *map(str, words)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        log.close()
        return self

    def kill(self, number=signal.SIGKILL):
        """The exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def events(self, kind=None):
        """What the JSON lines say, without a line that is not whole."""
        if not self.jsonl.exists():
            return []
        lines = self.jsonl.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if kind in (None, event["kind"])]

    def wait_for_events(self, count, kind=None, seconds=60):
        """Seconds until there are so many."""
        began = time.monotonic()
        wait_for(lambda: len(self.events(kind)) >= count, seconds, f"event {count} of {self.folder.name}")
        return time.monotonic() - began

    def rows(self):
        """What the database says, in the order it came."""
        with contextlib.closing(sqlite3.connect(self.db)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM events ORDER BY rowid")]

    def memory(self):
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log(self):
        return (self.folder / "log").read_text()


def check_sinks_agree(run):
    """Every sink has the same events, each once, and says so in the same words."""
    events = run.events()
    assert len({event["id"] for event in events}) == len(events), "an event came twice"
    assert run.rows() == events
    assert len(run.csv.read_text().splitlines()) == len(events) + 1
    return events


def middle(values):
    return sorted(values)[len(values) // 2]
