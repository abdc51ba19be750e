"""A use case on several targets: one training, one int8 form per scheme and contract, shared with ``pipeline run``."""

import json
import shutil

import pytest

TARGETS = "coral-edgetpu-usb3,conv-only,ethos-u65-256,stm32mp2"
OWN = "conv-only, coral-edgetpu-usb3, jetson-xavier-nx-gpu"
"""Those that agree with the use case's own target."""


@pytest.fixture(scope="module")
def compare(finished):
    """``pipeline compare`` on a copy of the finished run."""
    shutil.copytree(finished.run(), finished.run("compared"))
    options = ["--set", "name=compared", "--set", "tracking=off"]

    def call(targets, *words, die_in=None):
        return finished.pipeline("compare", finished.config, "--targets", targets, *options, *words, die_in=die_in)

    return call


@pytest.fixture(scope="module")
def compared(compare, finished):
    """A comparison beside a finished run, one of more that is killed in the run's own form, and that one again."""
    first = compare("ethos-u65-256")
    assert first.returncode == 0, first.said
    shutil.rmtree(finished.run("compared") / "quantize")
    killed = compare(TARGETS, die_in="quantize")
    assert killed.returncode == -9, killed.said
    done = compare(TARGETS, "--json", "--html", finished.folder / "compared.html")
    assert done.returncode == 0, done.said
    return first, done


def test_what_a_run_made_is_not_made_again(compared):
    first, _ = compared
    assert "train: fresh" in first.stdout
    assert "quantize for jetson-xavier-nx-gpu: fresh" in first.stdout  # it agrees with the run's own target
    assert "quantize for ethos-u65-256: stale because never run" in first.stdout


def test_a_kill_loses_nothing_that_is_measured(compared):
    _, done = compared
    assert f"quantize for {OWN}: stale because the last run was interrupted" in done.stderr
    assert "quantize for ethos-u65-256: fresh" in done.stderr
    assert "quantize for stm32mp2: stale because never run" in done.stderr


def test_targets_that_agree_share_their_accuracy(compared, finished):
    told = json.loads(compared[1].stdout)
    metrics = json.loads((finished.run() / "report.json").read_text())["metrics"]
    rows = {row["name"]: row for row in told["rows"]}
    assert told["float_accuracy"]["ap50"] == metrics["quantize.float_ap50"]
    own = {"ap50": metrics["quantize.ap50"], "ap": metrics["quantize.ap"]}
    assert [rows[name]["accuracy"] for name in OWN.split(", ")] == [own] * 3
    forms = sorted((finished.run("compared") / "compare").iterdir())
    measured = [json.loads((form / "quantize/stage.json").read_text())["metrics"]["ap50"] for form in forms]
    assert len(forms) == 2
    assert {rows[name]["accuracy"]["ap50"] for name in ("ethos-u65-256", "stm32mp2")} == set(measured)
    assert all(row["accuracy"] is None for row in rows.values() if row["kind"] == "cpu")


def test_the_page_has_all_three_plots(compared, finished):
    assert (finished.folder / "compared.html").read_text().count("<svg") == 3


def test_a_second_comparison_does_nothing(compared, compare):
    again = compare(TARGETS, "--dry-run")
    assert again.returncode == 0, again.said
    lines = again.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.endswith(": fresh") for line in lines), again.stdout


def test_a_run_finds_fresh_what_a_comparison_measured(compared, finished):
    words = ["--set", "name=compared", "--set", "tracking=off", "--dry-run"]
    run = finished.pipeline("run", finished.config, *words)
    assert "quantize: fresh" in run.stdout


def test_a_missed_gate_of_the_float_model_ends_with_3(compared, compare, finished):
    record = finished.run("compared") / "train" / "stage.json"
    before = record.read_text()
    record.write_text(json.dumps({**json.loads(before), "gates": ["train.min_ap50 is missed"]}))
    done = compare("rk3588")
    record.write_text(before)
    assert done.returncode == 3, done.said
    assert "train.min_ap50 is missed" in done.stderr
