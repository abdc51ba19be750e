"""How old a process is: as the kernel says, and as whoever started it saw."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import status

TELL = "import time, runtime.status; print(runtime.status.age(), time.monotonic())"
TICK_S = 0.02
"""The kernel counts in hundredths of a second."""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says")
def test_the_age_of_a_process_is_the_time_since_it_was_started():
    before = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", TELL], stdout=subprocess.PIPE, text=True) as process:
        started = time.monotonic()
        age, now = map(float, process.communicate(timeout=60)[0].split())
    assert now - started - TICK_S <= age <= now - before + TICK_S


def test_a_system_that_does_not_say(monkeypatch):
    monkeypatch.delattr(status.time, "CLOCK_BOOTTIME", raising=False)
    assert status.age() is None
