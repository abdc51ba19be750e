import dataclasses
import errno
import json
from importlib import metadata
from pathlib import Path

import pytest
from smallmodels import target

from pipeline.configfile import flatten, load
from pipeline.errors import ConfigError, DataError, GateMissedError, UserError
from pipeline.run import STAGES, plan

FRESH = ["train: fresh", "export: fresh", "package: fresh"]


def stale(said):
    """What each line says after *stale because*, by stage."""
    return dict(line.split(": stale because ") for line in said if ": stale because " in line)


def report(shop):
    return json.loads((shop.folder / "runs/shop/report.json").read_text())


def edit(shop, name, old, new):
    path = shop.src / f"{name}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def break_stage(shop, name, statement):
    edit(shop, name, "    hooks.enter", f"    {statement}\n    hooks.enter")


def test_first_run_runs_everything_and_the_second_nothing(shop):
    said = shop.run()
    assert stale(said) == {"train": "never run", "export": "never run", "package": "never run"}
    assert said[1].startswith("train: done in 0.")
    assert said[1].endswith("loss 0.5, epochs 3")
    before = {path: path.stat().st_mtime_ns for path in (shop.folder / "runs/shop").rglob("*/*")}
    assert shop.run() == FRESH
    assert before == {path: path.stat().st_mtime_ns for path in (shop.folder / "runs/shop").rglob("*/*")}


def test_the_real_stages_are_written_out_in_order_and_read_only_earlier_ones():
    names = [stage.name for stage in STAGES]
    assert names == ["train", "quantize", "export", "coverage", "partition", "package"]
    for index, stage in enumerate(STAGES):
        assert set(stage.after) <= set(names[:index])
        assert stage.module == f"pipeline.stages.{stage.name}"


def test_the_real_stages_read_settings_that_exist():
    settings = dict(load(Path(__file__).parents[2] / "configs/cctv.yaml").settings)
    settings |= {**dict(flatten(target().arithmetic(), "target")), "host": "the profile of the target's host"}
    for stage in STAGES:
        assert all(switch in settings for switch, *_ in stage.switches)
        for section in stage.under({switch: value for switch, value, _ in stage.switches}).sections:
            assert any(name == section or name.startswith(f"{section}.") for name in settings), section


def test_a_changed_setting_is_named_with_both_values(shop):
    shop.run()
    shop.set(train={"epochs": 4})
    assert stale(shop.run())["train"] == "train.epochs changed 3 -> 4"


def test_settings_of_other_sections_do_not_matter(shop):
    shop.run()
    shop.set(quantize={"calibration_images": 5}, coverage={"min_macs_on_npu": 0.5})
    assert shop.run() == FRESH


def test_changed_data_is_named(shop):
    shop.run()
    (shop.folder / "clip.bin").write_bytes(b"Frames")
    said = stale(shop.run())
    assert said == {
        "train": "clip.bin (data.video) changed",
        "export": "train/weights.bin changed",
        "package": "train/weights.bin changed",
    }


def test_touched_data_with_the_same_bytes_are_fresh(shop):
    shop.run()
    (shop.folder / "clip.bin").write_bytes(b"frames")
    assert shop.run() == FRESH


def test_a_changed_target_profile_is_named(shop):
    shop.run()
    (shop.folder / "toy.yaml").write_text("name: toy\nmore: 1\n")
    assert stale(shop.run()) == {"export": "the target's profile toy.yaml changed"}


def test_a_change_of_what_the_profile_inherits_is_named(shop):
    (shop.folder / "chip.yaml").write_text("name: chip\n")
    (shop.folder / "toy.yaml").write_text("name: toy\ninherit: chip\n")
    shop.run()
    assert shop.run() == FRESH
    (shop.folder / "chip.yaml").write_text("name: chip\nmore: 1\n")
    assert stale(shop.run()) == {"export": "the target's profile chip.yaml changed"}


def test_changed_code_is_named_also_when_it_is_imported_by_another_module(shop):
    shop.run()
    (shop.src / "common.py").write_text("FACTOR = 3\n")
    assert stale(shop.run())["train"] == "fakes/common.py changed"


def test_new_and_lost_code_is_named(shop):
    shop.run()
    (shop.src / "more.py").write_text("")
    break_stage(shop, "package", "from fakes import more")
    assert stale(shop.run()) == {"package": "fakes/more.py is new; fakes/package.py changed"}
    edit(shop, "package", "from fakes import more", "pass")
    assert stale(shop.run()) == {"package": "fakes/package.py changed; fakes/more.py is gone"}


def test_many_reasons_are_cut_on_the_terminal_and_whole_in_the_report(shop):
    shop.run()
    shop.set(train={"epochs": 4, "seed": 1, "patience": 2, "batch_size": 8, "workers": 1})
    assert stale(shop.run())["train"] == (
        "train.epochs changed 3 -> 4; train.patience changed 10 -> 2; train.batch_size changed 16 -> 8; and 2 more"
    )
    assert report(shop)["stages"][0]["why"].endswith("train.seed changed 0 -> 1; train.workers changed 0 -> 1")


def test_code_that_changes_while_a_run_lasts_is_not_taken_for_the_code_that_ran(shop):
    edit(
        shop,
        "train",
        "    hooks.enter",
        "    Path(__file__).with_name('package.py').open('a').write('#')\n    hooks.enter",
    )
    shop.run()
    assert stale(shop.run()) == {"package": "fakes/package.py changed"}


def test_a_changed_library_is_named_with_both_versions(shop, monkeypatch):
    shop.run()
    now = metadata.version("numpy")
    monkeypatch.setattr("pipeline.freshness.metadata.version", lambda name: "99.1")
    assert stale(shop.run()) == {"train": f"numpy {now} -> 99.1"}


def test_an_absent_library_is_a_version_too(shop, monkeypatch):
    shop.run(stages=[dataclasses.replace(shop.stages[0], libraries=("no-such-library",))])
    assert json.loads((shop.folder / "runs/shop/train/stage.json").read_text())["key"]["libraries"] == {
        "no-such-library": "absent"
    }


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"tampered"), "output weights.bin changed on disk"),
        (lambda path: path.write_bytes(path.read_bytes()[::-1]), "output weights.bin changed on disk"),
        (lambda path: path.unlink(), "output weights.bin is missing"),
    ],
)
def test_a_damaged_output_is_noticed_and_made_again(shop, damage, reason):
    shop.run()
    before = shop.files()
    damage(shop.folder / "runs/shop/train/weights.bin")
    said = shop.run()
    assert stale(said) == {"train": reason}
    assert said[2:] == ["export: fresh", "package: fresh"]
    assert shop.files() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 2}', "[" * 100_000])
def test_a_damaged_record_is_noticed(shop, text):
    shop.run()
    (shop.folder / "runs/shop/export/stage.json").write_text(text)
    assert "stage.json" in stale(shop.run())["export"]
    assert shop.run() == FRESH


def test_a_later_stage_stays_fresh_when_an_earlier_one_gives_the_same_bytes(shop):
    shop.run()
    shop.set(export={"opset": 19})  # the small stage writes opset // 10
    assert stale(shop.run()) == {"export": "export.opset changed 18 -> 19"}


def test_force_one_stage(shop):
    shop.run()
    assert stale(shop.run(force=("export",))) == {"export": "forced"}


def test_from_runs_a_stage_and_all_after_it(shop):
    shop.run()
    assert stale(shop.run(first="export")) == {
        "export": "forced by --from export",
        "package": "forced by --from export",
    }


def test_to_stops_and_the_report_tells_what_was_not_reached(shop):
    assert len(stale(shop.run(last="export"))) == 2
    assert [(s["name"], s["state"], s["ran"], s["why"]) for s in report(shop)["stages"]] == [
        ("train", "stale", True, "never run"),
        ("export", "stale", True, "never run"),
        ("package", "stale", False, "never run"),
    ]
    assert stale(shop.run()) == {"package": "never run"}


def test_plan_changes_nothing(shop):
    summary = plan(load(shop.config), shop.options(), shop.stages)
    assert [(s.state, s.why) for s in summary.stages] == [
        ("stale", "never run"),
        ("stale", "train comes first"),
        ("stale", "train comes first; export comes first"),
    ]
    assert not (shop.folder / "runs").exists()


def test_a_missed_gate_keeps_the_result_and_stops(shop):
    edit(shop, "hooks", "gates = ()", "gates = ('too few',)")
    for _ in range(2):
        with pytest.raises(GateMissedError, match="too few"):
            shop.run()
        assert (shop.folder / "runs/shop/export/model.txt").exists()
        assert not (shop.folder / "runs/shop/package").exists()
        assert report(shop)["gates_missed"] == ["too few"]
    assert shop.said == ["train: fresh", "export: fresh"]


def test_a_failed_stage_leaves_earlier_results_intact_and_says_how_to_continue(shop):
    shop.run()
    before = shop.files()
    break_stage(shop, "export", "from pipeline.errors import DataError; raise DataError('a box is outside', where='7')")
    with pytest.raises(DataError, match="7: a box is outside"):
        shop.run(command="pipeline run shop.yaml")
    assert {k: v for k, v in shop.files().items() if not k.startswith(".")} == before
    stages = {stage["name"]: stage for stage in report(shop)["stages"]}
    assert [stage["state"] for stage in stages.values()] == ["fresh", "failed", "stale"]
    assert stages["export"]["why"] == "7: a box is outside"
    assert stages["package"]["why"] == "export comes first"
    assert "export.bytes" not in report(shop)["metrics"]
    assert "continue with: pipeline run shop.yaml" in shop.messages.getvalue()


def test_a_bug_in_a_stage_comes_through_and_is_reported(shop):
    break_stage(shop, "train", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        shop.run()
    assert report(shop)["stages"][0]["why"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("error", ["KeyboardInterrupt()", "SystemExit(1)"])
def test_an_interrupted_stage_is_reported(shop, error):
    break_stage(shop, "train", f"raise {error}")
    with pytest.raises(KeyboardInterrupt):
        shop.run()
    assert report(shop)["stages"][0]["why"] == "interrupted"


def test_a_full_disk_is_told_and_earlier_results_stay(shop):
    shop.run()
    before = shop.files()
    shop.set(train={"epochs": 4})
    break_stage(shop, "train", f"raise OSError({errno.ENOSPC}, 'No space left on device')")
    with pytest.raises(UserError, match="runs/shop: no space is left on the disk"):
        shop.run()
    assert {k: v for k, v in shop.files().items() if not k.startswith(".")} == before


def test_a_folder_that_cannot_be_written_is_told(shop):
    where = shop.folder / "runs/shop/.partial/train/weights.bin"
    break_stage(shop, "train", f"raise PermissionError({errno.EACCES}, 'Permission denied', {str(where)!r})")
    with pytest.raises(UserError, match=r"weights.bin: cannot be written: Permission denied"):
        shop.run()


def test_other_operating_system_errors_are_ours(shop):
    break_stage(shop, "train", f"raise OSError({errno.EIO}, 'broken')")
    with pytest.raises(OSError, match="broken"):
        shop.run()


def test_missing_data_are_told_before_anything_runs(shop):
    (shop.folder / "clip.bin").unlink()
    with pytest.raises(ConfigError, match=r"data.video is clip.bin, which does not exist"):
        shop.run()
    assert not (shop.folder / "runs").exists()


def test_a_profile_that_cannot_be_read_is_told(shop):
    (shop.folder / "toy.yaml").unlink()
    with pytest.raises(UserError, match=r"shop.yaml: target is .*toy.yaml, which cannot be read: No such file"):
        shop.run()


def test_a_stage_cannot_read_settings_that_its_key_does_not_hold(shop):
    break_stage(shop, "train", "context.config.export.opset")
    with pytest.raises(AttributeError, match="'RunConfig' object has no attribute 'export'"):
        shop.run()


def test_a_stage_gets_its_provenance_and_its_targets_profile(shop):
    break_stage(shop, "train", "(context.out / 'facts').write_text(f'{context.provenance} {context.profile}')")
    shop.run()
    facts = (shop.folder / "runs/shop/train/facts").read_text()
    assert facts == f"{{'config_digest': '{load(shop.config).digest}', 'git_commit': 'c0ffee'}} {shop.folder}/toy.yaml"


def test_packed_sources_are_part_of_the_key(shop):
    shop.run(stages=[dataclasses.replace(shop.stages[0], packs=("runtime",))])
    key = json.loads((shop.folder / "runs/shop/train/stage.json").read_text())["key"]
    assert "runtime/__main__.py" in key["code"]


def test_what_a_stage_prints_does_not_reach_standard_output(shop, capsys):
    shop.run()
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", "libraries print\n")


def test_the_report_has_its_schema_and_flat_metrics(shop):
    shop.run()
    data = report(shop)
    assert data["schema"] == 1
    assert data["config_digest"] == load(shop.config).digest
    assert data["target"] == "toy"
    assert data["metrics"] == {
        "train.loss": 0.5,
        "train.epochs": 3.0,
        "export.bytes": 36.0,
        "package.size": 1.0,
    }
    assert set(data["stages"][0]) == {"name", "state", "seconds", "why", "ran"}
    assert data["coverage"] == []


def test_the_report_takes_nodes_from_coverage_and_says_null_for_what_json_cannot(shop):
    nodes = [{"name": "conv", "op": "Conv", "device": "npu", "reasons": []}]
    break_stage(shop, "export", f"(context.out / 'coverage.json').write_text('{json.dumps({'nodes': nodes})}')")
    edit(shop, "export", '{"bytes": size}', '{"bytes": float("nan")}')
    stages = shop.stages
    shop.run(stages=[stages[0], dataclasses.replace(stages[1], name="coverage")])
    assert report(shop)["coverage"] == nodes
    assert report(shop)["metrics"]["coverage.bytes"] is None


class Notes:
    """A tracker that remembers."""

    def __init__(self):
        self.said = []

    def metric(self, name, value, step=None):
        self.said.append((name, value, step))

    def results(self, summary):
        self.said.append(("results", [stage.state for stage in summary.stages], summary.gates))

    def close(self, error):
        self.said.append(("close", type(error).__name__))


def test_the_tracker_is_opened_for_stale_stages_only(shop):
    notes = Notes()
    shop.run(track=lambda loaded, commit, console: notes)
    assert notes.said[:3] == [("train.epoch.loss", 1 / (step + 1), step) for step in range(3)]
    assert ("export.bytes", 36.0, None) in notes.said
    assert notes.said[-2:] == [("results", ["stale"] * 3, ()), ("close", "NoneType")]
    shop.run(track=lambda *_: pytest.fail("nothing had to run"))


def test_the_tracker_is_told_of_a_failure(shop):
    notes = Notes()
    break_stage(shop, "train", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        shop.run(track=lambda *_: notes)
    assert notes.said == [("results", ["failed", "stale", "stale"], ()), ("close", "ZeroDivisionError")]


def test_a_tracker_that_cannot_be_opened_stops_the_run_before_the_first_stage(shop):
    def refuse(*_):
        raise UserError("no server")

    with pytest.raises(UserError, match="no server"):
        shop.run(track=refuse)
    assert shop.files() == {}
    assert shop.run()[0] == "train: stale because never run"
