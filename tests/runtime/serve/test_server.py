"""The server over real sockets: page, video, numbers, health, and who is let in."""

import http.client
import io
import json
import re
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from real_parts import wait_for

from runtime.adapters.detection import Detections
from runtime.bundle import open_bundle
from runtime.delegates.failover import Health
from runtime.errors import SwapError, UserError
from runtime.events import link_changed
from runtime.outputs import FrameResult
from runtime.serve import server as module
from runtime.serve.access import Access
from runtime.serve.facts import Facts, partitions
from runtime.serve.pictures import Pictures
from runtime.serve.server import Server
from runtime.sinks.recorder import Batch, Recorder
from runtime.sources import Frame
from runtime.status import Status

TOKEN = "0123456789abcdef"
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def result(index, source="door", size=(64, 96)):
    frame = Frame(np.full((*size, 3), index % 256, np.uint8), index / 10)
    return FrameResult(index, frame, NOTHING, None, {}, source=source)


@pytest.fixture
def parts(tmp_path, split_bundle):
    """Status, recorder, pictures and facts of a run of two sources."""
    status = Status([("door", "live"), ("clip.mp4", "video")])
    pictures = Pictures({"door": lambda shown: shown.frame.pixels})
    with Recorder(tmp_path, [], threading.Event()) as recorder:
        bundle = open_bundle(split_bundle)
        yield status, pictures, Facts(bundle, partitions(bundle), "npu", status, recorder, tmp_path)


@pytest.fixture
def server(parts):
    with Server(Access("127.0.0.1", 0, None), lambda: parts[2], parts[1]) as server:
        yield server


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def port(server):
    return int(server.url.rstrip("/").rpartition(":")[2])


def test_page_and_its_policy(server):
    status, headers, body = get(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert b"<h2>Partitions</h2>" in body
    assert b"http" not in body.replace(b"http-equiv", b""), "the page asks nobody else"


def test_status_has_everything(server, parts):
    parts[0].enter(0, "down", "ended")
    parts[0].played(1, None, {"infer": 0.002})
    facts = json.loads(get(server, "/api/status")[2])
    assert facts["bundle"]["name"] == "tiny"
    assert [row["device"] for row in facts["partitions"]] == ["npu", "cpu"]
    assert facts["partitions"][0]["ms"] > 0
    assert facts["partitions"][1]["ms"] is None
    assert facts["sources"][0]["problem"] == "ended"
    assert facts["steps"] == {"infer": {"frames": 1, "ms": pytest.approx(2.0)}}
    assert facts["device"]["rss_bytes"] > 1e6
    assert facts["device"]["free_bytes"] > 0
    assert facts["health"] == {"status": "degraded", "reasons": ["door: ended"]}
    assert facts["pictures"] == ["door"]


def test_health_fails_when_every_source_is_dark(server, parts):
    assert get(server, "/healthz")[0] == 200
    for source in (0, 1):
        parts[0].enter(source, "down", "gone")
    assert json.loads(get(server, "/healthz")[2])["status"] == "degraded"
    for source in (0, 1):
        parts[0].change(source, lambda status: setattr(status, "since", time.time() - 60))
    code, _, body = get(server, "/healthz")
    assert (code, json.loads(body)["status"]) == (503, "failing")
    parts[0].enter(0, "up")
    assert get(server, "/healthz")[0] == 200


class Unsound:
    """A sink whose every delivery is a bug of ours."""

    name = "unsound"

    def open(self, mark):
        return 0

    def deliver(self, events):
        return events.nonsense

    def close(self):
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_health_fails_when_a_sinks_thread_has_died(parts):
    with (
        Recorder(None, [Unsound()], threading.Event()) as recorder,
        Server(Access("127.0.0.1", 0, None), lambda: replace(parts[2], recorder=recorder), parts[1]) as server,
    ):
        assert get(server, "/healthz")[0] == 200
        recorder.record(Batch((link_changed("run", "door", 0, 0, 0.0, 0.0, None),), "run", 0, once=False))
        wait_for(lambda: get(server, "/healthz")[0] == 503, 10)
        told = json.loads(get(server, "/healthz")[2])
    assert told == {
        "status": "failing",
        "reasons": ["unsound: nothing is delivered any more, its thread has died"],
    }


def test_metrics_are_prometheus(server, parts):
    parts[0].played(0, 0.05, {"infer": 0.5})
    parts[0].change(0, lambda status: setattr(status, "cold_start_s", 1.25))
    parts[0].change(0, lambda status: setattr(status, "counts", {'a "gate"\n': {"in": 3, "out": 1}}))
    code, headers, body = get(server, "/metrics")
    text = body.decode()
    assert (code, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    sample = re.compile(r'[a-z_]+(\{[a-z0-9_]+="(\\.|[^"\\\n])*"(,[a-z0-9_]+="(\\.|[^"\\\n])*")*\})? -?[0-9.e+-]+')
    names = set()
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            assert line.split()[2] not in names, "each metric is one group"
            names.add(line.split()[2])
        elif not line.startswith("# HELP"):
            assert sample.fullmatch(line), line
            assert line.partition("{")[0].partition(" ")[0] in names
    assert 'npu_run_crossings_total{source="door",line="a \\"gate\\"\\n",direction="in"} 3' in text
    assert 'npu_run_frames_total{source="door"} 1' in text
    assert 'npu_run_cold_start_seconds{source="door"} 1.25' in text
    assert 'npu_run_latency_seconds{source="door"} 0.05' in text


def test_the_npus_jobs_are_told(parts):
    health = Health(10, 4, {"lost": 2, "timeout": 1}, 1, 0, (), None)
    with Server(Access("127.0.0.1", 0, None), lambda: replace(parts[2], npu=health), parts[1]) as server:
        assert json.loads(get(server, "/api/status")[2])["npu"]["on_host"] == 4
        text = get(server, "/metrics")[2].decode()
    for line in ("npu_jobs_total 10", "npu_jobs_on_host_total 4", 'npu_failures_total{kind="lost"} 2'):
        assert f"npu_run_{line}\n" in text


def test_counts_want_sane_numbers(server):
    assert json.loads(get(server, "/api/counts?minutes=60&step=1")[2]) == []
    for query in ("minutes=x", "minutes=0", "step=99", "minutes=99999999"):
        assert get(server, f"/api/counts?{query}")[0] == 400


@pytest.mark.parametrize("path", ["/none", "/video/1", "/video/x", "/video/-1", "/../etc/passwd", "/frame/"])
def test_other_pages_are_not_there(server, path):
    assert get(server, path)[0] == 404


def test_a_frame(server, parts):
    assert get(server, "/frame/0")[0] == 503
    parts[1].show(result(7))
    code, headers, body = get(server, "/frame/0")
    assert (code, headers["Content-Type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(body)) as image:
        assert image.size == (96, 64)


def test_wide_frames_are_made_smaller(server, parts):
    parts[1].show(result(7, size=(100, 3000)))
    with Image.open(io.BytesIO(get(server, "/frame/0")[2])) as image:
        assert image.size == (1000, 34)


def video(server):
    client = socket.create_connection(("127.0.0.1", port(server)), timeout=10)
    client.sendall(b"GET /video/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return client


def read_frames(client, count):
    data = b""
    while data.count(b"--frame") <= count:
        received = client.recv(65536)
        assert received, "the video ended"
        data += received
    return re.findall(rb"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: (\d+)\r\n\r\n(\xff\xd8)", data)


def test_a_video_shows_newer_frames_and_ends_with_the_server(server, parts):
    stop = threading.Event()

    def feed():
        index = 0
        while not stop.wait(0.01):
            parts[1].show(result(index))
            index += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    with video(server) as client:
        assert len(read_frames(client, 5)) >= 5
    stop.set()
    feeder.join()


def test_a_video_that_stands_still_is_repeated(server, parts, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.1)
    parts[1].show(result(1))
    with video(server) as client:
        assert len(read_frames(client, 3)) >= 3


def test_the_number_of_viewers_is_bounded(server, parts, monkeypatch):
    parts[1].show(result(1))
    clients = [video(server) for _ in range(module.VIEWERS)]
    for client in clients:
        client.recv(10)
    assert get(server, "/video/0")[0] == 503
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    for client in clients:
        client.close()
    deadline = time.monotonic() + 10
    while not server.viewers.acquire(blocking=False):
        assert time.monotonic() < deadline, "viewers that went away keep their place"
        time.sleep(0.02)
        parts[1].show(result(int(1000 * time.monotonic())))


def test_other_hosts_names_are_refused(server):
    assert get(server, "/metrics", Host="evil.example")[0] == 403


def test_a_token_is_needed_and_becomes_a_cookie(parts):
    with Server(Access("127.0.0.1", 0, TOKEN), lambda: parts[2], parts[1]) as server:
        for path in ("/", "/metrics", "/healthz", "/frame/0", "/api/status", "/?token=wrong"):
            assert get(server, path)[0] == 401, path
        code, headers, _ = get(server, f"/?token={TOKEN}")
        assert (code, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert get(server, "/", Cookie=cookie.partition(";")[0])[0] == 200
        assert get(server, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def post(server, path, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=10)
    connection.request("POST", path, body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_nothing_is_taken_where_nobody_takes_it(server):
    assert post(server, "/bundle", b"x")[0] == 404
    assert post(server, "/", b"x")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", port(server), timeout=10)
    connection.request("DELETE", "/")
    assert connection.getresponse().status == 501


def test_a_bundle_is_taken_from_who_has_the_token(parts):
    taken = []

    def offer(data):
        if data == b"late":
            raise SwapError("4 bundles wait to be tested already")
        taken.append(data)

    with Server(Access("127.0.0.1", 0, TOKEN), lambda: parts[2], parts[1], offer) as server:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert post(server, "/bundle", b"x", Cookie=f"npu-run-token={TOKEN}")[0] == 401
        assert post(server, f"/bundle?token={TOKEN}", b"x")[0] == 401
        assert post(server, "/bundle", b"", **bearer)[0] == 411
        assert post(server, "/bundle", b"x", **bearer, **{"Content-Length": "-1"})[0] == 411
        assert post(server, "/bundle", b"bundle", **bearer)[0] == 202
        assert post(server, "/bundle", b"late", **bearer) == (409, "4 bundles wait to be tested already\n")
        assert post(server, "/other", b"x", **bearer)[0] == 404
    assert taken == [b"bundle"]


def test_without_a_token_nothing_can_be_changed(parts):
    with Server(Access("127.0.0.1", 0, None), lambda: parts[2], parts[1], lambda data: None) as server:
        assert post(server, "/bundle", b"x", Authorization="Bearer ")[0] == 401


def test_a_port_that_is_taken(server, parts):
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port(server)}: cannot be served at: Address already in use"):
        Server(Access("127.0.0.1", port(server), None), lambda: parts[2], parts[1])


def test_ipv6(parts):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with Server(Access("::1", 0, None), lambda: parts[2], parts[1]) as server:
        connection = http.client.HTTPConnection("::1", port(server), timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200


def test_clients_that_vanish_or_talk_nonsense_are_no_trouble(server, capsys):
    for data in (
        b"",
        b"GET",
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port(server)), timeout=5) as client:
            client.sendall(data)
    assert get(server, "/healthz")[0] == 200
    assert capsys.readouterr().err == ""
