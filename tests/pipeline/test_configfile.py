import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.configfile import load, missing_files, narrow, schema
from pipeline.errors import ConfigError
from runtime import manifest

ROOT = Path(__file__).parents[2]
VALID = """\
name: shop
target: coral-edgetpu-usb3
data:
  format: video
  video: data/clip.mp4
  annotations: data/boxes.json
  train_frames: [0, 6]
  validation_frames: [6, 8]
quantize:
  calibration_images: 64
"""


def write(folder, text):
    path = folder / "shop.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(folder, text, *overrides):
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value).replace(str(path), "shop.yaml")


def test_shipped_configurations_are_valid_and_name_files_that_exist():
    paths = sorted((ROOT / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        assert missing_files(load(path)) == []


def test_paths_are_relative_to_the_file(tmp_path):
    loaded = load(write(tmp_path, VALID))
    assert loaded.config.data.video == tmp_path / "data/clip.mp4"
    assert loaded.files["data.annotations"] == tmp_path / "data/boxes.json"
    assert loaded.settings["data.video"] == "data/clip.mp4"


def test_absolute_paths_stay(tmp_path):
    loaded = load(write(tmp_path, VALID.replace("data/clip.mp4", "/videos/clip.mp4")))
    assert loaded.config.data.video == Path("/videos/clip.mp4")


def test_missing_files_are_told_all_at_once(tmp_path):
    loaded = load(write(tmp_path, VALID))
    lines = missing_files(loaded)
    assert [re.search(r"data\.\w+", line).group() for line in lines] == ["data.video", "data.annotations"]
    assert "data.video is data/clip.mp4, which does not exist (paths are relative to this file)" in lines[0]


def test_the_digest_does_not_depend_on_where_the_file_lies(tmp_path, monkeypatch):
    first = load(write(tmp_path, VALID))
    (tmp_path / "else" / "where").mkdir(parents=True)
    second = load(write(tmp_path / "else" / "where", "# a comment\n" + VALID))
    monkeypatch.chdir(tmp_path)
    assert first.digest == second.digest == load(Path("shop.yaml")).digest
    assert first.digest != load(tmp_path / "shop.yaml", ["train.epochs=3"]).digest
    assert first.digest == load(tmp_path / "shop.yaml", ["tracking=off"]).digest


def test_relative_configuration_paths_resolve_to_absolute_ones(tmp_path, monkeypatch):
    write(tmp_path, VALID)
    monkeypatch.chdir(tmp_path)
    assert load(Path("shop.yaml")).config.data.video == tmp_path / "data/clip.mp4"


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_tracking_can_be_off(tmp_path, word):
    assert load(write(tmp_path, VALID + f"tracking: {word}\n")).config.tracking == "off"


def test_unknown_setting_names_the_nearest(tmp_path):
    assert complaint(tmp_path, VALID.replace("calibration_images", "calibration_imgs")) == (
        "shop.yaml: quantize.calibration_imgs is not a setting (did you mean calibration_images?) at line 10"
    )


def test_setting_of_another_section_is_found(tmp_path):
    said = complaint(tmp_path, VALID + "train: {calibration_images: 3}\n")
    assert "train.calibration_images is not a setting (did you mean quantize.calibration_images?) at line 11" in said


def test_unknown_setting_without_a_near_name_lists_the_settings(tmp_path):
    assert "export.zzz is not a setting (settings here: opset) at line 11" in complaint(
        tmp_path, VALID + "export: {zzz: 1}\n"
    )


def test_all_violations_are_told_at_once(tmp_path):
    text = VALID.replace("calibration_images: 64", "calibration_images: 0") + "train: {epochs: ten, epoch: 1}\n"
    assert complaint(tmp_path, text.replace("target: coral-edgetpu-usb3\n", "")).splitlines() == [
        "shop.yaml: target is missing",
        "shop.yaml: train.epochs should be a valid integer, unable to parse string as an integer, not 'ten' at line 10",
        "shop.yaml: train.epoch is not a setting (did you mean epochs?) at line 10",
        "shop.yaml: quantize.calibration_images should be greater than or equal to 1, not 0"
        " (taken evenly from the training split) at line 9",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format: video", "format: movie", "data.format is 'movie', not one of 'video', 'coco' at line 4"),
        ("  format: video\n", "", "data.format is missing (one of video, coco)"),
        ("  video:", "  vidoe:", "data.vidoe is not a setting (did you mean video?) at line 5"),
        ("  video:", "  vidoe:", "data.video is missing"),
        ("[0, 6]", "[0]", "data.train_frames[1] is missing"),
        ("[0, 6]", "3", "data.train_frames should be a valid list, not 3"),
        ("name: shop", "name: My Shop", "name should match pattern"),
        ("quantize:\n  calibration_images: 64", "quantize: 3", "quantize should be a mapping of settings, not 3"),
        ("quantize:\n  calibration_images: 64", "quantize:", "quantize should be a mapping of settings, not nothing"),
        ("quantize:\n  calibration_images: 64", "tracking: [1]", "tracking should be a mapping of settings or should"),
        (
            "quantize:\n  calibration_images: 64",
            "tracking: {url: x}",
            "tracking.url is not a setting (did you mean uri?)",
        ),
        ("quantize:\n  calibration_images: 64", "train: {devices: two}", "or should be 'auto', not 'two'"),
        ("quantize:\n  calibration_images: 64", "1: 2", "keys should be strings"),
        ("name: shop", "name: shop\nname: store", "name is set twice, at lines 1 and 2"),
        ("format: video", "format: video\n  format: coco", "data.format is set twice, at lines 4 and 5"),
        ("name: shop", "name:\tshop\n\tx: 1", "indent with spaces, not tabs"),
        ("name: shop", "name: a: b", "is not valid YAML: mapping values are not allowed here at line 1"),
        ("name: shop", "name: 2024-99-99", "is not valid YAML: month must be in 1..12"),
        ("name: shop", "name: &a [*a]", "contains itself at line 1"),
        ("name: shop", "name: !!python/object:os.system x", "is not valid YAML: could not determine a constructor"),
        ("name: shop", "name: \x07", "is not valid YAML: unacceptable character"),
        ("name: shop", "name: " + "[" * 5000, "is nested too deeply"),
        ("name: shop", "---\nname: shop\n---\nname: shop", "expected a single document"),
        ("name: shop", f"name: {'a' * 101}", "name should have at most 100 characters, not 'aaa"),
        ("target: coral-edgetpu-usb3", "target: ../coral", "target should match pattern"),
        ("  video: data/clip.mp4", "  video: [x]", "data.video should be a path, not a list"),
        ("[0, 6]", "[0, 99999999999]", "data.train_frames[1] should be less than or equal to 2147483647"),
        ("calibration_images: 64", f"calibration_images: 0x{'f' * 5000}", "not a number of 20000 bits"),
        ("calibration_images: 64", f"calibration_images: {'x' * 500}", f"not '{'x' * 79}..."),
    ],
)
def test_wrong_values_are_named(tmp_path, old, new, said):
    text = VALID.replace(old, new, 1)
    assert text != VALID
    assert said in complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data=video", "data should be a mapping of settings, not 'video'"),
        ("preprocess.size=[0, 48]", "preprocess.size[0] should be greater than or equal to 16, not 0"),
        ("preprocess.mean=[0, .nan, 0]", "preprocess.mean[1] should be a finite number, not nan"),
        ("preprocess.std=[1, 1, 0]", "preprocess.std[2] should be greater than 0, not 0"),
        ("preprocess.std=[1, 1, .inf]", "preprocess.std[2] should be a finite number, not inf"),
        ("train.learning_rate=.inf", "train.learning_rate should be a finite number, not inf"),
        ("train.devices=0", "train.devices should be greater than or equal to 1 or should be 'auto', not 0"),
        ("train.model.options=&a {b: *a}", "the value is not valid YAML (quote it)"),
        ("package.lines=[{name: a, start: [1, 2], end: [1, 2]}]", "package.lines[0] needs two different points"),
        ("package.lines=[{name: a, start: [.inf, 2], end: [1, 2]}]", "package.lines[0].start[0] should be a finite"),
        ("package.lines=[{name: a, start: [1.0e+9, 2], end: [1, 2]}]", "package.lines[0].start[0] should be less than"),
        ("package.lines=[{name: '', start: [0, 2], end: [1, 2]}]", "package.lines[0].name should have at least 1"),
        (
            "package.lines=[{name: a, start: [0, 2], end: [1, 2]}, {name: a, start: [0, 3], end: [1, 3]}]",
            "package.lines name a twice",
        ),
        (
            "package.zones=[{name: a, points: [[0, 0], [1, 0]]}]",
            "package.zones[0].points has 2 corners; a zone has 3 to 100",
        ),
        ("package.zones=[{name: a, points: [[0, 0], [1, 0], [0, 0]]}]", "package.zones[0].points has a corner twice"),
        (
            "package.zones=[{name: a, points: [[0, 0], [1, 0], [1, 1]]}, {name: a, points: [[0, 0], [2, 0], [1, 1]]}]",
            "package.zones name a twice",
        ),
    ],
)
def test_values_that_would_fail_much_later_are_refused_at_once(tmp_path, override, said):
    assert complaint(tmp_path, VALID, override).startswith(f"--set {override}: {said}")


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(tmp_path):
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
    assert "says more than 50000 things" in complaint(tmp_path, f"a0: &a0 [x]\n{bomb}{VALID}")


def test_every_file_and_folder_is_what_it_should_be(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "loop.json").symlink_to("loop.json")
    path = write(tmp_path, VALID.replace("data/clip.mp4", "data").replace("data/boxes.json", "loop.json"))
    assert [line.partition(": ")[2] for line in missing_files(load(path))] == [
        "data.video is data, which is a folder (name a file in it)",
        "data.annotations is loop.json, which cannot be read: Too many levels of symbolic links",
    ]
    path = write(tmp_path, VALID.replace("data/clip.mp4", r'"a\0b"'))
    assert "data.video is a\0b, which cannot be a path: embedded null byte" in missing_files(load(path))[0]
    long = "x" * 5000
    coco = {"format": "coco", "train_images": "shop.yaml", "train_annotations": long}
    coco |= {"validation_images": "data", "validation_annotations": "shop.yaml/x"}
    path = write(tmp_path, yaml.safe_dump({"name": "shop", "target": "toy", "data": coco}))
    assert [line.partition(": ")[2] for line in missing_files(load(path))] == [
        "data.train_images is shop.yaml, which is a file (name the folder it lies in)",
        f"data.train_annotations is {long}, which cannot be read: File name too long",
        "data.validation_annotations is shop.yaml/x, which does not exist (paths are relative to this file)",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"- name\n- target\n", "must be a mapping of settings, not a list"),
        (b"just words\n", "must be a mapping of settings, not text"),
        (b"# nothing but a comment\n", "must be a mapping of settings, not nothing"),
        (b"\x89PNG\r\n\xff\xfe", "is not a text file"),
        (b"name: \0", "is not a text file"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, said):
    assert complaint(tmp_path, content).startswith(f"shop.yaml: {said}")


def test_byte_order_mark_is_ignored(tmp_path):
    assert load(write(tmp_path, b"\xef\xbb\xbf" + VALID.encode())).config.name == "shop"


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: does not exist"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    path = write(tmp_path, VALID)
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(path)


def test_a_path_through_a_file_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load(write(tmp_path, VALID) / "inner.yaml")


def test_overrides_are_typed_and_go_deep(tmp_path):
    overrides = ["train.epochs=3", "train.model.options.width=0.5", "tracking.uri=http://host:5000", "name=corner"]
    config = load(write(tmp_path, VALID), overrides).config
    assert (config.train.epochs, config.train.model.options, config.name) == (3, {"width": 0.5}, "corner")
    assert config.tracking.uri == "http://host:5000"


def test_override_makes_a_section_out_of_off(tmp_path):
    path = write(tmp_path, VALID + "tracking: off\n")
    assert load(path, ["tracking.experiment=x"]).config.tracking.experiment == "x"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "quantize.calibration_imgs=3",
            "quantize.calibration_imgs is not a setting (did you mean calibration_images?)",
        ),
        ("train.epochs=0", "train.epochs should be greater than or equal to 1, not 0"),
        ("train.epochs", "is not an override (write --set section.key=value)"),
        ("=3", "is not an override (write --set section.key=value)"),
        ("train..epochs=3", "is not an override (write --set section.key=value)"),
        ("train.epochs=[1", "the value is not valid YAML (quote it)"),
        ("name.first=1", "name is text, not a section"),
        ("data.train_frames.0=1", "data.train_frames is a list, not a section"),
    ],
)
def test_wrong_override_is_named_as_such(tmp_path, override, said):
    assert complaint(tmp_path, VALID, override).startswith(f"--set {override}: {said}")


def test_narrowing_keeps_what_is_wanted_and_nothing_else(tmp_path):
    config = load(write(tmp_path, VALID)).config
    narrowed = narrow(config, ("data", "train.model", "name"))
    assert (narrowed.data, narrowed.train.model, narrowed.name) == (config.data, config.train.model, "shop")
    for read in (lambda: narrowed.quantize, lambda: narrowed.train.epochs, lambda: narrowed.target):
        with pytest.raises(AttributeError, match="has no attribute"):
            read()
    assert config.train.epochs == 10
    assert pickle.loads(pickle.dumps(narrowed)) == narrowed


def test_schema_is_published():
    assert (ROOT / "configs/config.schema.json").read_text() == schema(), (
        "write it again: pipeline config schema > configs/config.schema.json"
    )


def test_schema_names_every_section_and_refuses_others():
    document = json.loads(schema())
    assert set(document["properties"]) >= {"train", "quantize", "export", "coverage", "partition", "package"}
    assert document["additionalProperties"] is False


def test_a_moved_repository_loads_alike(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    assert load(tmp_path / "configs/cctv.yaml").digest == load(ROOT / "configs/cctv.yaml").digest


def test_settings_hold_every_default(tmp_path):
    settings = load(write(tmp_path, VALID)).settings
    assert settings["train.augment.flip"] == 0.5
    assert settings["package.lines"] == []
    assert yaml.safe_load(json.dumps(dict(settings)))["quantize.calibration_images"] == 64


def test_the_device_takes_as_many_corners_as_a_configuration():
    assert config.MOST_CORNERS == manifest.MOST_CORNERS
