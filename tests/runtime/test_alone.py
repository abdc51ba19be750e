"""The runtime alone: with numpy and onnxruntime only, as imports and as an installed fact."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipeline.compile.deploy import build_deploy

ABSENT = ("torch", "torchvision", "onnx", "av", "PIL", "supervision", "trackers", "scipy", "cv2", "pipeline")
BLOCKED = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
from runtime.__main__ import main
code = main(sys.argv[1:])
loaded = sorted(set({ABSENT!r}) & set(sys.modules))
assert not loaded, loaded
sys.exit(code)
"""


@pytest.fixture
def frames(tmp_path):
    np.save(tmp_path / "frames.npy", tiny.frames(3))
    return str(tmp_path / "frames.npy")


def blocked(*words):
    command = [sys.executable, "-c", BLOCKED, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_everything_but_video_works_without_the_extra(tmp_path, split_bundle, frames):
    assert blocked("info", split_bundle).returncode == 0
    assert blocked("selftest", split_bundle).returncode == 0
    played = blocked(split_bundle, "--source", frames, "--events", tmp_path / "e.jsonl")
    assert played.returncode == 0
    assert all(line.startswith("npu-run: ") for line in played.stderr.splitlines())
    assert "not tracked" in played.stdout
    assert "tracking and counting need: pip install supervision trackers" in played.stdout
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert len(events) == 3
    assert {detection["track"] for event in events for detection in event["detections"]} == {None}
    assert all(event["counts"] == {} for event in events)


def test_video_without_the_extra_names_it(tmp_path, tiny_bundle, frames):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    for words in (("--source", tmp_path / "clip.mp4"), ("--source", frames, "--annotate", tmp_path / "out.mp4")):
        refused = blocked(tiny_bundle, *words)
        assert refused.returncode == 1
        assert "is needed and is not installed (pip install av pillow supervision trackers)" in refused.stderr


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory):
    """A new environment with the deploy folder's requirements only; skips when there is no package index."""
    folder = tmp_path_factory.mktemp("fresh")
    build_deploy(folder / "deploy", tiny.write(folder / "tiny.npub", tiny.split))
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
    installed = subprocess.run(
        [*command, folder / "deploy" / "requirements.txt"], capture_output=True, text=True, timeout=300, check=False
    )
    if installed.returncode != 0 and "connection" in installed.stderr.lower():
        pytest.skip(f"NOT PROVED: no package index can be reached: {installed.stderr[-300:]}")
    assert installed.returncode == 0, installed.stderr
    return python, folder / "deploy"


@pytest.mark.fresh_env
def test_the_deploy_folder_runs_in_a_fresh_environment(tmp_path, fresh_python, frames):
    python, deploy = fresh_python
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words):
        return subprocess.run(
            [python, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env=environment,
        )

    absent = run("-c", f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n)])")
    assert absent.stdout.strip() == "[]"
    pyz, bundle = deploy / "npu-run.pyz", deploy / "tiny.npub"
    info = run(pyz, "info", bundle, "--json")
    assert (info.returncode, info.stderr) == (0, "")
    assert json.loads(info.stdout)["name"] == "tiny"
    tested = run(pyz, "selftest", bundle, "--json")
    assert json.loads(tested.stdout)["differing"] == 0
    played = run(pyz, bundle, "--source", frames, "--events", "e.jsonl", "--json")
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["frames"] == 3
    assert len(Path(tmp_path, "e.jsonl").read_text().splitlines()) == 3
