"""The int8 forms that targets want of one trained model."""

import pytest
import yaml
from smallmodels import TARGETS

from pipeline import cli
from pipeline.commands import loading
from pipeline.comparing import candidates, quantized
from pipeline.comparing.nouns import Accuracy
from pipeline.planning import Options
from pipeline.quantize.encodings import ActivationEncoding, Encodings
from pipeline.targets import library
from pipeline.workspace import Record


@pytest.fixture
def forms(tiny_config, tmp_path):
    loaded = loading.load(tiny_config, ())
    options = Options(tmp_path / "runs", loading.profile(loaded))
    return quantized.forms(loaded, options, candidates.profiles("all", tmp_path / "targets"))


def test_every_target_is_in_one_form_and_forms_differ(forms):
    names = [target.name for form in forms for target in form.targets]
    assert sorted(names) == list(library.names(TARGETS))
    assert len({str(form.targets[0].arithmetic()) for form in forms}) == len(forms) > 1
    for form in forms:
        assert len({str(target.arithmetic()) for target in form.targets}) == 1


def test_where_costs_decide_every_target_is_a_form_of_its_own_with_its_own_host(tiny_config, tmp_path):
    loaded = loading.load(tiny_config, ("quantize.ladder=true",))
    options = Options(tmp_path / "runs", loading.profile(loaded), host=None)
    forms = quantized.forms(loaded, options, candidates.profiles("all", tmp_path / "targets"))
    assert all(len(form.targets) == 1 for form in forms)
    for form in forms:
        chosen = quantized._plan(loaded, options, form).options
        assert chosen.profile.stem == form.names
        assert (chosen.host and chosen.host.stem) == form.targets[0].host


def test_the_form_of_the_use_case_lies_in_its_own_folder(forms, tmp_path):
    own = [form for form in forms if form.folder is None]
    assert ["coral-edgetpu-usb3" in form.names for form in forms] == [form in own for form in forms]
    folders = [form.folder for form in forms if form not in own]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == tmp_path / "runs" / "tiny" / "compare" for folder in folders)


def test_sources_and_confidence_do_not_make_another_form():
    chip = library.load(TARGETS / "rk3588.yaml")
    told = chip.quantization.model_copy(update={"source": "another", "confidence": "weak"})
    assert chip.model_copy(update={"quantization": told}).arithmetic() == chip.arithmetic()
    other = chip.quantization.model_copy(update={"symmetric": True})
    assert chip.model_copy(update={"quantization": other}).arithmetic() != chip.arithmetic()


@pytest.mark.parametrize(("zero", "known"), [(0, True), (-3, False)])
def test_what_breaks_a_targets_scheme_is_not_its_accuracy(tmp_path, zero, known):
    encodings = Encodings({"x": ActivationEncoding(-1.0, 1.0, 0.01, zero)}, {})
    encodings.save(tmp_path / "encodings.json")
    chips = tuple(library.load(TARGETS / f"{name}.yaml") for name in ("jetson-xavier-nx-dla", "rk3588"))
    form = quantized.Form(chips, TARGETS / "rk3588.yaml", None)
    numbers = {"ap50": 0.8, "ap": 0.4, "float_ap50": 0.9, "float_ap": 0.5}
    found = quantized._measured([(form, Record({}, {}, 1.0, numbers, ("a gate",)), tmp_path)])
    assert found.floating == Accuracy(0.9, 0.5)
    assert found.int8["rk3588"] == Accuracy(0.8, 0.4)
    assert ("jetson-xavier-nx-dla" in found.int8) is known
    assert any("wants zero point 0" in note for note in found.notes["jetson-xavier-nx-dla"]) is not known
    assert found.notes["rk3588"] == ("a gate",)


def test_an_accuracy_that_is_no_number_is_not_known():
    assert quantized._accuracy({"ap50": float("nan"), "ap": 0.1}, "") is None
    assert quantized._accuracy({"ap50": 0.2}, "") is None


def test_missing_data_and_wrong_targets_are_told(tiny_settings, tmp_path, capsys):
    broken = tmp_path / "tiny.yaml"
    broken.write_text(yaml.safe_dump({**tiny_settings, "data": {**tiny_settings["data"], "video": "none.mp4"}}))
    for words, says in (
        (["--targets", "rk3588"], "none.mp4, which does not exist"),
        (["--targets", "rk3588", "--dry-run"], "none.mp4, which does not exist"),
        (["--set", "target=coral-edgetpu-usb"], "did you mean coral-edgetpu-usb"),
        (["--set", "trian.epochs=1"], "did you mean train?"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["compare", str(broken), "--runs", str(tmp_path / "runs"), *words])
        assert stop.value.code == 1
        assert says in capsys.readouterr().err


def test_ctrl_c_says_what_continues(tiny_config, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantized, "measure", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", str(tiny_config), "--targets", "rk3588", "--set", "train.epochs=3"])
    assert stop.value.code == 130
    told = f"continue with: pipeline compare {tiny_config} --targets rk3588 --set train.epochs=3"
    assert told in capsys.readouterr().err
