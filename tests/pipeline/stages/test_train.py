"""The train stage on a tiny clip: what it writes, on one process and on two, and where it refuses to start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import RunConfig, TrainConfig
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.stages import train
from pipeline.tasks.detection.learner import AVERAGE_DECAY, follow_weights, progress
from pipeline.training.launch import place
from pipeline.workspace import Context, Quiet

ROOT = Path(__file__).parents[3]
LEARNING = {"epochs": 12, "learning_rate": 0.01, "augment": {"scale": 0, "shift": 0, "colour": 0}}
"""What finds the people of the tiny clip in about two seconds."""


class Listener(Quiet):
    """A ``Progress`` that remembers."""

    def __init__(self):
        self.total, self.done, self.what = 0, 0, []
        self.messages, self.metrics = [], []

    def start(self, total, what):
        self.total, self.done = total, 0
        self.what.append(what)

    def advance(self, n=1):
        self.done += n

    def message(self, text):
        self.messages.append(text)

    def metric(self, name, value, step):
        self.metrics.append((name, value, step))


def run(settings, out, **changes):
    settings["train"].update(changes)
    out.mkdir(exist_ok=True)
    listener = Listener()
    return train.run(Context(RunConfig(**settings), out, {}, listener)), listener


def test_a_run_writes_weights_history_and_metrics(tiny_settings, tmp_path):
    result, listener = run(tiny_settings, tmp_path / "out", epochs=2)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [0, 1]
    assert set(history[0]) == {"epoch", "loss", "ap50", "ap", "learning_rate"}
    assert result.metrics["epochs"] == 2
    assert result.metrics["parameters"] == 143_685
    assert result.metrics["ap50"] == pytest.approx(max(epoch["ap50"] for epoch in history), abs=1e-6)
    assert listener.what == ["decode frames", "decode frames", "train"]
    assert (listener.total, listener.done) == (8, 8)
    assert ("ap50", history[1]["ap50"], 1) in listener.metrics
    assert not (tmp_path / "out" / "cache").exists()
    assert len(load_file(tmp_path / "out" / "model.safetensors")) > 100


def test_layers_that_share_their_weights_are_kept(tiny_settings, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run(tiny_settings, tmp_path / "out", epochs=1, model={"factory": "tinynets:tied"})
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(weights["middle.0.weight"], weights["again.0.weight"])


def test_training_learns_and_the_seed_decides(tiny_settings, tmp_path):
    tiny_settings["train"] |= LEARNING
    result, _ = run(tiny_settings, tmp_path / "a")
    assert result.metrics["ap50"] > 0.5
    tiny_settings["train"]["epochs"] = 1
    weights = []
    for name, seed in (("b", 0), ("c", 0), ("d", 1)):
        run(tiny_settings, tmp_path / name, seed=seed)
        weights.append(load_file(tmp_path / name / "model.safetensors")["scores.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_early_stopping_stops(tiny_settings, tmp_path):
    result, _ = run(tiny_settings, tmp_path / "out", epochs=9, patience=1, learning_rate=1e-9)
    assert result.metrics["epochs"] == 2


def test_coco_folders_train_too(tiny_settings, tiny_images, tmp_path):
    tiny_settings["data"] = {
        "format": "coco",
        "train_images": str(tiny_images / "train"),
        "train_annotations": str(tiny_images / "train.json"),
        "validation_images": str(tiny_images / "validation"),
        "validation_annotations": str(tiny_images / "validation.json"),
    }
    result, _ = run(tiny_settings, tmp_path / "out", workers=1)
    assert result.metrics["epochs"] == 1


def test_corrupt_image_in_a_data_loader_process_is_named(tiny_settings, tiny_images, tmp_path):
    import shutil  # noqa: PLC0415

    shutil.copytree(tiny_images, tmp_path / "images")
    path = tmp_path / "images" / "train" / "0007.png"
    path.write_bytes(path.read_bytes()[:100])
    tiny_settings["data"] = {
        "format": "coco",
        "train_images": str(tmp_path / "images" / "train"),
        "train_annotations": str(tmp_path / "images" / "train.json"),
        "validation_images": str(tiny_images / "validation"),
        "validation_annotations": str(tiny_images / "validation.json"),
    }
    with pytest.raises(DataError, match=r"0007.png"):
        run(tiny_settings, tmp_path / "out", workers=1)


def test_two_processes_with_gloo_train_together(tiny_settings, tmp_path):
    """The validation of each epoch covers both halves, so it equals the evaluation of the weights it kept."""
    tiny_settings["train"] |= LEARNING
    result, listener = run(tiny_settings, tmp_path / "out", devices=2)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert len(history) == 12
    assert result.metrics["ap50"] > 0.3
    assert result.metrics["ap50"] == pytest.approx(max(epoch["ap50"] for epoch in history), abs=1e-6)
    assert (listener.total, listener.done) == (48, 48)
    assert any("epoch 12/12" in message for message in listener.messages)


SCRIPT = """
import os, sys, yaml
from pathlib import Path
from pipeline.config import RunConfig
from pipeline.stages import train
from pipeline.workspace import Context, Quiet
settings, out = sys.argv[1:]
result = train.run(Context(RunConfig(**yaml.safe_load(Path(settings).read_text())), Path(out), {}, Quiet()))
print("rank", os.environ["RANK"], *result.metrics)
"""


def test_torchrun_is_picked_up(tiny_config, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tiny_config), str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["rank 0 ap50 ap epochs parameters", "rank 1"]
    assert len(json.loads((out / "history.json").read_text())) == 1
    assert (out / "model.safetensors").exists()


def test_a_loss_that_is_not_a_number_is_said(tiny_settings, tmp_path):
    tiny_settings["preprocess"]["std"] = [1e-38, 1e-38, 1e-38]
    with pytest.raises(ModelError, match=r"train.learning_rate.*not a number in epoch 1"):
        run(tiny_settings, tmp_path / "out")


def torchrun(monkeypatch, local, world):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for name, value in (("LOCAL_WORLD_SIZE", local), ("WORLD_SIZE", world), ("RANK", world - 1)):
        monkeypatch.setenv(name, str(value))


def test_place_on_a_machine_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert place(TrainConfig()).world == 1
    assert place(TrainConfig(devices=2)).rank is None
    with pytest.raises(ConfigError, match=r"train.accelerator.*no GPU"):
        place(TrainConfig(accelerator="gpu"))
    with pytest.raises(ConfigError, match=r"train.num_nodes.*torchrun"):
        place(TrainConfig(num_nodes=2))
    with pytest.raises(ConfigError, match=r"train.batch_size.*8 processes"):
        place(TrainConfig(batch_size=4, devices=8))


def test_place_on_a_machine_with_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = place(TrainConfig())
    assert (found.accelerator, found.devices, found.rank) == ("gpu", 4, None)
    assert place(TrainConfig(accelerator="cpu")).accelerator == "cpu"
    with pytest.raises(ConfigError, match="8 of 4 GPUs"):
        place(TrainConfig(devices=8))


def test_place_under_torchrun(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    torchrun(monkeypatch, local=2, world=4)
    found = place(TrainConfig(num_nodes=2))
    assert (found.devices, found.nodes, found.rank) == (2, 2, 3)
    with pytest.raises(ConfigError, match="torchrun started 2 processes on 2 machines"):
        place(TrainConfig(num_nodes=1))
    with pytest.raises(ConfigError, match="devices 4"):
        place(TrainConfig(num_nodes=2, devices=4))


def test_precision_follows_the_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for native, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert train._precision(TrainConfig(), place(TrainConfig())) == precision
    assert train._precision(TrainConfig(), place(TrainConfig(accelerator="cpu"))) == "32-true"
    assert train._precision(TrainConfig(precision="32-true"), place(TrainConfig())) == "32-true"


def test_average_follows_fast_at_first_and_slowly_later():
    for updates, decay in ((1, 2 / 11), (10_000, AVERAGE_DECAY)):
        averaged = [torch.zeros(2)]
        follow_weights(averaged, [torch.ones(2)], updates)
        assert averaged[0].tolist() == pytest.approx([1 - decay] * 2)
    counters = [torch.tensor(3)]
    follow_weights(counters, [torch.tensor(9)], 1)
    assert counters[0] == 9


def test_progress_is_a_falling_loss_until_something_is_found():
    assert [progress({"ap50": ap50, "loss": loss}) for ap50, loss in ((0.0, 3.0), (0.0, 2.0), (0.1, 4.0))] == [
        -3,
        -2,
        0.1,
    ]


def test_a_missed_floor_of_accuracy_is_a_gate():
    assert train._gates(0.5, 0.5) == ()
    assert train._gates(0.4, 0.5) == ("train.min_ap50 is 50.00%, training reached 40.00%",)
