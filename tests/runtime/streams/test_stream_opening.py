"""From what --source says to a feed: names, policies, cameras that are unplugged."""

import threading
from fractions import Fraction

import numpy as np
import pytest
import tiny

from runtime.errors import SourceError
from runtime.sources import Frame, Source
from runtime.streams import opening
from runtime.streams.opening import open_all


def opened(*texts, limit=None):
    return open_all(texts, limit, lambda source, link: None, threading.Event())


def test_files_wait_and_streams_give_way(tmp_path):
    np.save(tmp_path / "a.npy", tiny.frames(2))
    found = opened(str(tmp_path / "a.npy"), "rtsp://me:secret@host/1", limit=3)
    assert [(each.kind, each.feed.policy, each.feed.limit) for each in found] == [
        ("video", "wait", 3),
        ("live", "latest", 3),
    ]
    assert found[1].name == "rtsp://host/1"


def test_the_same_source_twice_has_two_names(tmp_path):
    np.save(tmp_path / "a.npy", tiny.frames(2))
    text = str(tmp_path / "a.npy")
    assert [each.name for each in opened(text, text, text)] == [text, f"{text} (2)", f"{text} (3)"]


def test_a_camera_must_be_there_at_first_and_may_then_go_and_come_back(monkeypatch):
    plugged, heard = [True], []

    def open_source(text):
        if not plugged[0]:
            plugged[0] = True
            raise SourceError("there is no such camera", where=text)
        plugged[0] = False
        frames = (Frame(tiny.frames(1)[0], n / 30) for n in range(2))
        return Source("/dev/video0", Fraction(30), frames, "live")

    monkeypatch.setattr(opening, "open_source", open_source)
    monkeypatch.setattr("runtime.streams.live.FIRST_S", 0.01)
    stop = threading.Event()
    (camera,) = open_all(["0"], None, lambda source, link: heard.append(link), stop)
    assert camera.rate == 30
    assert [frame.captured > 0 for frame, _ in zip(camera.feed.frames, range(4), strict=False)] == [True] * 4
    assert [link.problem for link in heard if not link.up][:2] == ["ended", "there is no such camera"]
    plugged[0] = False
    with pytest.raises(SourceError, match="there is no such camera"):
        opened("0")
