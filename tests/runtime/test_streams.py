"""npu-run on real streams: an RTSP server that is cut and comes back, several sources, signals, sinks, the page."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
import tiny
import walkers
from real_parts import Browser, Subscriber, broker, free_port, rtsp_server, wait_for
from test_sources import write_video

from runtime.app import Options, play_all
from runtime.bundle import open_bundle
from runtime.errors import SourceError, UserError
from runtime.session import Session
from runtime.streams.engine import Fixed

PAIRS = 4
"""Of figures in the clip: so many cross each way."""


@pytest.fixture(scope="module")
def walkers_bundle(tmp_path_factory):
    return walkers.write(tmp_path_factory.mktemp("walkers") / "walkers.npub")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = walkers.clip(PAIRS)
    return write_video(tmp_path_factory.mktemp("clip") / "walk.mp4", frames, rate=walkers.RATE)


@pytest.fixture
def server(clip):
    with rtsp_server(clip, 2) as part:
        yield part


def fixed(bundle):
    return Fixed(Session(open_bundle(bundle)))


def start(*words, **environment):
    command = [sys.executable, "-m", "runtime", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kinds(events):
    return sorted(event["kind"] for event in events)


def test_a_file_gives_every_event_once_in_every_sink(tmp_path, walkers_bundle, clip):
    sinks = tuple(str(tmp_path / name) for name in ("e.jsonl", "e.csv", "e.sqlite"))
    (summary,) = play_all(fixed(walkers_bundle), [str(clip)], Options(sinks=sinks))
    events = lines_of(tmp_path / "e.jsonl")
    assert kinds(events) == ["crossing"] * 2 * PAIRS + ["enter"] * 2 * PAIRS + ["leave"] * 2 * PAIRS
    assert summary.counts == {"gate": {"in": PAIRS, "out": PAIRS}}
    assert summary.zones["hall"].visits == 2 * PAIRS
    assert summary.zones["hall"].most == 2
    ended = [event["time_s"] for event in events if event["kind"] == "leave"]
    assert summary.zones["hall"].per_hour == pytest.approx(
        3600 * len(ended) / (len(walkers.clip(PAIRS)) - 1) * walkers.RATE
    )
    assert len({event["id"] for event in events}) == len(events)
    assert all(event["dwell_s"] == pytest.approx(1.45, abs=0.4) for event in events if event["kind"] == "leave")
    assert len((tmp_path / "e.csv").read_text().splitlines()) == len(events) + 1
    assert sqlite3.connect(tmp_path / "e.sqlite").execute("SELECT count(*) FROM events").fetchone() == (len(events),)


def test_a_file_that_is_killed_and_played_again_gives_every_event_once(tmp_path, walkers_bundle, clip):
    whole = tmp_path / "whole.jsonl"
    play_all(fixed(walkers_bundle), [str(clip)], Options(sinks=(str(whole),)))
    sink = tmp_path / "e.jsonl"
    words = (walkers_bundle, "--source", clip, "--sink", sink, "--state", tmp_path / "state")
    for least in (1, 5):
        process = start(*words)
        wait_for(lambda least=least: len(lines_of_whole(sink)) >= least)
        process.kill()
        process.communicate()
    assert 5 <= len(lines_of_whole(sink)) < len(lines_of(whole)), "it was killed before the end"
    process = start(*words)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert lines_of(sink) == lines_of(whole)


def lines_of_whole(path):
    """Lines that are written to their end."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


def test_a_stream_that_is_cut_comes_back(tmp_path, walkers_bundle, server):
    sink, url = tmp_path / "e.jsonl", f"rtsp://me:secret@127.0.0.1:{server.port}/0"
    words = ("--source", url, "--sink", sink, "--state", tmp_path / "state", "--events", tmp_path / "frames.jsonl")
    process = start(walkers_bundle, *words, "--json")
    for _ in range(2):
        seen = len(lines_of_whole(tmp_path / "frames.jsonl"))
        wait_for(lambda seen=seen: len(lines_of_whole(tmp_path / "frames.jsonl")) > seen + 10)
        server.kill()
        time.sleep(0.3)
        server.start()
    seen = len(lines_of_whole(tmp_path / "frames.jsonl"))
    wait_for(lambda: len(lines_of_whole(tmp_path / "frames.jsonl")) > seen + 5)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    summary, events = json.loads(out), lines_of(sink)
    assert [event["kind"] for event in events if event["kind"] in ("up", "down")] == ["up", "down"] * 2 + ["up"]
    assert err.count("trying again in") >= 2
    assert "secret" not in out + err + sink.read_text()
    frames = lines_of(tmp_path / "frames.jsonl")
    assert [frame["frame"] for frame in frames] == list(range(summary["frames"]))
    times = [frame["time_s"] for frame in frames]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(summary["seconds"], abs=3)
    assert all(abs(event["time"] - time.time()) < 60 for event in events)


def test_a_stream_that_hangs_is_left_and_opened_again(tmp_path, walkers_bundle, server, monkeypatch):
    """The server is stopped, not killed: the connection stays, and nothing comes."""
    monkeypatch.setattr("runtime.sources.TIMEOUT_S", 1.0)
    stop, seen, heard = threading.Event(), [], []

    def listen(result):
        seen.append(result.frame.time_s)
        if len(seen) == 5:
            server.pause()
        if len(heard) and len(seen) >= 15:
            stop.set()

    def warn(text):
        heard.append(text)
        server.go_on()

    url = f"rtsp://127.0.0.1:{server.port}/0"
    play_all(fixed(walkers_bundle), [url], Options(), listen=listen, warn=warn, stop=stop)
    assert "frame 5 cannot be decoded" in heard[0] or "trying again in 0." in heard[0]
    assert len(seen) >= 15


def test_a_stream_that_is_not_there_yet(walkers_bundle, server):
    server.kill()
    heard, stop = [], threading.Event()

    def warn(text):
        heard.append(text)
        if len(heard) == 2:
            server.start()

    source = f"rtsp://127.0.0.1:{server.port}/1"
    (summary,) = play_all(fixed(walkers_bundle), [source], Options(limit=5), warn=warn, stop=stop)
    assert summary.frames == 5
    assert "cannot be opened as a video (Connection refused); trying again in 0." in heard[0]


def test_several_sources_at_a_time(tmp_path, walkers_bundle, clip, server):
    url, events = f"rtsp://127.0.0.1:{server.port}/0", tmp_path / "frames.jsonl"
    np.save(tmp_path / "still.npy", walkers.clip(1)[:3])
    sources = [str(clip), url, str(clip), str(tmp_path / "still.npy")]
    options = Options(events=events, limit=20, sinks=(str(tmp_path / "e.jsonl"),))
    summaries = play_all(fixed(walkers_bundle), sources, options)
    assert [summary.frames for summary in summaries] == [20, 20, 20, 3]
    assert [summary.source for summary in summaries] == [str(clip), url, f"{clip} (2)", str(tmp_path / "still.npy")]
    frames = lines_of(events)
    assert list(frames[0]) == ["source", "frame", "time_s", "detections", "counts"]
    of = [[frame for frame in frames if frame["source"] == summary.source] for summary in summaries]
    assert [{**frame, "source": ""} for frame in of[0]] == [{**frame, "source": ""} for frame in of[2]]
    crossings = [event for event in lines_of(tmp_path / "e.jsonl") if event["kind"] == "crossing"]
    assert {event["source"] for event in crossings} >= {str(clip), f"{clip} (2)"}


def test_a_source_that_breaks_lets_the_others_finish(tmp_path, walkers_bundle, clip):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    seen = []
    with pytest.raises(SourceError, match=r"broken\.mp4: "):
        play_all(
            fixed(walkers_bundle),
            [str(broken), str(clip)],
            Options(),
            listen=lambda result: seen.append(result.source),
        )
    assert seen.count(str(clip)) == len(walkers.clip(PAIRS))
    assert 0 < seen.count(str(broken)) < len(walkers.clip(PAIRS))


def test_annotating_is_for_one_source(tmp_path, walkers_bundle, clip):
    with pytest.raises(UserError, match=r"shows one source \(give one --source with --annotate\)"):
        play_all(fixed(walkers_bundle), [str(clip)] * 2, Options(annotate=tmp_path / "a.mp4"))


def test_a_sink_never_replaces_what_is_read(walkers_bundle, clip):
    with pytest.raises(UserError, match="is read, so it cannot be written"):
        play_all(fixed(walkers_bundle), [str(clip)], Options(sinks=(str(clip),)))


def test_two_outputs_are_two_files(tmp_path, walkers_bundle, clip):
    sink = str(tmp_path / "e.jsonl")
    for options in (Options(sinks=(sink, sink)), Options(sinks=(sink,), events=tmp_path / "e.jsonl")):
        with pytest.raises(UserError, match=r"e\.jsonl: is to be written twice \(give another name to one of them\)"):
            play_all(fixed(walkers_bundle), [str(clip)], options)


def test_sigterm_ends_a_file_early_and_says_so(tmp_path, tiny_bundle):
    np.save(tmp_path / "long.npy", np.zeros((5000, 16, 24, 3), np.uint8))
    events = tmp_path / "e.jsonl"
    process = start(tiny_bundle, "--source", tmp_path / "long.npy", "--events", events, "--json")
    wait_for(lambda: len(lines_of_whole(events)) > 3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert json.loads(out)["frames"] == len(lines_of(events)) < 5000


def test_output_that_nobody_reads(tiny_bundle, tmp_path):
    np.save(tmp_path / "frames.npy", tiny.frames(2))
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "runtime", str(tiny_bundle), "--source", str(tmp_path / "frames.npy")],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "Broken pipe" not in process.stderr


def test_events_reach_a_broker_from_a_stream(tmp_path, walkers_bundle, clip, server):
    with broker(tmp_path) as mosquitto:
        subscriber = Subscriber(mosquitto.port)
        sink = f"mqtt://127.0.0.1:{mosquitto.port}/shop"
        source = f"rtsp://127.0.0.1:{server.port}/0"
        play_all(fixed(walkers_bundle), [source], Options(sinks=(sink,), limit=40))
        wait_for(lambda: any(topic.endswith("/crossing") for topic, _ in subscriber.got))
        assert {json.loads(payload)["source"] for _, payload in subscriber.got} == {source}
        subscriber.close()


def test_a_new_bundle_takes_over_while_a_stream_plays(tmp_path, walkers_bundle, server):
    """By its file and over the network; a broken one is refused, and no frame is missed meanwhile."""
    bundle, port = tmp_path / "walkers.npub", free_port()
    bundle.write_bytes(walkers_bundle.read_bytes())
    second = walkers.write(tmp_path / "second.npub", version=2, zones=())
    third = walkers.write(tmp_path / "third.npub", version=3)
    token, url = "0123456789abcdef", f"rtsp://127.0.0.1:{server.port}/0"
    words = ("--source", url, "--watch", "--events", tmp_path / "frames.jsonl", "--sink", tmp_path / "e.jsonl")
    process = start(bundle, *words, "--serve", f"127.0.0.1:{port}", NPU_RUN_TOKEN=token)
    bearer = {"Authorization": f"Bearer {token}"}

    def status():
        return json.loads(page(port, "/api/status", **bearer))

    try:
        wait_for((tmp_path / "frames.jsonl").exists)
        assert "hall" in wait_for(lambda: status()["sources"][0]["occupancy"])
        second.replace(bundle)
        wait_for(lambda: status()["bundle"]["version"] == 2)
        wait_for(lambda: status()["sources"][0]["occupancy"] == {})
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bundle", b"rubbish", bearer)
        assert urllib.request.urlopen(request).status == 202
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bundle", third.read_bytes(), bearer)
        assert urllib.request.urlopen(request).status == 202
        wait_for(lambda: status()["bundle"]["version"] == 3)
    finally:
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err
    assert "bundle version 2: swapped" in err
    assert "refused" in err
    frames = lines_of(tmp_path / "frames.jsonl")
    assert [frame["frame"] for frame in frames] == list(range(len(frames)))
    tracks = [box["track"] for frame in frames for box in frame["detections"] if box["track"] is not None]
    assert max(tracks) + 1 == len(set(tracks)), "a number is one person's, also over a change"


def page(port, path, **headers):
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)) as answer:
        return answer.read()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_live_page_in_a_browser(tmp_path, walkers_bundle, server, width, height):
    """What Chromium shows is what the run found, and it fits the window; screenshots go where ``SCREENSHOTS`` says."""
    port, nobody = free_port(), free_port()
    words = ("--source", f"rtsp://127.0.0.1:{server.port}/0", "--serve", f"127.0.0.1:{port}")
    words += ("--sink", f"mqtt://127.0.0.1:{nobody}/a/long/prefix/of/a/broker/that/is/not/there")
    process = start(walkers_bundle, *words, "--state", tmp_path / "state")
    try:
        wait_for(lambda: answers(port))
        with Browser(tmp_path / "chromium", width, height, phone=width < 600) as browser:
            browser.open(f"http://127.0.0.1:{port}/")
            wait_for(lambda: browser.value("document.querySelector('.tiles b')?.textContent > 0"), what="a crossing")
            wait_for(lambda: browser.value("document.querySelector('img').naturalWidth") == walkers.WIDTH)
            reasons = "document.getElementById('reasons').textContent"
            wait_for(lambda: "the broker cannot be reached" in browser.value(reasons), what="the sink's error")
            shown = browser.value("document.body.innerText")
            assert browser.value("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
            wait_for(lambda: browser.value("document.querySelectorAll('#chart rect').length"), what="a bar")
            if "SCREENSHOTS" in os.environ:
                browser.screenshot(f"{os.environ['SCREENSHOTS']}/page-{width}.png")
            assert browser.value("document.querySelector('[data-step=\"60\"]').click()") is None
            wait_for(lambda: browser.value("document.querySelector('svg')?.ariaLabel?.includes('by hour')"))
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: browser.value("document.getElementById('health').textContent") == "no connection")
    finally:
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err
    assert f"the live page is at http://127.0.0.1:{port}/" in err
    for text in (
        "walkers",
        "degraded",
        "the broker cannot be reached",
        "gate in",
        "gate out",
        "in hall now",
        "Partitions",
        "1 NPU",
        "not known",
        "infer",
    ):
        assert text in shown, text


def answers(port):
    try:
        return page(port, "/healthz")
    except OSError:
        return False
