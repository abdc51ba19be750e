"""The task as the stages see it, on a tiny clip."""

import json

import numpy as np
import pytest
import torch

from pipeline import tasks
from pipeline.config import RunConfig
from pipeline.errors import DataError, ModelError
from pipeline.tasks.detection.dataset import EpochSampler, collate, open_images
from pipeline.workspace import Quiet
from runtime.adapters.detection import Detections


@pytest.fixture
def task(tiny_settings):
    return tasks.load(RunConfig(**tiny_settings))


def truth(task):
    """A detector that knows the answers."""
    answers = iter(task.validation())

    def detect(frame):
        sample = next(answers)
        return Detections(sample.boxes, np.ones(len(sample.boxes), np.float32), sample.labels)

    return detect


def test_names_and_preprocessing(task):
    assert task.labels == ("person",)
    assert (task.input_name, task.output_names) == ("image", ("scores", "boxes"))
    assert (task.preprocess.width, task.preprocess.height) == (64, 48)


def test_calibration_is_evenly_spaced_over_the_training_split(task):
    images = list(task.calibration())
    assert [image.shape for image in images] == [(48, 64, 3)] * 4
    columns = [int(np.argmax(image[20, :, 0])) for image in images]
    assert columns == sorted(columns)
    steps = np.diff([int(np.flatnonzero(image[20, :, 0] > 190)[0]) for image in images])
    assert steps.tolist() == pytest.approx([7.5] * 3, abs=1.5)


def test_calibration_takes_what_there_is(tiny_settings):
    tiny_settings["quantize"]["calibration_images"] = 500
    assert len(list(tasks.load(RunConfig(**tiny_settings)).calibration())) == 16


def test_validation_samples_are_source_frames_with_their_boxes(task):
    samples = list(task.validation())
    assert len(samples) == 8
    assert samples[0].frame.shape == (96, 128, 3)
    assert samples[0].boxes.shape == (2, 4)
    assert "frame 16" in samples[0].name


def test_a_detector_that_knows_scores_one(task):
    assert task.evaluate(truth(task)) == {"ap50": 1.0, "ap": 1.0}


def test_a_detector_that_sees_nothing_scores_zero(task):
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert task.evaluate(lambda _: nothing) == {"ap50": 0.0, "ap": 0.0}


def test_detector_letterboxes_infers_and_decodes(task):
    scores = np.full((1, 1, 6, 8), -20.0, np.float32)
    scores[0, 0, 2, 3] = 5.0
    boxes = np.ones((1, 4, 6, 8), np.float32)

    def infer(pixels):
        assert pixels.shape == (48, 64, 3)
        return {"scores": scores, "boxes": boxes}

    found = task.detector(infer)(np.zeros((96, 128, 3), np.uint8))
    assert found.boxes.tolist() == [[40.0, 24.0, 72.0, 56.0]]


def test_packaged_decoder_has_the_settings_of_the_package(tiny_settings):
    tiny_settings["package"] = {"iou_threshold": 0.4, "max_detections": 7}
    decoder = tasks.load(RunConfig(**tiny_settings)).decoder(0.25)
    assert (decoder.stride, decoder.score_threshold, decoder.iou_threshold, decoder.max_detections) == (8, 0.25, 0.4, 7)


def test_build_names_what_is_wrong(tiny_settings):
    tiny_settings["train"]["model"] = {"options": {"widht": 2}}
    with pytest.raises(ModelError, match="width"):
        tasks.load(RunConfig(**tiny_settings)).build()


def test_damaged_video_is_named_before_training(tiny_settings, tiny_video, tmp_path):
    content = json.loads((tiny_video / "annotations.json").read_text())
    content["images"][23]["width"] = 256
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    tiny_settings["data"]["annotations"] = str(tmp_path / "annotations.json")
    with pytest.raises(DataError, match="128 x 96"):
        tasks.load(RunConfig(**tiny_settings)).learner(tmp_path / "cache", Quiet())


@pytest.mark.parametrize("kind", ["video", "coco"])
def test_images_are_the_letterboxed_frames(tiny_settings, tiny_images, tmp_path, kind):
    if kind == "coco":
        tiny_settings["data"] = {
            "format": "coco",
            "train_images": str(tiny_images / "train"),
            "train_annotations": str(tiny_images / "train.json"),
            "validation_images": str(tiny_images / "validation"),
            "validation_annotations": str(tiny_images / "validation.json"),
        }
    task = tasks.load(RunConfig(**tiny_settings))
    images = open_images(task.train, task.preprocess, tmp_path / "train.raw", Quiet())
    assert len(images) == 16
    pixels, placement = images[5]
    assert pixels.shape == (48, 64, 3)
    assert placement.scale == 0.5
    left, top, right, bottom = (task.train.images[5].boxes[0] * 0.5).astype(int)
    assert np.abs(pixels[top + 1 : bottom - 1, left + 1 : right - 1].astype(int) - 230).max() < 25


def test_batches_are_padded():
    items = [
        [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.ones(n, 4), torch.zeros(n, dtype=torch.int64)] for n in (2, 0)
    ]
    batch = collate(items)
    assert batch.images.shape == (2, 3, 8, 8)
    assert batch.labels.tolist() == [[0, 0], [-1, -1]]
    assert batch.boxes.shape == (2, 2, 4)


def epochs(seed, epoch, rank, world):
    sampler = EpochSampler(range(10), num_replicas=world, rank=rank, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_shuffle_depends_on_seed_and_epoch_and_is_shared_out():
    whole = epochs(0, 3, 0, 1)
    assert whole == epochs(0, 3, 0, 1)
    assert sorted(whole) == [(3, i) for i in range(10)]
    assert [i for _, i in whole] != [i for _, i in epochs(0, 4, 0, 1)]
    assert whole != epochs(1, 3, 0, 1)
    assert epochs(0, 3, 0, 2) + epochs(0, 3, 1, 2) != whole
    assert sorted(epochs(0, 3, 0, 2) + epochs(0, 3, 1, 2)) == sorted(whole)
