"""The runtime alone: with numpy and onnxruntime only, as imports and as an installed fact."""

import json
import subprocess
import sys
import time
from pathlib import Path

import freshenv
import pytest
import tiny
from test_trust import pem, private

from pipeline.compile.deploy import build_deploy
from runtime.trust import sign

ABSENT = ("torch", "torchvision", "onnx", "av", "PIL", "supervision", "trackers", "scipy", "cv2", "pipeline")
VIDEO = "pip install -r requirements-video.txt in the deploy folder, or pip install av pillow supervision trackers"
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
    assert f"tracking and counting need: {VIDEO}" in played.stdout
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert len(events) == 3
    assert {detection["track"] for event in events for detection in event["detections"]} == {None}
    assert all(event["counts"] == {} for event in events)


def test_video_without_the_extra_names_it(tmp_path, tiny_bundle, frames):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    for words in (("--source", tmp_path / "clip.mp4"), ("--source", frames, "--annotate", tmp_path / "out.mp4")):
        refused = blocked(tiny_bundle, *words)
        assert refused.returncode == 1
        assert f"is needed and is not installed ({VIDEO})" in refused.stderr


@pytest.fixture(scope="module")
def deploy(tmp_path_factory):
    """A deploy folder with the split bundle, signed by key 1."""
    folder = tmp_path_factory.mktemp("fresh")
    bundle = tiny.write(folder / "tiny.npub", tiny.split, signer=lambda manifest: sign(manifest, [private(1)]))
    build_deploy(folder / "deploy", bundle)
    (folder / "ci.pub").write_text(pem(private(1)))
    return folder / "deploy"


@pytest.mark.fresh_env
def test_the_deploy_folder_runs_in_a_fresh_environment(tmp_path, deploy, frames, capsys):
    began = time.monotonic()
    python = freshenv.environment("base", *(deploy / "requirements.txt").read_text().split())
    installed = time.monotonic() - began

    def run(*words):
        return freshenv.run(python, *words, cwd=tmp_path)

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
    refused = run(pyz, "info", bundle, "--trust", deploy.parent / "ci.pub")
    assert refused.returncode == 1
    assert (
        "cryptography is needed for signatures and is not installed (pip install -r requirements-signing.txt"
        in refused.stderr
    )
    words = [python, pyz, bundle, "--source", frames, "--limit", "1"]
    began = time.monotonic()
    subprocess.run([*map(str, words)], cwd=tmp_path, check=True, capture_output=True)
    first = time.monotonic() - began
    sizes = {"deploy folder": size(deploy), "environment": size(python.parents[1])}
    told = [f"installed in {installed:.1f} s (0 when cached)", f"first frame {first:.2f} s after the start"]
    told += [f"{name} {count / 1e6:.1f} MB" for name, count in sizes.items()]
    with capsys.disabled():
        sys.stdout.write(f"\nfresh environment: {', '.join(told)}\n")
    assert sizes["deploy folder"] < 1e6
    assert sizes["environment"] < 300e6


@pytest.mark.fresh_env
def test_a_signature_is_checked_where_cryptography_is_installed(tmp_path, deploy):
    python = freshenv.environment("openvino", *freshenv.OPENVINO)
    words = ("--trust", deploy.parent / "ci.pub", "--state", tmp_path / "state", "--json")
    info = freshenv.run(python, deploy / "npu-run.pyz", "info", deploy / "tiny.npub", *words, cwd=tmp_path)
    assert info.returncode == 0, info.stderr
    assert json.loads(info.stdout)["signature"]["trusted"]["name"] == "ci"


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
