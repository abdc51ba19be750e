"""Drills: what happens to a running npu-run when the world around it fails; ``make drill`` prints a table."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

import walkers
from test_sources import write_video

ROWS = pytest.StashKey()

PAIRS = 40
PER_PAIR = 6
"""Events of a pair of figures: two crossings, two enters, two leaves."""


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A bundle that finds the figures of ``clip``, counts and times them."""
    return walkers.write(tmp_path_factory.mktemp("walkers") / "walkers.npub")


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """``PAIRS`` pairs of figures that walk over a line and through a zone."""
    return write_video(tmp_path_factory.mktemp("clip") / "walk.mp4", walkers.clip(PAIRS), rate=walkers.RATE)


@pytest.fixture(scope="session")
def many():
    """How many events ``clip`` has."""
    return PAIRS * PER_PAIR


@pytest.fixture
def told(request):
    """Adds a row to the table: ``told(number, what)``."""
    rows, name = request.config.stash[ROWS], request.node.name.removeprefix("test_").replace("_", " ")
    return lambda value, what: rows.append((name, value, what))


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[ROWS]
    if rows:
        terminalreporter.section("drills")
        for name, value, what in rows:
            terminalreporter.write_line(f"{name:<46} {value:>10}  {what}")
