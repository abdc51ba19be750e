"""What bench measures of streams: the same work on both sides, and nothing where there is no video."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.benches import overlap, streams
from pipeline.configfile import load
from pipeline.errors import ModelError
from pipeline.workspace import Quiet
from runtime.adapters.detection import Detections
from runtime.adapters.image import letterbox

CCTV = "configs/cctv.yaml"


@pytest.mark.parametrize("size", [(48, 96), (96, 48), (64, 64)])
def test_the_loop_resizes_to_the_place_that_npu_run_does(size):
    smooth = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    frame = np.asarray(Image.fromarray(smooth).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    image, placement = streams.fitted(frame, 32, 24)
    expected, place = letterbox(frame, 32, 24)
    assert placement == place
    assert np.abs(image.astype(int) - expected.astype(int)).mean() < 4


def test_a_use_case_that_was_not_run_has_nothing_to_measure(tmp_path, request):
    config = load(request.config.rootpath / CCTV).config
    with pytest.raises(ModelError, match="there is no bundle to measure"):
        list(streams.rows(config, tmp_path, Quiet()))


@pytest.mark.parametrize("times", [[], [1.0]])
def test_a_video_of_less_than_two_frames_has_no_rate(times):
    with pytest.raises(ModelError, match=rf"short.mp4: gave {len(times)} frames; a rate needs two"):
        streams._rate(times, Path("short.mp4"))
    assert streams._rate([1.0, 1.5], Path("short.mp4")) == 2


def test_a_process_that_cannot_play_says_why(tmp_path):
    with pytest.raises(ModelError, match=r"npu-run does not play .*cannot be read"):
        streams._cold_start(tmp_path / "none.npub", tmp_path / "none.mp4", "cpu")


class Turning:
    """A session that finds other boxes from the third picture on that it is given."""

    def __init__(self, opened):
        self.opened, self.seen = opened, 0

    def detect(self, picture):
        self.seen += 1
        boxes = np.full((1, 4), float(self.seen > 2), np.float32)
        return Detections(boxes, np.ones(1, np.float32), np.zeros(1, np.int64))


def test_frames_that_overlap_must_have_the_boxes_that_they_have_one_by_one(tmp_path, monkeypatch):
    opened = SimpleNamespace(path=tmp_path / "a.npub")
    task = SimpleNamespace(validation=lambda: iter([SimpleNamespace(frame=np.zeros((8, 8, 3), np.uint8))] * 2))
    monkeypatch.setattr(overlap, "Session", Turning)
    monkeypatch.setattr(overlap, "overlapped", lambda session, pictures: list(map(session.detect, pictures)))
    with pytest.raises(ModelError, match=r"a\.npub: frames overlapped have other boxes than one by one \(report it\)"):
        list(overlap.rows(opened, task))
