"""Drills: what happens to a running npu-run when the world around it fails; ``make drill`` prints a table."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

ROWS = pytest.StashKey()


def pytest_configure(config):
    config.stash[ROWS] = []


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
