"""Tiny bundles and frames for the runtime's tests."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A bundle with one NPU partition and two golden vectors; do not change it."""
    import tiny  # noqa: PLC0415 (builds models with onnx, which the runtime alone lacks)

    return tiny.write(tmp_path_factory.mktemp("bundle") / "tiny.npub")


@pytest.fixture(scope="session")
def split_bundle(tmp_path_factory):
    """A bundle with an NPU and a CPU partition and two golden vectors; do not change it."""
    import tiny  # noqa: PLC0415 (builds models with onnx, which the runtime alone lacks)

    return tiny.write(tmp_path_factory.mktemp("bundle") / "split.npub", tiny.split)


@pytest.fixture
def frames(tmp_path):
    """A file of three frames that a tiny bundle takes."""
    import tiny  # noqa: PLC0415 (builds models with onnx, which the runtime alone lacks)

    np.save(tmp_path / "frames.npy", tiny.frames(3))
    return str(tmp_path / "frames.npy")
