"""The deploy folder's Dockerfile, built by a real builder, and what it builds run.

By Docker where its daemon answers, else by buildah, which needs none. Where no registry can be reached, Debian 12 with
its own Python 3.11, as debootstrap makes it, stands in for ``python:3.11-slim``, and the table says so.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.compile.deploy import build_deploy

pytestmark = pytest.mark.drill

BASE = "docker.io/library/python:3.11-slim"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
INCLUDE = "python3,python3-pip,ca-certificates"
NEED = "NOT PROVED: no Docker daemon answers, and there is no buildah: apt-get install -y buildah debootstrap"


def call(*words, **options):
    """What a command prints; its errors are shown when it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


class Docker:
    """Docker's own builder."""

    name, base = "docker", "from the registry"

    def build(self, context):
        call("docker", "build", "-t", "npu-run-drill", context)

    def run(self, *words):
        return call("docker", "run", "--rm", "npu-run-drill", *words)

    def size(self):
        return int(call("docker", "image", "inspect", "--format", "{{.Size}}", "npu-run-drill"))

    def user(self):
        return call("docker", "run", "--rm", "--entrypoint", "id", "npu-run-drill", "-un")

    def close(self):
        call("docker", "image", "rm", "npu-run-drill")


class Buildah:
    """buildah without a daemon, kernel file systems or namespaces, with images of its own in ``folder``."""

    name, base = "buildah", "from the registry"

    def __init__(self, folder):
        self.folder = folder
        self.environment = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
        self.container = None

    def call(self, *words):
        stores = ("--root", self.folder / "images", "--runroot", self.folder / "run")
        return call("buildah", *stores, *words, env=self.environment)

    def prepare(self):
        """Fetch the base image, or make what stands in for it."""
        try:
            self.call("pull", BASE)
        except AssertionError:
            if shutil.which("debootstrap") is None or os.geteuid() != 0:
                pytest.skip("NOT PROVED: no registry can be reached, and debootstrap, as root, cannot make a base")
            self.base = "on a stand-in by debootstrap"
            self._bootstrap(self.folder / "root")

    def _bootstrap(self, root):
        call("debootstrap", "--variant=minbase", f"--include={INCLUDE}", "bookworm", root)
        (root / "usr/bin/python").symlink_to("python3")
        (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()  # Debian's own; the image that is meant has none
        if CERTIFICATES.exists():  # of whoever stands between this machine and the package index
            shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
            (root / "etc/pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
        container = self.call("from", "scratch")
        self.call("add", "--quiet", container, root, "/")
        self.call("commit", "--quiet", container, BASE)

    def build(self, context):
        self.call("bud", "--pull=never", "--network=host", "--tag", "npu-run-drill", context)
        self.container = self.call("from", "--pull=never", "localhost/npu-run-drill")

    def run(self, *words):
        """As ``docker run``: with the entry point, which ``buildah run`` leaves out."""
        return self.call("run", self.container, "--", *self._configured("Entrypoint"), *words)

    def _configured(self, name):
        return json.loads(self.call("inspect", self.container))["OCIv1"]["config"][name]

    def size(self):
        root = Path(self.call("mount", self.container))
        return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())

    def user(self):
        return self.call("run", self.container, "--", "id", "-un")

    def close(self):
        self.call("rm", "--all")
        for name in ("images", "run", "root"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


@pytest.fixture
def builder(tmp_path):
    if shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        yield (docker := Docker())
        docker.close()
        return
    if shutil.which("buildah") is None:
        pytest.skip(NEED)
    made = Buildah(tmp_path)
    made.prepare()
    yield made
    made.close()


def test_the_image_is_built_and_runs(tmp_path, builder, bundle, told):
    build_deploy(tmp_path / "deploy", bundle)
    began = time.monotonic()
    builder.build(tmp_path / "deploy")
    seconds = time.monotonic() - began
    assert builder.user() == "npu-run"
    assert json.loads(builder.run("info", bundle.name, "--json"))["name"] == "walkers"
    assert json.loads(builder.run("selftest", bundle.name, "--json"))["differing"] == 0
    told(f"{seconds:.0f} s", f"to build the Dockerfile by {builder.name}, {builder.base}")
    told(f"{builder.size() / 1e6:.0f} MB", "the image, its base included")
