import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.report.samples import LARGEST_WIDTH, side_by_side
from pipeline.stages.samples import packaged_detector, save_samples
from pipeline.tasks import Sample
from runtime.adapters.detection import BoxDecoder, Detections
from runtime.adapters.image import Preprocess

NOTHING = np.zeros((0, 4), np.float32)


def found(*boxes):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.5, np.float32), np.zeros(len(boxes), np.int64)
    )


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def strongest(half, channels):
    """Columns at which the picture has the colour of a box."""
    red, green, blue = (half[..., c].astype(int) for c in range(3))
    return np.flatnonzero(channels(red, green, blue).any(0))


def test_left_is_the_float_model_and_right_the_npu():
    frame = np.full((120, 200, 3), 60, np.uint8)
    both = opened(side_by_side(frame, found((20, 30, 60, 90)), found((120, 30, 160, 90)), NOTHING))
    left, right = both[:, :200], both[:, -200:]
    orange = lambda r, g, b: (r > 200) & (b < 120)  # noqa: E731
    blue = lambda r, g, b: (b > 200) & (r < 120)  # noqa: E731
    assert strongest(left, orange).min() == pytest.approx(20, abs=2)
    assert strongest(left, orange).max() == pytest.approx(60, abs=2)
    assert strongest(right, blue).min() == pytest.approx(120, abs=2)
    assert strongest(right, blue).max() == pytest.approx(160, abs=2)
    assert strongest(left, blue).size == 0
    assert strongest(right, orange).size == 0


def test_annotated_boxes_are_in_both_halves():
    frame = np.full((120, 200, 3), 60, np.uint8)
    both = opened(side_by_side(frame, found(), found(), np.array([[50, 40, 90, 100]], np.float32)))
    for half in (both[40:, :200], both[40:, -200:]):
        white = strongest(half, lambda r, g, b: (r > 180) & (g > 180) & (b > 180))
        assert white.min() == pytest.approx(50, abs=2)
        assert white.max() == pytest.approx(90, abs=2)


def test_large_frames_are_scaled_down():
    frame = np.zeros((720, 1280, 3), np.uint8)
    both = opened(side_by_side(frame, found((0, 0, 1280, 720)), found(), NOTHING))
    assert both.shape[1] == pytest.approx(2 * LARGEST_WIDTH, abs=16)


@pytest.mark.parametrize("box", [(-10, -10, 500, 500), (5, 5, 5, 5), (9, 9, 3, 3)])
def test_any_box_can_be_drawn_and_the_same_input_gives_the_same_bytes(box):
    frame = np.zeros((40, 60, 3), np.uint8)
    one, two = (side_by_side(frame, found(box), found(box), np.array([box], np.float32)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("count", "names"), [(1, ["000"]), (61, ["000", "060"]), (500, ["000", "060", "120"])])
def test_a_few_frames_are_kept_without_reading_all(tmp_path, count, names):
    read = []

    def validation():
        for number in range(count):
            read.append(number)
            yield Sample(np.zeros((24, 32, 3), np.uint8), NOTHING, np.zeros(0, np.int64), f"a/b c#{number} (frame 7)")

    task = SimpleNamespace(validation=validation)
    save_samples(tmp_path / "samples", task, lambda frame: found(), lambda frame: found((1, 1, 9, 9)))
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == [f"{name}-a_b_c_{int(name)}_frame_7.jpg" for name in names]
    assert len(read) <= 121


def test_the_float_model_is_decoded_as_the_package_is():
    task = SimpleNamespace(preprocess=Preprocess(64, 48, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    scores = np.full((1, 1, 6, 8), -9.0, np.float32)
    scores[0, 0, 2, 3] = 2.0
    boxes = np.ones((1, 4, 6, 8), np.float32)
    seen = []

    def infer(pixels):
        seen.append(pixels.shape)
        return {"scores": scores, "boxes": boxes}

    frame = np.zeros((96, 128, 3), np.uint8)
    detect = packaged_detector(task, infer, BoxDecoder(8, 0.5, 0.5, 100))
    assert detect(frame).boxes.tolist() == [[40.0, 24.0, 72.0, 56.0]]
    assert seen == [(48, 64, 3)]
    assert len(packaged_detector(task, infer, BoxDecoder(8, 0.95, 0.5, 100))(frame).scores) == 0
