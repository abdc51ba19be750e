"""Training with rounding as the quantize stage does it."""


import pytest
import yaml
from stagechain import Stopped, chain, with_quantize

from pipeline.config import QatConfig
from pipeline.stages import quantize


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
