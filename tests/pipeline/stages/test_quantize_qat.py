"""Training with rounding as the quantize stage does it."""

import pytest
import torch
import yaml
from stagechain import Stopped, chain, with_quantize
from tinyproject import Deadly, Project, killed

from pipeline.config import QatConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.stages import quantize
from pipeline.tasks.detection import learner


@pytest.fixture
def tiny(tmp_path, tiny_settings):
    return chain(tmp_path, tiny_settings, "swish")


class Rising:
    """A measure by which whatever comes later is better, or worse."""

    def __init__(self, by, first=0.5):
        self.by, self.first, self.seen = by, first, []

    def of(self, model):
        self.seen += [] if model in self.seen else [model]
        return {"ap50": self.first + self.by * self.seen.index(model), "ap": 0.1}


@pytest.mark.parametrize("better", [True, False])
def test_what_is_trained_with_rounding_is_kept_only_if_the_measure_gains(tiny, monkeypatch, better):
    measure = Rising(0.1 if better else -0.1)
    monkeypatch.setattr(quantize, "_Measured", lambda *given: measure)
    tiny.run("quantize")
    before = tiny.files()
    measure.seen.clear()
    trained = with_quantize(tiny.config, mode="qat", qat=QatConfig(epochs=1, learning_rate=1e-2))
    told = Stopped(stop=None)
    tiny.run("quantize", config=trained, progress=told)
    assert told.tried == ["qat, 1 epoch"]
    kept = {True: "AP50 0.6000, 0.5000 without it, kept", False: "AP50 0.4000, 0.5000 without it, rolled back"}
    assert told.said[-1] == f"qat, 1 epoch: {kept[better]}"
    assert len(measure.seen) == 2
    after = tiny.files()
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert ("quantize/quantized.onnx" in changed) is better
    saved = yaml.safe_load((tiny.folder / "quantize" / "recipe.yaml").read_text())
    assert saved["kept"] == (["qat, 1 epoch"] if better else [])
    assert not changed & {"quantize/float.onnx", "quantize/encodings.json"}  # ranges and scales stay


def test_what_was_measured_of_weights_trained_otherwise_is_not_taken_for_these(tiny, monkeypatch):
    def told(rate, stop=3):  # the training, and two trials of the ladder
        monkeypatch.setattr(quantize, "_Measured", lambda *given: Rising(0.01, first=-9.0))
        training = QatConfig(epochs=1, learning_rate=rate)
        climbing = with_quantize(tiny.config, mode="qat", qat=training, ladder=True, max_ap50_drop=0.0)
        progress = Stopped(stop)
        with pytest.raises(KeyboardInterrupt):
            tiny.run("quantize", config=climbing, progress=progress)
        return [said for said in progress.said if said.startswith("goes on after")]

    assert told(1e-2) == []
    assert told(2e-2) == []
    assert told(2e-2) == ["goes on after 2 trials that were measured before"]


def test_a_training_that_is_stopped_leaves_no_cache(tiny, monkeypatch):
    cache = tiny.folder / "quantize" / "cache"

    def finetune(*given):
        cache.mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize, "finetune", finetune)
    with pytest.raises(KeyboardInterrupt):
        tiny.run("quantize", config=with_quantize(tiny.config, mode="qat"))
    assert not cache.exists()


def with_qat(config, **changes):
    return with_quantize(config, mode="qat", qat=QatConfig(**changes))


class Told(Stopped):
    """Remembers the numbers too."""

    def __init__(self, stop=None):
        super().__init__(stop)
        self.numbers, self.metrics = {}, []

    def trial(self, what, numbers):
        self.numbers[what] = numbers
        super().trial(what, numbers)

    def metric(self, name, value, step):
        self.metrics.append((name, step))


def losses(told):
    return [said for said in told.said if ": loss " in said]


def die_in_the_second_epoch(tiny, training):
    tiny.run("quantize", config=training, progress=Deadly("qat", 1, 4 + 2))  # of four steps each


def test_a_training_that_was_killed_goes_on_after_its_last_whole_epoch_and_gives_the_same_files(tiny):
    training = with_qat(tiny.config, epochs=3, learning_rate=0.02)
    whole = Told()
    metrics = tiny.run("quantize", config=training, progress=whole).metrics
    files = tiny.files()
    said = losses(whole)
    assert [each.split(": ")[:2] for each in said] == [["qat, 3 epochs", f"epoch {n}/3"] for n in (1, 2, 3)]
    killed(die_in_the_second_epoch, tiny, training, start="spawn")
    told = Told()
    assert tiny.run("quantize", config=training, progress=told).metrics == metrics
    assert "qat, 3 epochs: goes on after epoch 1" in told.said
    assert losses(told) == said[1:]
    assert told.metrics == whole.metrics
    assert tiny.files() == files


def test_a_training_that_is_over_is_not_done_again_when_what_follows_it_is_stopped(tiny):
    training = with_qat(tiny.config, epochs=2)
    told = Told(stop=1)
    with pytest.raises(KeyboardInterrupt):
        tiny.run("quantize", config=training, progress=told)
    assert told.metrics == [("loss", 0), ("learning_rate", 0), ("loss", 1), ("learning_rate", 1)]
    again = Told()
    tiny.run("quantize", config=training, progress=again)
    assert "qat, 2 epochs: goes on after epoch 2" in again.said
    assert not [said for said in again.said if "loss" in said]
    assert again.numbers == told.numbers
    assert not (tiny.folder / "quantize" / "trained").exists()


@pytest.mark.parametrize("change", ["of another training", "is damaged"])
def test_a_checkpoint_that_is_not_of_this_training_is_not_gone_on_from(tiny, change):
    with pytest.raises(KeyboardInterrupt):
        tiny.run("quantize", config=with_qat(tiny.config, epochs=1, learning_rate=0.5), progress=Told(stop=1))
    if change == "is damaged":
        path = tiny.folder / "quantize" / "trained" / "last.ckpt"
        path.write_bytes(path.read_bytes()[:-100])
    told = Told()
    tiny.run("quantize", config=with_qat(tiny.config, epochs=1), progress=told)
    (said,) = [said for said in told.said if "checkpoint" in said]
    assert change in said
    assert said.endswith("it starts again")
    assert len(losses(told)) == 1


def not_a_number(*given):
    return torch.full((), torch.nan, requires_grad=True)


@pytest.mark.parametrize("loss", [None, not_a_number])
def test_a_training_that_diverges_leaves_what_was_found_without_it(tiny, monkeypatch, loss):
    tiny.run("quantize")
    before = tiny.files()
    if loss is not None:
        monkeypatch.setattr(learner, "detection_loss", loss)
    told = Told()
    result = tiny.run("quantize", config=with_qat(tiny.config, epochs=2, learning_rate=1e30), progress=told)
    because = (
        "stem.0: its weights became infinite while they were trained (lower quantize.qat.learning_rate)"
        if loss is None
        else "the loss is not a number in epoch 1 (lower the learning rate)"
    )
    assert told.said[-1] == f"qat, 2 epochs: diverged, so what was found without it is kept: {because}"
    assert told.numbers == {"qat, 2 epochs": {"diverged": 1.0, "kept": 0.0}}
    assert result.metrics["qat_kept"] == 0.0
    assert tiny.files() == before


UNTRAINABLE = r"quantize\.mode: .*Erf.* cannot be trained with rounding \(set it to ptq;"


def test_what_cannot_be_trained_with_rounding_is_refused_before_anything_is_trained(tmp_path, tiny_settings):
    tiny_settings["train"]["model"] = {"factory": "tinynets:erf"}
    with pytest.raises(ModelError, match=UNTRAINABLE):
        Project(tmp_path, tiny_settings).run("runs", mode="qat")
    assert not (tmp_path / "runs/tiny/train").exists()


def test_what_cannot_be_trained_with_rounding_is_refused_before_anything_is_tried(tmp_path, tiny_settings):
    told, tiny = Told(), chain(tmp_path, tiny_settings, "erf")
    with pytest.raises(ModelError, match=UNTRAINABLE):
        tiny.run("quantize", config=with_qat(tiny.config), progress=told)
    assert told.tried == told.said == []


def test_a_recipe_for_another_target_is_refused_before_anything_is_trained(tmp_path, tiny_settings):
    (tmp_path / "recipe.yaml").write_text("target: rk3588")
    with pytest.raises(ConfigError, match=r"is a recipe for rk3588, not for coral-edgetpu-usb3"):
        Project(tmp_path, tiny_settings).run("runs", recipe="recipe.yaml")
    assert not (tmp_path / "runs/tiny/train").exists()


def test_it_runs_in_the_first_of_several_processes_that_torchrun_started(tiny, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    told = Told()
    tiny.run("quantize", config=with_qat(tiny.config, epochs=1), progress=told)
    assert "qat, 1 epoch" in told.tried
