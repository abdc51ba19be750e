"""The whole way on a tiny clip: one command, what it leaves, and what scripts rely on."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from run_files import contents

STAGES = ["train", "quantize", "export", "coverage", "partition", "package"]


def report(project, name="tiny"):
    return json.loads((project.run(name) / "report.json").read_text())


def test_the_report_tells_what_scripts_rely_on(finished):
    told = report(finished)
    assert told["schema"] == 1
    assert told["target"] == "coral-edgetpu-usb3"
    assert len(told["config_digest"]) == 64
    assert [stage["name"] for stage in told["stages"]] == STAGES
    assert all({"state", "seconds", "why"} <= set(stage) for stage in told["stages"])
    metrics = told["metrics"]
    for name in ("train.ap50", "quantize.ap50", "package.ap50", "package.bundle_bytes"):
        assert metrics[name] is not None
    assert metrics["package.differing_bytes"] == 0
    assert metrics["package.golden_bytes"] > 0
    assert metrics["coverage.macs_on_npu"] == 1.0
    assert metrics["quantize.ap50"] == metrics["package.ap50"]  # all on the NPU: the same integers twice
    assert metrics["export.torch_difference"] < 1e-4
    assert {node["device"] for node in told["coverage"]} == {"npu"}
    assert {"name", "op", "device", "reasons"} <= set(told["coverage"][0])


def test_the_bundle_and_the_deploy_folder_lie_where_promised(finished):
    package = finished.run() / "package"
    assert (package / "tiny.npub").read_bytes() == (package / "deploy" / "tiny.npub").read_bytes()
    deploy = {path.name for path in (package / "deploy").iterdir()}
    assert {"npu-run.pyz", "requirements.txt", "tiny.npub"} <= deploy
    page = (finished.run() / "report.html").read_text()
    assert "tiny" in page
    assert "<svg" in page


def test_a_second_run_finds_everything_fresh(finished):
    again = finished.pipeline("run", finished.config)
    assert again.returncode == 0
    assert [f"{stage}: fresh" in again.stdout for stage in STAGES] == [True] * 6


def test_the_deploy_folder_replays_the_golden_vectors(finished):
    deploy = finished.run() / "package" / "deploy"
    words = [sys.executable, "npu-run.pyz", "selftest", "tiny.npub", "--json"]
    done = subprocess.run(words, cwd=deploy, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["differing"] == 0


def test_the_deployed_bundle_is_signed(finished, settings):
    deploy = finished.run() / "package" / "deploy"
    public = Path(settings["package"]["sign"]).with_suffix(".pub")
    words = [sys.executable, "npu-run.pyz", "info", "tiny.npub", "--json", "--trust", public]
    done = subprocess.run(words, cwd=deploy, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert (facts["version"], facts["signature"]["state"], facts["signature"]["trusted"]["name"]) == (
        3,
        "trusted",
        "ci",
    )
    assert json.loads(facts["provenance"]["quantize.recipe"])["range"] == ["mse"]
    assert facts["provenance"]["quantize.calibration_images"] == "4"
    assert len(facts["provenance"]["quantize.calibration_sha256"]) == 64
    assert float(facts["provenance"]["quantize.ap50"]) == pytest.approx(
        report(finished)["metrics"]["quantize.ap50"], 1e-5
    )


def test_events_have_one_object_per_frame(finished, tiny_video):
    events = finished.folder / "events.jsonl"
    bundle = finished.run() / "package" / "tiny.npub"
    done = finished.npu_run(bundle, "--source", tiny_video / "clip.mp4", "--events", events, "--json")
    assert done.returncode == 0, done.said
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(24))
    assert lines[5]["time_s"] == pytest.approx(0.5)
    assert set(lines[0]) == {"frame", "time_s", "detections", "counts"}
    assert lines[0]["counts"] == {"door": {"in": 0, "out": 0}}
    found = [detection for line in lines for detection in line["detections"]]
    assert found
    assert all(set(each) == {"box", "score", "label", "track"} for each in found)
    assert events.read_bytes() == (finished.run() / "package" / "demo" / "events.jsonl").read_bytes()


def test_mlflow_has_the_run_and_the_registered_model(finished):
    with sqlite3.connect(finished.folder / "mlflow.db") as database:
        metrics = dict(database.execute("select key, value from latest_metrics").fetchall())
        parameters = dict(database.execute("select key, value from params").fetchall())
        tags = dict(database.execute("select key, value from tags").fetchall())
        models = [name for (name,) in database.execute("select name from registered_models")]
        epochs = database.execute("select count(*) from metrics where key = 'train.epoch.ap50'").fetchone()[0]
    assert metrics["package.differing_bytes"] == 0
    assert parameters["train.epochs"] == "2"
    assert tags["target"] == "coral-edgetpu-usb3"
    assert models == ["tiny"]
    assert epochs == 2
    assert metrics["train.ap50"] == report(finished)["metrics"]["train.ap50"]


def test_another_target_shares_the_training_and_what_is_quantized_alike(finished):
    shutil.copytree(finished.run(), finished.run("other"))
    changes = ["--set", "name=other", "--set", "target=conv-only", "--set", "tracking=off"]
    done = finished.pipeline("run", finished.config, *changes)
    assert done.returncode == 0, done.said
    assert "train: fresh" in done.stdout
    assert "quantize: fresh" in done.stdout  # the two agree in scheme and contract
    assert "export: stale because" in done.stdout
    assert report(finished, "other")["metrics"]["package.differing_bytes"] == 0


def test_a_run_killed_in_every_stage_ends_with_the_same_files(finished, tmp_path, settings):
    project = type(finished)(tmp_path, {**settings, "tracking": "off"})
    for stage in STAGES:
        killed = project.pipeline("run", project.config, die_in=stage)
        assert killed.returncode == -9, killed.said
    done = project.pipeline("run", project.config)
    assert done.returncode == 0, done.said
    assert contents(project.run()) == contents(finished.run())
