"""Training that is killed goes on, and ends with the weights of an unbroken run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.config import RunConfig
from pipeline.stages import train
from pipeline.workspace import Context

ROOT = Path(__file__).parents[3]

SCRIPT = """
import os, signal, sys, yaml
from pathlib import Path
from pipeline.config import RunConfig
from pipeline.stages import train
from pipeline.workspace import Context, Quiet

class Killer(Quiet):
    steps = 0
    def advance(self, n=1):
        if training:
            Killer.steps += n
            if Killer.steps == int(step):
                os.kill(os.getpid(), signal.SIGKILL)
    def start(self, total, what):
        global training
        training = what == "train"

training = False
settings, out, step = sys.argv[1:]
train.run(Context(RunConfig(**yaml.safe_load(Path(settings).read_text())), Path(out), {}, Killer()))
"""


class Messages:
    """A ``Progress`` that remembers what was said and which metrics were told."""

    def __init__(self):
        self.texts, self.steps, self.advanced = [], [], 0

    def start(self, total, what):
        self.advanced = 0

    def advance(self, n=1):
        self.advanced += n

    def message(self, text):
        self.texts.append(text)

    def metric(self, name, value, step):
        if name == "ap50":
            self.steps.append(step)


@pytest.fixture
def settings(tiny_settings):
    tiny_settings["train"] |= {"epochs": 3, "learning_rate": 0.01}
    return tiny_settings


def run(settings, out):
    out.mkdir(exist_ok=True)
    told = Messages()
    train.run(Context(RunConfig(**settings), out, {}, told))
    return told


def kill_at_step(settings, out, step):
    """Train in another process that kills itself, without any chance to tidy up, after ``step`` steps."""
    out.mkdir()
    (out.parent / "settings.yaml").write_text(yaml.safe_dump(settings))
    (out.parent / "killer.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(out.parent / "killer.py"), str(out.parent / "settings.yaml"), str(out), str(step)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -9, done.stderr


def same(one, other):
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name].float(), b[name].float(), atol=1e-5), name
    histories = [json.loads((folder / "history.json").read_text()) for folder in (one, other)]
    for mine, yours in zip(*histories, strict=True):
        assert mine == pytest.approx(yours, abs=1e-4)


def test_killed_training_ends_as_an_unbroken_one(settings, tmp_path):
    run(settings, tmp_path / "whole")
    kill_at_step(settings, tmp_path / "killed", step=6)
    history = json.loads((tmp_path / "killed" / "history.json").read_text())
    assert len(history) == 1
    told = run(settings, tmp_path / "killed")
    assert any("goes on after epoch 1" in text for text in told.texts)
    assert told.steps == [0, 1, 2]
    assert told.advanced == 12
    same(tmp_path / "whole", tmp_path / "killed")


def test_damaged_checkpoints_are_named_and_not_used(settings, tmp_path):
    run(settings, tmp_path / "whole")
    again = tmp_path / "again"
    run(settings, again)
    last, previous = (again / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    last.write_bytes(last.read_bytes()[:2000])
    told = run(settings, again)
    assert "last.ckpt: the checkpoint is damaged" in told.texts[0]
    assert "goes on from previous.ckpt" in told.texts[0]
    assert "after epoch 2" in told.texts[1]
    same(tmp_path / "whole", again)

    last.write_bytes(b"")
    previous.write_bytes(previous.read_bytes()[:-100])
    told = run(settings, again)
    assert "starts again" in told.texts[1]
    assert told.steps == [0, 1, 2]
    same(tmp_path / "whole", again)


def test_a_flipped_byte_in_a_checkpoint_is_noticed(settings, tmp_path):
    out = tmp_path / "out"
    run(settings, out)
    last = out / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0xFF
    last.write_bytes(content)
    told = run(settings, out)
    assert "wrong checksum" in told.texts[0]
    assert "goes on from previous.ckpt" in told.texts[0]


@pytest.mark.parametrize(("name", "content"), [("model.safetensors", b"\1" * 9), ("history.json", b"[{")])
def test_what_a_checkpoint_does_not_bring_back_is_made_again(settings, tmp_path, name, content):
    settings["train"] |= {"epochs": 1}
    run(settings, tmp_path / "whole")
    again = tmp_path / "again"
    run(settings, again)
    for damage in (lambda path: path.write_bytes(content), lambda path: path.unlink()):
        damage(again / name)
        told = run(settings, again)
        assert f"{name}: missing or damaged (" in told.texts[0]
        assert "training starts again" in told.texts[0]
        same(tmp_path / "whole", again)


def test_checkpoint_lost_between_two_renames(settings, tmp_path):
    run(settings, tmp_path / "whole")
    again = tmp_path / "again"
    run(settings, again)
    (again / "checkpoints" / "last.ckpt").unlink()
    told = run(settings, again)
    assert "after epoch 2" in told.texts[0]
    same(tmp_path / "whole", again)


def test_a_checkpoint_without_our_history_is_not_used(settings, tmp_path):
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    torch.save({"callbacks": {}}, out / "checkpoints" / "last.ckpt")
    told = run(settings | {"train": settings["train"] | {"epochs": 1}}, out)
    assert "starts again" in told.texts[0]


def test_finished_training_is_not_repeated(settings, tmp_path):
    out = tmp_path / "out"
    run(settings, out)
    before = (out / "model.safetensors").stat().st_mtime_ns
    told = run(settings, out)
    assert told.steps == []
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_checkpoints_are_loaded_without_running_their_code(settings, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    torch.save({"callbacks": Evil()}, out / "checkpoints" / "last.ckpt")
    told = run(settings | {"train": settings["train"] | {"epochs": 1}}, out)
    assert "damaged" in told.texts[0]
    assert not (tmp_path / "touched").exists()
