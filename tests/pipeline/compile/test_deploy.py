"""The deploy folder and the runnable runtime."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import runtime
from pipeline.compile.deploy import build_deploy, build_pyz


def test_the_pyz_holds_the_whole_runtime_and_nothing_else(tmp_path):
    build_pyz(tmp_path / "npu-run.pyz")
    root = Path(runtime.__file__).parent
    with zipfile.ZipFile(tmp_path / "npu-run.pyz") as file:
        names = set(file.namelist())
        assert file.testzip() is None
    sources = [*root.rglob("*.py"), *root.rglob("*.html")]
    expected = {path.relative_to(root.parent).as_posix() for path in sources}
    assert names == {"__main__.py", "runtime/py.typed"} | expected
    assert (tmp_path / "npu-run.pyz").read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.access(tmp_path / "npu-run.pyz", os.X_OK)


def test_the_pyz_is_the_same_bytes_every_time(tmp_path):
    build_pyz(tmp_path / "a.pyz")
    build_pyz(tmp_path / "b.pyz")
    assert (tmp_path / "a.pyz").read_bytes() == (tmp_path / "b.pyz").read_bytes()


def test_the_pyz_runs_away_from_the_sources(tmp_path):
    build_pyz(tmp_path / "npu-run.pyz")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-P", "npu-run.pyz", "info", "none.npub"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "npu-run: none.npub: cannot be read: No such file or directory\n")
    probe = "import sys; sys.path.insert(0, 'npu-run.pyz'); import runtime.session; print(runtime.session.__file__)"
    command = [sys.executable, "-P", "-c", probe]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "npu-run.pyz" in ended.stdout


def test_the_deploy_folder(tmp_path):
    (tmp_path / "cctv.npub").write_bytes(b"bundle")
    build_deploy(tmp_path / "deploy", tmp_path / "cctv.npub")
    names = sorted(path.name for path in (tmp_path / "deploy").iterdir())
    assert names == ["cctv.npub", "npu-run.pyz", "requirements-video.txt", "requirements.txt"]
    assert (tmp_path / "deploy" / "cctv.npub").read_bytes() == b"bundle"
    pinned = dict(line.split("==") for line in (tmp_path / "deploy" / "requirements.txt").read_text().split())
    assert pinned == {name: importlib.metadata.version(name) for name in ("numpy", "onnxruntime")}
    video = (tmp_path / "deploy" / "requirements-video.txt").read_text()
    assert video.startswith("-r requirements.txt\nav==")
    extra = [line.split("==")[0] for line in video.splitlines()[1:]]
    metadata = json.dumps(extra)
    assert metadata == '["av", "pillow", "supervision", "trackers"]'
