"""The tiny use case as ``pipeline run`` does it, up to the quantize stage; and the same in a process that is killed."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from smallmodels import TARGETS

from pipeline.configfile import load
from pipeline.progress import PlainConsole
from pipeline.run import STAGES, Options, run
from pipeline.workspace import read_record

ROOT = Path(__file__).parents[3]

KILLED = """
import os, signal, sys
from pipeline.cli import main
from pipeline.progress import PlainConsole

what, starts, advances, *words = sys.argv[1:]
left = {"starts": int(starts), "advances": int(advances)}

def start(self, total, said):
    left["starts"] -= said.startswith(what)
    self.inside = said.startswith(what)

def advance(self, n=1):
    if self.inside and left["starts"] == 0:
        left["advances"] -= n
        if left["advances"] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

PlainConsole.start, PlainConsole.advance = start, advance
main(words)
"""
"""A pipeline that dies when it counts so many of what it has begun to count so often."""


class Project:
    """The tiny use case in a folder of its own."""

    def __init__(self, folder, settings):
        self.folder, self.settings, self.config = folder, settings, folder / "tiny.yaml"

    def run(self, runs, **quantize):
        """Run up to the quantize stage; what was said of that stage, and all messages."""
        self.config.write_text(yaml.safe_dump({**self.settings, "quantize": {**self.settings["quantize"], **quantize}}))
        said, messages = io.StringIO(), io.StringIO()
        options = Options(self.folder / runs, TARGETS / "coral-edgetpu-usb3.yaml")
        run(load(self.config), options, PlainConsole(said, messages), stages=STAGES[:2])
        lines = [line for line in said.getvalue().splitlines() if line.startswith("quantize: ")]
        return lines, messages.getvalue()

    def kill(self, runs, what, starts, advances, *words):
        """Run with the configuration of the last run and ``words``, to be killed while the stage does ``what``."""
        script = ["-c", KILLED, f"quantize: {what}", str(starts), str(advances), "run", str(self.config)]
        done = subprocess.run(
            [sys.executable, *script, "--runs", str(self.folder / runs), "--to", "quantize", *words],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    def record(self, runs):
        return read_record(self.folder / runs / "tiny" / "quantize")
