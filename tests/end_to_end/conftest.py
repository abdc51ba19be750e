"""Real runs of the real stages on the tiny clip, as a user starts them: in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import keys

KILLER = """
import importlib, os, signal, sys
stage = importlib.import_module(f"pipeline.stages.{sys.argv[1]}")
work = stage.run
def killed(context):
    work(context)
    os.kill(os.getpid(), signal.SIGKILL)
stage.run = killed
from pipeline.cli import main
main(sys.argv[2:])
"""
"""A pipeline that dies in the stage named first, when its work is done and nothing of it is in place yet."""


class Project:
    """A folder in which a user works: the tiny configuration, and where runs and MLflow's data come to lie."""

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder = folder
        self.config = folder / "tiny.yaml"
        self.config.write_text(yaml.safe_dump(settings))

    def pipeline(self, *words, die_in=None):
        """Run the command with ``words``, or let it be killed in the stage ``die_in``."""
        start = ["-m", "pipeline"] if die_in is None else ["-c", KILLER, die_in]
        return self.process([*start, *map(str, words)])

    def npu_run(self, *words):
        """Run ``npu-run`` with ``words``."""
        return self.process(["-m", "runtime", *map(str, words)])

    def process(self, words):
        """Run Python with ``words`` in the folder."""
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        done.said = done.stdout + done.stderr
        return done

    def run(self, name="tiny"):
        """The folder of a run."""
        return self.folder / "runs" / name


@pytest.fixture(scope="session")
def settings(tiny_video, tmp_path_factory):
    """What the tiny configuration says; its bundle is signed."""
    key = keys.new("ci", tmp_path_factory.mktemp("keys")).private
    return {
        "name": "tiny",
        "target": "coral-edgetpu-usb3",
        "data": {
            "format": "video",
            "video": str(tiny_video / "clip.mp4"),
            "annotations": str(tiny_video / "annotations.json"),
            "train_frames": [0, 16],
            "validation_frames": [16, 24],
        },
        "preprocess": {"size": [64, 48]},
        "train": {"epochs": 2, "batch_size": 4, "accelerator": "cpu"},
        "quantize": {"calibration_images": 4, "error_images": 1},
        "coverage": {"min_macs_on_npu": 0.9},
        "partition": {"objective": "coverage"},
        "package": {
            "score_threshold": 0.01,
            "lines": [{"name": "door", "start": [64, 0], "end": [64, 96]}],
            "version": 3,
            "sign": str(key),
        },
        "tracking": {"uri": "sqlite:///mlflow.db"},
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory, settings):
    """A project whose run went through at once; tests read it, and leave the run ``tiny`` as it is."""
    project = Project(tmp_path_factory.mktemp("finished"), settings)
    project.first = project.pipeline("run", project.config)
    assert project.first.returncode == 0, project.first.said
    return project
