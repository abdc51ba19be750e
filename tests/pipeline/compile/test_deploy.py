"""The deploy folder and the runnable runtime."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import runtime
from pipeline.compile.deploy import build_deploy, build_pyz
from runtime.__main__ import main as runtime_main


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
    assert names == [
        "Dockerfile",
        "README.md",
        "cctv.npub",
        "npu-run.pyz",
        "npu-run.service",
        "requirements-mqtt.txt",
        "requirements-signing.txt",
        "requirements-video.txt",
        "requirements.txt",
    ]
    assert (tmp_path / "deploy" / "cctv.npub").read_bytes() == b"bundle"
    pinned = dict(line.split("==") for line in (tmp_path / "deploy" / "requirements.txt").read_text().split())
    assert list(pinned)[:2] == ["numpy", "onnxruntime"]
    assert pinned == {name: importlib.metadata.version(name) for name in pinned}
    for extra, first, names in (
        ("video", "av", ["av", "pillow", "supervision", "trackers"]),
        ("signing", "cryptography", ["cryptography", "cffi", "pycparser"]),
        ("mqtt", "paho-mqtt", ["paho-mqtt"]),
    ):
        lines = (tmp_path / "deploy" / f"requirements-{extra}.txt").read_text().splitlines()
        assert lines[0] == "-r requirements.txt"
        assert lines[1] == f"{first}=={importlib.metadata.version(first)}"
        assert [line.split("==")[0] for line in lines[1:]] == names


@pytest.fixture
def deploy(tmp_path):
    (tmp_path / "cctv.npub").write_bytes(b"bundle")
    build_deploy(tmp_path / "deploy", tmp_path / "cctv.npub")
    return tmp_path / "deploy"


def test_the_readme_of_the_deploy_folder_names_every_file(deploy):
    text = (deploy / "README.md").read_text()
    assert text.startswith("# cctv.npub on a device\n")
    missing = [path.name for path in deploy.iterdir() if f"`{path.name}`" not in text]
    assert missing == []
    assert "$" not in text


def test_the_dockerfile_copies_what_is_there(deploy):
    lines = (deploy / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied == ["requirements*.txt", "cctv.npub", "npu-run.pyz"]
    assert all(list(deploy.glob(word)) for word in copied)
    assert lines[-2:] == ['ENTRYPOINT ["python", "npu-run.pyz"]', 'CMD ["info", "cctv.npub"]']


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="NOT PROVED: apt-get install systemd")
def test_systemd_takes_the_unit(deploy):
    text = (deploy / "npu-run.service").read_text()
    unit = deploy / "npu-run.service"
    unit.write_text(text.replace("/opt/npu-run/env/bin/python", sys.executable))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in checked.stderr.splitlines() if "npu-run" in line]
    assert (checked.returncode, said) == (0, []), checked.stderr


def test_the_unit_says_words_that_npu_run_knows(deploy, capsys):
    text = (deploy / "npu-run.service").read_text().replace("\\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=").split()
    assert words[1:3] == ["/opt/npu-run/npu-run.pyz", "/opt/npu-run/cctv.npub"]
    assert words[-1] == "$OPTIONS"
    with pytest.raises(SystemExit):
        runtime_main(["--help"])
    known = capsys.readouterr().out
    assert all(word in known for word in words if word.startswith("--"))


@pytest.mark.fresh_env
@pytest.mark.parametrize("extras", [(), ("signing", "mqtt", "video")], ids=["base", "extras"])
def test_every_dependency_has_a_wheel_for_aarch64(deploy, capsys, extras):
    """Resolved by pip for a 64-bit ARM Linux with glibc 2.28 (Debian 10) or newer; nothing is built from source."""
    files = [deploy / f"requirements-{extra}.txt" for extra in extras] or [deploy / "requirements.txt"]
    platforms = [f"manylinux{each}_aarch64" for each in ("2014", "_2_27", "_2_28")]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    options = ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--target", "unused"]
    words = [*command, *options, *(word for each in platforms for word in ("--platform", each))]
    words += [word for file in files for word in ("-r", str(file))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0 and "connection" in done.stderr.lower() and not os.environ.get("CI"):
        pytest.skip("NOT PROVED: no package index can be reached")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["install"]
    wheels = sorted(each["download_info"]["url"].rsplit("/", 1)[1] for each in found)
    assert all(name.endswith(("aarch64.whl", "-none-any.whl")) for name in wheels)
    if not extras:
        listed = (deploy / "README.md").read_text().partition("| package | version |")[2].split("\n")[2:]
        rows = {f"| `{each['metadata']['name']}` | {each['metadata']['version']} |" for each in found}
        assert rows == {line for line in listed if line}
    with capsys.disabled():
        sys.stdout.write(f"\naarch64 wheels of {files[-1].name}:\n" + "".join(f"  {name}\n" for name in wheels))
