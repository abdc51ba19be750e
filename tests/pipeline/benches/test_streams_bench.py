"""What bench measures of streams: the same work on both sides, and nothing where there is no video."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.benches import streams
from pipeline.configfile import load
from pipeline.errors import ModelError
from pipeline.workspace import Quiet
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
