"""Nothing is lost, nothing comes twice, memory stays where it is, and how long it takes to recover."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from drilled import Run, check_sinks_agree, middle
from real_parts import Subscriber, broker, need, rtsp_server, wait_for

pytestmark = pytest.mark.drill

CUTS, RESTARTS, KILLS, CAMERAS = 50, 10, 20, 8


@pytest.fixture(scope="module")
def truth(tmp_path_factory, bundle, clip, many):
    """Every event of the clip, from a run that nothing disturbed."""
    run = Run(tmp_path_factory.mktemp("truth") / "run", bundle, "--source", clip).start()
    assert run.process.wait(120) == 0, run.log()
    events = check_sinks_agree(run)
    assert len(events) == many
    return events


def test_stream_cut_50_times(tmp_path, bundle, clip, told):
    with rtsp_server(clip) as server:
        run = Run(tmp_path / "run", bundle, "--source", f"rtsp://127.0.0.1:{server.port}/0").start()
        recoveries, memory = [], []
        for cut in range(CUTS):
            run.wait_for_events(cut + 1, "up")
            if cut == 5:
                memory.append(run.memory())
            time.sleep(random.uniform(0.2, 1.2))
            server.kill()
            run.wait_for_events(cut + 1, "down")
            time.sleep(random.uniform(0, 0.5))
            server.start()
            recoveries.append(run.wait_for_events(cut + 2, "up"))
        memory.append(run.memory())
        assert run.kill(signal.SIGTERM) == 0
    events = check_sinks_agree(run)
    links = [event["kind"] for event in events if event["kind"] in ("up", "down")]
    assert links == ["up", "down"] * CUTS + ["up"]
    times = [event["time_s"] for event in events]
    assert times == sorted(times)
    growth = (memory[1] - memory[0]) / 2**20
    assert growth < 20
    told(f"{middle(recoveries):.2f} s", "from the server's return to the next frame, median")
    told(f"{max(recoveries):.2f} s", "the same, longest")
    told(f"{growth:+.1f} MB", f"memory from cut 5 to cut {CUTS}")


def test_broker_restarted(tmp_path, bundle, clip, truth, told):
    with broker(tmp_path) as mosquitto:
        subscriber = Subscriber(mosquitto.port)
        sink = f"mqtt://127.0.0.1:{mosquitto.port}/shop"
        run = Run(tmp_path / "run", bundle, "--source", clip, "--sink", sink).start()
        recoveries = []
        for _ in range(RESTARTS):
            time.sleep(0.3)
            mosquitto.kill(signal.SIGTERM)
            time.sleep(0.3)
            before = len(subscriber.got)
            mosquitto.start()
            began = time.monotonic()
            wait_for(lambda before=before: len(subscriber.got) > before or run.process.poll() is not None)
            recoveries.append(time.monotonic() - began)
        assert run.process.wait(120) == 0, run.log()
        assert run.start().process.wait(120) == 0, run.log()  # with what was left over, if it ended without the broker
        wait_for(lambda: len(set(subscriber.ids())) >= len(truth), 60, "every event")
        time.sleep(0.5)
        subscriber.close()
    assert check_sinks_agree(run) == truth
    ids = subscriber.ids()
    assert list(dict.fromkeys(ids)) == [event["id"] for event in truth], "in order"
    told(f"{max(recoveries):.2f} s", "from the broker's return to the next event, longest")
    told(0, f"of {len(truth)} events lost, {RESTARTS} restarts")
    told(len(ids) - len(truth), "came to the subscriber again, with the same id")


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request, tmp_path):
    """A folder and what fills and frees it for a process: a file system of 2 MB, or a limit on its files' size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield folder, lambda pid: _limit(pid, 4096), lambda pid: _limit(pid, resource.RLIM_INFINITY)
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"NOT PROVED: a file system cannot be mounted here ({mounted.stderr.strip()})")
    yield folder, lambda pid: _fill(folder), lambda pid: (folder / "ballast").unlink()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _limit(pid, size):
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def test_disk_full(small_disk, bundle, clip, truth, told):
    folder, fill, free = small_disk
    run = Run(folder / "run", bundle, "--source", clip).start()
    run.wait_for_events(10)
    fill(run.process.pid)
    time.sleep(1.5)
    stuck = len(run.events())
    assert run.process.poll() is None, run.log()
    assert stuck < len(truth)
    began = time.monotonic()
    free(run.process.pid)
    run.wait_for_events(stuck + 1)
    recovery = time.monotonic() - began
    assert run.process.wait(120) == 0, run.log()
    assert check_sinks_agree(run) == truth
    told(f"{recovery:.2f} s", "from free space to the next event")
    told(0, f"of {len(truth)} events lost or doubled")


def test_disk_full_and_killed(small_disk, bundle, clip, truth, told):
    folder, fill, free = small_disk
    run = Run(folder / "run", bundle, "--source", clip).start()
    run.wait_for_events(10)
    fill(run.process.pid)
    time.sleep(1.0)
    run.kill()
    if (folder / "ballast").exists():
        free(0)
    run.start()
    assert run.process.wait(120) == 0, run.log()
    assert check_sinks_agree(run) == truth
    told(0, f"of {len(truth)} events lost or doubled")


FAULTS = ("lost@30+40", "timeout@120+1", "memory@200+10", "lost@300+200")
"""The NPU is away for a while, hangs once, is taken by somebody else, and is away for long."""


def test_npu_lost_and_back(tmp_path, bundle, clip, truth, told):
    """No event changes, since the host computes the same bits; the NPU is asked again after 1, 2, 4 .. 64 frames."""
    faults = [word for fault in FAULTS for word in ("--inject", fault)]
    run = Run(tmp_path / "run", bundle, "--source", clip, *faults).start("--json")
    assert run.process.wait(120) == 0, run.log()
    assert check_sinks_agree(run) == truth
    health = json.loads(run.log().splitlines()[-1])["health"]
    assert health["recoveries"] == len(FAULTS)
    assert health["failures"].keys() == {"lost", "timeout", "memory"}
    backs = [int(frame) for frame in re.findall(r"frame (\d+): the device is back", run.log())]
    ends = [sum(map(int, fault.partition("@")[2].split("+"))) for fault in FAULTS]
    waits = [back - end for back, end in zip(backs, ends, strict=True)]
    assert all(0 <= wait <= 64 for wait in waits)
    told(f"{max(waits)} frames", f"from the NPU's return to its next job, longest of {waits}; the host computes them")
    told(f"{health['on_host']} of {health['jobs']}", f"frames by the host; 0 of {len(truth)} events lost or changed")


def test_clock_jumps(tmp_path, bundle, clip, told):
    """The host's clock goes an hour ahead and a day back, for a live source; libfaketime tells it so."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    need(library, "libfaketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    fake = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    with rtsp_server(clip) as server:
        url = f"rtsp://127.0.0.1:{server.port}/0"
        run = Run(tmp_path / "run", bundle, "--source", url, environment={**fake, "DONT_FAKE_MONOTONIC": "1"}).start()
        for number, offset in enumerate(("+1h", "-1d", "+0"), 1):
            run.wait_for_events(12 * number)
            clock.write_text(offset)
        run.wait_for_events(48)
        assert run.kill(signal.SIGTERM) == 0
    events = check_sinks_agree(run)
    walls = [event["time"] for event in events]
    assert max(walls) - min(walls) > 86_000, "the clock did jump"
    times = [event["time_s"] for event in events]
    assert times == sorted(times)
    stays = [event["dwell_s"] for event in events if event["kind"] == "leave"][:-2]
    assert all(0 <= stay <= 3 for stay in stays), sorted(stays)
    kinds = [event["kind"] for event in events]
    assert kinds.count("enter") == kinds.count("leave")
    assert kinds.count("up") == 1
    told(0, f"of {len(events)} events lost or doubled; no stay is off by a jump")


def test_killed_at_any_moment_of_a_file(tmp_path, bundle, clip, truth, told):
    """While it starts, plays, waits for the broker, delivers the rest; each time it is started again."""
    with broker(tmp_path) as mosquitto:
        subscriber = Subscriber(mosquitto.port)
        sink = f"mqtt://127.0.0.1:{mosquitto.port}/shop"
        run, recoveries = Run(tmp_path / "run", bundle, "--source", clip, "--sink", sink), []
        for kill in range(KILLS):
            before = len(run.events())
            run.start()
            if kill % 5 == 3:
                mosquitto.kill(signal.SIGTERM)
            if kill % 4:
                time.sleep(random.uniform(0.1, 3.0))
            elif before < len(truth):
                recoveries.append(run.wait_for_events(min(before + 5, len(truth))))
            run.kill()
            if kill % 5 == 3:
                mosquitto.start()
        run.start()
        assert run.process.wait(120) == 0, run.log()
        wait_for(lambda: len(set(subscriber.ids())) >= len(truth), 60, "every event")
        subscriber.close()
    assert check_sinks_agree(run) == truth
    ids = subscriber.ids()
    assert set(ids) == {event["id"] for event in truth}
    told(f"{max(recoveries):.2f} s", "from a start to the fifth new event, longest; what was played is played again")
    told(0, f"of {len(truth)} events lost or doubled in the files and the database, {KILLS} kills")
    told(len(ids) - len(set(ids)), "came to the broker again, with the same id")


def test_killed_at_any_moment_of_a_stream(tmp_path, bundle, clip, told):
    """At least once, each with its id: what is in the queue when it is killed is delivered by the next one."""
    with rtsp_server(clip) as server, broker(tmp_path) as mosquitto:
        subscriber = Subscriber(mosquitto.port)
        sink, url = f"mqtt://127.0.0.1:{mosquitto.port}/shop", f"rtsp://127.0.0.1:{server.port}/0"
        run, recoveries = Run(tmp_path / "run", bundle, "--source", url, "--sink", sink), []
        for _ in range(KILLS // 2):
            before = len(run.events("up"))
            run.start()
            recoveries.append(run.wait_for_events(before + 1, "up"))
            time.sleep(random.uniform(0, 3))
            run.kill()
        run.start()
        run.wait_for_events(KILLS // 2 + 1, "up")
        assert run.kill(signal.SIGTERM) == 0, run.log()
        events = check_sinks_agree(run)
        wait_for(lambda: len(set(subscriber.ids())) >= len(events), 60, "every event")
        subscriber.close()
    ids = subscriber.ids()
    assert set(ids) == {event["id"] for event in events}
    told(f"{middle(recoveries):.2f} s", "from a start to the first frame, median")
    told(0, f"of {len(events)} events lost or doubled in the files and the database, {KILLS // 2} kills")
    told(len(ids) - len(set(ids)), "came to the broker again, with the same id")


def test_eight_cameras_on_two_cores(tmp_path, bundle, clip, told):
    cores = sorted(os.sched_getaffinity(0))[:2]
    with rtsp_server(clip, CAMERAS) as server:
        sources = [word for n in range(CAMERAS) for word in ("--source", f"rtsp://127.0.0.1:{server.port}/{n}")]
        run = Run(tmp_path / "run", bundle, *sources).start("--json")
        os.sched_setaffinity(run.process.pid, cores)
        run.wait_for_events(CAMERAS, "up")
        time.sleep(8)
        memory = [run.memory()]
        for _ in range(4):
            time.sleep(4)
            memory.append(run.memory())
        assert run.kill(signal.SIGTERM) == 0, run.log()
    events = check_sinks_agree(run)
    for camera in range(CAMERAS):
        mine = [event for event in events if event["source"].endswith(f"/{camera}")]
        assert sum(event["kind"] == "crossing" for event in mine) >= 8, mine
    growth = (memory[-1] - memory[0]) / 2**20
    assert growth < 10, memory
    told(f"{memory[-1] / 2**20:.0f} MB", f"memory of {CAMERAS} cameras, {growth:+.1f} MB in 16 s")


def test_eight_files_on_two_cores(tmp_path, bundle, clip, truth, told):
    cores = sorted(os.sched_getaffinity(0))[:2]
    copies = []
    for number in range(CAMERAS):
        copies.append(tmp_path / f"{number}.mp4")
        copies[-1].hardlink_to(clip)
    sources = [word for copy in copies for word in ("--source", copy)]
    run = Run(tmp_path / "run", bundle, *sources).start()
    os.sched_setaffinity(run.process.pid, cores)
    memory, done = [], threading.Event()
    while not done.wait(0.5):
        if run.process.poll() is not None:
            break
        memory.append(run.memory())
    assert run.process.returncode == 0, run.log()
    events = check_sinks_agree(run)
    for copy in copies:
        mine = [{**event, "source": "", "id": ""} for event in events if event["source"] == str(copy)]
        assert mine == [{**event, "source": "", "id": ""} for event in truth]
    told(f"{max(memory) / 2**20:.0f} MB", f"memory of {CAMERAS} files at once, most")
    told(0, f"of {len(events)} events lost or doubled")
