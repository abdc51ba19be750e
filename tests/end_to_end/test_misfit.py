"""A network that the NPU does not take whole: priced out by the gate, or cut and run on both devices."""

import json
import textwrap

import pytest

FACTORY = '''
from torch import nn


class Misfit(nn.Module):
    """A detector with a HardSwish in the middle, which the Edge TPU lacks."""

    def __init__(self, labels):
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU6())
        self.misfit = nn.Hardswish()
        self.after = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU6())
        self.scores = nn.Conv2d(16, labels, 1)
        self.boxes = nn.Conv2d(16, 4, 1)

    def forward(self, image):
        found = self.after(self.misfit(self.before(image)))
        return self.scores(found), self.boxes(found)


def misfit(labels):
    return Misfit(labels)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory, settings, finished):
    folder = tmp_path_factory.mktemp("misfit")
    (folder / "mynet.py").write_text(textwrap.dedent(FACTORY))
    train = {**settings["train"], "epochs": 1, "model": {"factory": "mynet:misfit"}}
    return type(finished)(folder, {**settings, "train": train, "tracking": "off"})


@pytest.fixture(scope="module")
def missed(project):
    return project.pipeline("run", project.config)


def test_a_missed_floor_ends_with_3_and_names_the_operator(missed, project):
    assert missed.returncode == 3, missed.said
    assert "coverage.min_macs_on_npu" in missed.stderr
    told = json.loads((project.run() / "report.json").read_text())
    assert told["gates_missed"]
    fallback = next(node for node in told["coverage"] if node["op"] == "HardSwish")
    assert fallback["device"] == "cpu"
    assert any("has no HardSwish" in reason for reason in fallback["reasons"])
    after = [node for node in told["coverage"] if node["op"] == "Conv" and node["device"] == "cpu"]
    assert after
    assert all("one NPU partition" in node["reasons"][0] for node in after)
    assert not (project.run() / "package").exists()


def test_a_missed_floor_is_missed_again_when_nothing_changed(missed, project):
    again = project.pipeline("run", project.config)
    assert again.returncode == 3
    assert "coverage: fresh" in again.stdout


def test_without_a_floor_both_devices_run_it_and_agree_with_their_golden_vectors(missed, project):
    done = project.pipeline("run", project.config, "--set", "coverage.min_macs_on_npu=0")
    assert done.returncode == 0, done.said
    metrics = json.loads((project.run() / "report.json").read_text())["metrics"]
    assert metrics["partition.partitions"] == 2
    assert metrics["partition.npu_partitions"] == 1
    before_swish, image = 16 * 12 * 16, 3 * 64 * 48
    assert metrics["partition.crossing_bytes"] == image + before_swish  # int8
    assert metrics["package.differing_bytes"] == 0
    told = project.npu_run("info", project.run() / "package" / "tiny.npub", "--json")
    assert [part["device"] for part in json.loads(told.stdout)["partitions"]] == ["npu", "cpu"]
