"""Tiny bundles for the runtime's tests."""

import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A bundle with one NPU partition and two golden vectors; do not change it."""
    return tiny.write(tmp_path_factory.mktemp("bundle") / "tiny.npub")


@pytest.fixture(scope="session")
def split_bundle(tmp_path_factory):
    """A bundle with an NPU and a CPU partition and two golden vectors; do not change it."""
    return tiny.write(tmp_path_factory.mktemp("bundle") / "split.npub", tiny.split)
