"""Small data that every test may use; heavy libraries are imported where they are needed."""

import json
from pathlib import Path

import numpy as np
import pytest

FRAMES, WIDTH, HEIGHT, BOX = 24, 128, 96, (20, 36)
"""The tiny clip: frames, size in pixels, and width and height of each of its two people."""


def pytest_addoption(parser):
    """``--fuzz N``: how many mutated programs the fuzz test tries."""
    parser.addoption("--fuzz", type=int, default=400, help="mutated NPU programs to try")


def tiny_boxes(frame):
    """Left and top of the two rectangles that walk through the tiny clip."""
    return (4 + 3 * frame, 20), (WIDTH - BOX[0] - 4 - 3 * frame, 50)


def tiny_frame(frame):
    """A grey picture, uint8 [HEIGHT, WIDTH, 3], with a bright and a dark rectangle on it."""
    picture = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    for (left, top), shade in zip(tiny_boxes(frame), (230, 20), strict=True):
        picture[top : top + BOX[1], left : left + BOX[0]] = shade
    return picture


def tiny_coco(name, frames):
    """COCO annotations of the tiny frames; ``name(frame)`` names each image."""
    images = [{"id": n + 1, "file_name": name(n), "frame_index": n, "width": WIDTH, "height": HEIGHT} for n in frames]
    boxes = [(n + 1, left, top) for n in frames for left, top in tiny_boxes(n)]
    annotations = [
        {
            "id": number + 1,
            "image_id": image,
            "category_id": 1,
            "bbox": [left, top, *BOX],
            "area": BOX[0] * BOX[1],
            "iscrowd": 0,
        }
        for number, (image, left, top) in enumerate(boxes)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


@pytest.fixture(scope="session")
def tiny_video(tmp_path_factory):
    """A folder with ``clip.mp4`` and its boxes in ``annotations.json``; do not write into it."""
    av = pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("tiny_video")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 2_000_000
        for number in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(tiny_frame(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    (folder / "annotations.json").write_text(json.dumps(tiny_coco("clip.mp4#{:04}".format, range(FRAMES))))
    return folder


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory):
    """A folder with ``train/``, ``validation/`` (PNG) and their COCO files ``train.json``, ``validation.json``."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("tiny_images")
    for split, frames in (("train", range(16)), ("validation", range(16, FRAMES))):
        (folder / split).mkdir()
        for number in frames:
            image.fromarray(tiny_frame(number)).save(folder / split / f"{number:04}.png")
        (folder / f"{split}.json").write_text(json.dumps(tiny_coco("{:04}.png".format, frames)))
    return folder


@pytest.fixture
def tiny_settings(tiny_video):
    """The settings of a use case on the tiny clip that trains in seconds; change what you like."""
    return {
        "name": "tiny",
        "target": "coral-edgetpu-usb3",
        "data": {
            "format": "video",
            "video": str(tiny_video / "clip.mp4"),
            "annotations": str(tiny_video / "annotations.json"),
            "train_frames": [0, 16],
            "validation_frames": [16, FRAMES],
        },
        "preprocess": {"size": [64, 48]},
        "train": {"epochs": 1, "batch_size": 4, "accelerator": "cpu"},
        "quantize": {"calibration_images": 4, "error_images": 1},
        "partition": {"objective": "coverage"},
        "tracking": "off",
    }


@pytest.fixture
def tiny_config(tiny_settings, tmp_path) -> Path:
    """A configuration file with ``tiny_settings``."""
    yaml = pytest.importorskip("yaml")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_settings))
    return path
