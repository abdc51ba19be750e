"""Three small stages that stand for the real ones, and a use case for them."""

import io
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipeline import cli
from pipeline.configfile import load
from pipeline.freshness import Stage
from pipeline.progress import PlainConsole
from pipeline.report import json_report
from pipeline.run import Options, run

STAGES = (
    Stage("train", "fakes.train", ("data", "train"), libraries=("numpy",), resumes=True),
    Stage("export", "fakes.export", ("export", "target"), after=("train",)),
    Stage("package", "fakes.package", ("package",), after=("train", "export")),
)
"""Named as the real ones, so that the command line takes them; what they do is in ``SOURCES``."""

SOURCES = {
    "__init__": "",
    "common": "FACTOR = 2\n",
    "train": """
from pathlib import Path
from fakes import common, hooks
from pipeline.workspace import Result

def run(context):
    hooks.enter("train", context)
    (context.out / "deep").mkdir(exist_ok=True)
    kept = context.out / "deep" / "checkpoint.txt"
    done = int(kept.read_text()) if kept.exists() else 0
    for epoch in range(done, context.config.train.epochs):
        hooks.step("train", epoch)
        context.progress.metric("loss", 1.0 / (epoch + 1), epoch)
        kept.write_text(str(epoch + 1))
    data = context.config.data.video.read_bytes()
    (context.out / "weights.bin").write_bytes(data * common.FACTOR * context.config.train.epochs)
    return Result({"loss": 0.5, "epochs": context.config.train.epochs})
""",
    "export": """
from fakes import hooks
from pipeline.workspace import Result

def run(context):
    hooks.enter("export", context)
    size = (context.inputs["train"] / "weights.bin").stat().st_size
    (context.out / "model.txt").write_text(f"{size} {context.config.export.opset // 10}")
    print("libraries print")
    return Result({"bytes": size}, gates=hooks.gates)
""",
    "package": """
from fakes import hooks
from pipeline.workspace import Result

def run(context):
    hooks.enter("package", context)
    (context.out / "bundle.txt").write_text((context.inputs["export"] / "model.txt").read_text())
    return Result({"size": 1})
""",
    "hooks": """
gates = ()
ran = []

def enter(stage, context):
    ran.append(stage)

def step(stage, number):
    pass
""",
}

SETTINGS = {
    "name": "shop",
    "target": "toy",
    "data": {
        "format": "video",
        "video": "clip.bin",
        "annotations": "boxes.json",
        "train_frames": [0, 6],
        "validation_frames": [6, 8],
    },
    "train": {"epochs": 3},
    "tracking": "off",
}


class Shop(SimpleNamespace):
    """A use case in a folder of its own, run with the small stages."""

    folder: Path

    def set(self, **sections):
        settings = yaml.safe_load(self.config.read_text())
        for name, value in sections.items():
            both = isinstance(settings.get(name), dict) and isinstance(value, dict)
            settings[name] = {**settings[name], **value} if both else value
        self.config.write_text(yaml.safe_dump(settings))

    def options(self, **changes):
        return Options(runs=self.folder / "runs", profile=self.folder / "toy.yaml", **changes)

    def run(self, *, stages=STAGES, track=None, **changes):
        """Run, and return what was said about each stage."""
        self.reload()
        results = io.StringIO()
        try:
            console = PlainConsole(results, self.messages)
            self.summary = run(load(self.config), self.options(**changes), console, stages=stages, track=track)
        finally:
            self.said = results.getvalue().splitlines()
        return self.said

    def reload(self):
        for name in [name for name in sys.modules if name.split(".")[0] == "fakes"]:
            del sys.modules[name]

    def hooks(self):
        import fakes.hooks  # noqa: PLC0415 (made by this fixture)

        return fakes.hooks

    def files(self):
        """Every file of the run but the ones that tell the time, with its bytes."""
        root = self.folder / "runs" / "shop"
        own = {"stage.json", "report.json", "report.html", ".digests.json", ".lock"}
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name not in own
        }


@pytest.fixture
def shop(tmp_path, monkeypatch):
    package = tmp_path / "src" / "fakes"
    package.mkdir(parents=True)
    for name, text in SOURCES.items():
        (package / f"{name}.py").write_text(text)
    (tmp_path / "clip.bin").write_bytes(b"frames")
    (tmp_path / "boxes.json").write_text("{}")
    (tmp_path / "toy.yaml").write_text("name: toy\n")
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("pipeline.planning.git_commit", lambda: "c0ffee")
    monkeypatch.setattr("pipeline.files.os.fsync", lambda descriptor: None)  # guards against power loss, not kills
    monkeypatch.setattr("pipeline.report.writer.write", json_report.write)  # the page has tests of its own
    made = Shop(folder=tmp_path, src=package, config=tmp_path / "shop.yaml", stages=STAGES, messages=io.StringIO())
    yield made
    made.reload()


@pytest.fixture
def command_line(capsys):
    """Calls ``pipeline`` with words; gives the exit code, standard output and standard error."""

    def call(*words):
        code = 0
        try:
            cli.main(words)
        except SystemExit as stop:
            code = stop.code or 0
        return (code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def onnx_cases():
    """ONNX's own test cases of operators by name; the library makes those of the first call only, so all at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 (makes every case)

        return {case.name: case for case in collect_testcases(None)}


@pytest.fixture
def scored(monkeypatch):
    """How often the engine judged."""
    from pipeline.quantize import trials  # noqa: PLC0415 (imports onnx)

    calls = []
    original = trials.score
    monkeypatch.setattr(trials, "score", lambda *given: calls.append(1) or original(*given))
    return calls
