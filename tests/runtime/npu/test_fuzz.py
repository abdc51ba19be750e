"""Mutated programs never crash, hang or allocate without bound; ``pytest --fuzz 20000`` tries so many."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.skipif(sys.platform != "linux", reason="NOT PROVED: the limits on memory and time are those of Linux")
def test_mutated_programs_are_refused_or_run_to_the_right_bytes(request):
    count = request.config.getoption("--fuzz")
    path = [str(FOLDER), str(FOLDER.parents[2])]
    command = [sys.executable, str(FOLDER / "fuzzing.py"), str(count), "2026"]
    environment = {"PYTHONPATH": ":".join(path), "PATH": "", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60 + count, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    tally = json.loads(done.stdout)
    assert tally.pop("tried") == count == sum(tally.values())
    assert tally["refused"] > 0.7 * count
    assert tally["ran"] > 0
