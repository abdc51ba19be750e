"""A search whose budget left something out goes on with a larger one, and ends as one without any."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from smallmodels import TARGETS

from pipeline.configfile import load
from pipeline.progress import PlainConsole
from pipeline.quantize import trials
from pipeline.run import STAGES, Options, run
from pipeline.workspace import read_record

ROOT = Path(__file__).parents[3]

KILLED = """
import os, signal, sys
from pipeline.cli import main
from pipeline.progress import PlainConsole

def start(self, total, what):
    self.judged = getattr(self, "judged", 0) + what.startswith("quantize: judging")

def advance(self, n=1):
    if getattr(self, "judged", 0) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

PlainConsole.start, PlainConsole.advance = start, advance
main(sys.argv[1:])
"""
"""A pipeline that is killed in the midst of the third trial that it measures."""


class Project:
    """The tiny use case, trained and quantized."""

    def __init__(self, folder, settings):
        self.folder, self.settings, self.config = folder, settings, folder / "tiny.yaml"

    def run(self, runs, budget=None):
        """Run up to the quantize stage; what was said of that stage, and its messages."""
        quantize = {**self.settings["quantize"], "preset": "balanced", "budget": budget}
        self.config.write_text(yaml.safe_dump({**self.settings, "quantize": quantize}))
        said, messages = io.StringIO(), io.StringIO()
        options = Options(self.folder / runs, TARGETS / "coral-edgetpu-usb3.yaml")
        run(load(self.config), options, PlainConsole(said, messages), stages=STAGES[:2])
        lines = [line for line in said.getvalue().splitlines() if line.startswith("quantize: ")]
        return lines, messages.getvalue()

    def kill(self, runs, *words):
        """Do it in a process that is killed in a trial; the configuration is that of the last run."""
        script = ["-c", KILLED, "run", str(self.config), "--runs", str(self.folder / runs), "--to", "quantize", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *script], cwd=ROOT, env=environment, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    def record(self, runs):
        return read_record(self.folder / runs / "tiny" / "quantize")


@pytest.fixture
def scored(monkeypatch):
    """How often the engine judged."""
    calls = []
    original = trials.score
    monkeypatch.setattr(trials, "score", lambda *given: calls.append(1) or original(*given))
    return calls


def test_a_larger_budget_goes_on_and_ends_as_no_budget_does(tmp_path, tiny_settings, scored):
    project = Project(tmp_path, tiny_settings)
    project.run("whole")
    every = len(scored)
    scored.clear()
    shutil.copytree(tmp_path / "whole/tiny/train", tmp_path / "small/tiny/train")
    _, said = project.run("small", budget=0.0)
    assert len(scored) == 1
    assert "is too small for one trial" in said
    assert f"left out {every - 1} trials" in said
    assert project.record("small").metrics["untried"] == every - 1
    project.kill("small", "--set", "quantize.budget=1000")
    scored.clear()
    lines, said = project.run("small", budget=5000.0)
    assert "quantize.budget changed 0.0 -> 5000.0" in lines[0]
    assert "goes on after 3 trials that were measured before" in said  # the small budget's, and the killed run's two
    assert len(scored) == every - 3
    whole, gone_on = project.record("whole"), project.record("small")
    assert gone_on.outputs == whole.outputs
    assert gone_on.metrics == {**whole.metrics, "untried": 0.0}
    lines, _ = project.run("small")
    assert lines == ["quantize: fresh"]
