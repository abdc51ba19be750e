"""The project around the packages: one command each, and the licence."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline import provenance

ROOT = Path(__file__).parents[2]
TARGETS = [
    "help",
    "setup",
    "run",
    "test",
    "lint",
    "drill",
    "soak",
    "fuzz",
    "bench",
    "bench-quant",
    "ui",
    "peers",
    "clean",
]


def make(*words):
    return subprocess.run(["make", "-s", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_lists_every_target_once():
    assert [line.split()[1] for line in make("help").splitlines()] == TARGETS
    assert make() == make("help")


@pytest.mark.parametrize("target", ["run", "test", "lint", "drill", "soak", "fuzz", "bench", "bench-quant", "ui"])
def test_every_target_sets_itself_up_first(target, tmp_path):
    steps = make("-n", target, f"VENV={tmp_path}/venv", "PYTHON=python3.11").splitlines()
    assert "python3.11 -m venv" in steps[0]
    assert re.search(r"pip install .*--editable '\.\[dev\]'", steps[1])
    assert len(steps) > 3


def test_setup_happens_once(tmp_path):
    (tmp_path / ".ready").touch()
    os.utime(tmp_path / ".ready", (4e9, 4e9))
    assert make("-n", "run", f"VENV={tmp_path}").split() == [f"{tmp_path}/bin/pipeline", "run", "configs/cctv.yaml"]


def test_continuous_integration_runs_make_test():
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    assert "run: .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()


def test_the_licence_is_apache():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"


def git(folder, *words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_commit_is_named_and_whether_files_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_commit(tmp_path) == "unknown"
    git(tmp_path, "init")
    (tmp_path / "x").write_text("1")
    git(tmp_path, "add", "x")
    git(tmp_path, "commit", "-m", "x", "--no-gpg-sign")
    assert re.fullmatch(r"[0-9a-f]{40}", provenance.git_commit(tmp_path))
    (tmp_path / "x").write_text("2")
    assert provenance.git_commit(tmp_path).endswith("-dirty")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_commit(tmp_path) == "unknown"
