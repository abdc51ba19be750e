"""An npu-run that stays on: is its memory flat? ``make soak`` watches for half an hour, ``make drill`` for a while.

``SOAK_MINUTES`` says for how long, and ``SOAK_BUNDLE`` which bundle plays the sample clip; without it a small one of
the tests plays a clip of theirs. While it plays, the page's numbers and pictures are asked for every second, a broker
takes the events, and the stream ends and comes back whenever the clip is over.
"""

import os
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from drilled import Run, check_sinks_agree
from real_parts import Subscriber, broker, free_port, rtsp_server, wait_for

pytestmark = pytest.mark.drill

MINUTES = float(os.environ.get("SOAK_MINUTES", "3"))
BUNDLE = os.environ.get("SOAK_BUNDLE")
SAMPLE = Path(__file__).parents[2] / "configs/data/cctv/cctv.mp4"

WARM, WARM_SECONDS = 0.2, 60
"""The part of the time, at the beginning, in which caches and pools fill, and how long that takes at least; it is left
out of the slope."""

LONG = 30
"""Minutes that a slope takes to be one; pools that fill by steps of a megabyte give shorter ones any."""

MOST_MB, MOST_MB_PER_HOUR = 5.0, 6.0
"""The growth that is allowed after that: in all, and per hour."""


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read()


def watched(run, port, seconds):
    """Second by second, the process's age and its resident memory in MB, while the page is looked at."""
    began, samples = time.monotonic(), []
    while (now := time.monotonic() - began) < seconds:
        assert run.process.poll() is None, run.log()
        for path in ("/metrics", "/api/status", "/api/counts", "/frame/0"):
            assert get(port, path)
        samples.append((now, run.memory() / 2**20))
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began - now)))
    return np.array(samples)


def test_soak(tmp_path, bundle, clip, told):
    played, source = (Path(BUNDLE).absolute(), SAMPLE) if BUNDLE else (bundle, clip)
    port = free_port()
    with rtsp_server(source) as server, broker(tmp_path) as mosquitto:
        subscriber = Subscriber(mosquitto.port)
        words = ["--source", f"rtsp://127.0.0.1:{server.port}/0", "--serve", f"127.0.0.1:{port}"]
        run = Run(tmp_path / "run", played, *words, "--sink", f"mqtt://127.0.0.1:{mosquitto.port}/soak").start()
        run.wait_for_events(1, "up")
        wait_for(lambda: b"npu_run_cold_start_seconds{" in get(port, "/metrics"), what="the first frame")
        wait_for(lambda: _has_frame(port), what="the first picture")
        samples = watched(run, port, 60 * MINUTES)
        frames = int(re.search(rb"npu_run_frames_total\{.*\} (\d+)", get(port, "/metrics"))[1])
        assert run.kill(signal.SIGTERM) == 0, run.log()
        events = check_sinks_agree(run)
        wait_for(lambda: len(set(subscriber.ids())) >= len(events), 60, "every event")
        subscriber.close()
    warm = max(WARM * samples[-1, 0], WARM_SECONDS)
    times, memory = samples[samples[:, 0] >= warm].T
    slope = np.polyfit(times / 3600, memory, 1)[0]
    tenth = max(1, len(memory) // 10)
    growth = np.median(memory[-tenth:]) - np.median(memory[:tenth])
    what = f"{MINUTES:.0f} minutes of {played.name}, the first {warm:.0f} s left out"
    if MINUTES >= LONG:
        told(f"{slope:+.2f} MB/h", f"slope of the resident memory over {what}")
    told(f"{growth:+.2f} MB", f"memory from first tenth to last of {what}; {memory.min():.1f} to {memory.max():.1f} MB")
    told(frames, f"frames, {len(events)} events, none lost or doubled")
    assert growth < MOST_MB
    assert MINUTES < LONG or slope < MOST_MB_PER_HOUR


def _has_frame(port):
    try:
        return get(port, "/frame/0")
    except urllib.error.HTTPError:
        return None
