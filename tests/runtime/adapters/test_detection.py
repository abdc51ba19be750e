"""Decoding by hand-made cases, suppression against torchvision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from runtime.adapters.detection import CANDIDATES, BoxDecoder, decode, suppress
from runtime.adapters.image import Placement

DECODER = BoxDecoder(stride=8, score_threshold=0.5, iou_threshold=0.5, max_detections=10)
IDENTITY = Placement(1.0, 0, 0)


def silent(labels=1, rows=4, columns=6):
    return {
        "scores": np.full((1, labels, rows, columns), -20, np.float32),
        "boxes": np.ones((1, 4, rows, columns), np.float32),
    }


def test_nothing_is_nothing():
    found = decode(silent(), DECODER, IDENTITY, (48, 32))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.labels.shape == (0,)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_one_cell_by_hand():
    outputs = silent(labels=2)
    outputs["scores"][0, 1, 2, 3] = np.log(3)
    outputs["boxes"][0, :, 2, 3] = [1.5, 0.5, 1.0, 0.25]
    found = decode(outputs, DECODER, IDENTITY, (48, 32))
    assert np.allclose(found.boxes, [[16, 16, 36, 22]])
    assert np.allclose(found.scores, [0.75])
    assert found.labels.tolist() == [1]


def test_placement_is_undone():
    outputs = silent()
    outputs["scores"][0, 0, 2, 3] = 5
    placed = decode(outputs, DECODER, Placement(0.5, 4, 2), (500, 500)).boxes
    assert np.allclose(placed, [[(20 - 4) / 0.5, (12 - 2) / 0.5, (36 - 4) / 0.5, (28 - 2) / 0.5]])


def test_boxes_are_clipped_to_the_frame():
    outputs = silent()
    outputs["scores"][0, 0, 0, 0] = 5
    outputs["boxes"][0, :, 0, 0] = 100
    assert decode(outputs, DECODER, IDENTITY, (40, 30)).boxes.tolist() == [[0, 0, 40, 30]]


def test_negative_distances_count_as_zero_and_empty_boxes_go():
    outputs = silent()
    outputs["scores"][0, 0, 1, 1] = 5
    outputs["boxes"][0, :, 1, 1] = [-3, -3, 1, 1]
    assert decode(outputs, DECODER, IDENTITY, (48, 32)).boxes.tolist() == [[12, 12, 20, 20]]
    outputs["boxes"][0, :, 1, 1] = [-3, 1, -3, 1]
    assert len(decode(outputs, DECODER, IDENTITY, (48, 32)).boxes) == 0


def test_a_box_wholly_in_the_padding_goes():
    outputs = silent()
    outputs["scores"][0, 0, 0, 0] = 5
    outputs["boxes"][0, :, 0, 0] = 0.25
    assert len(decode(outputs, DECODER, Placement(1.0, 0, 16), (48, 32)).boxes) == 0


def test_threshold_is_inclusive():
    outputs = silent()
    outputs["scores"][0, 0, 0, 0] = 0.0
    assert decode(outputs, DECODER, IDENTITY, (48, 32)).scores.tolist() == [0.5]


def test_best_first_and_at_most_max_detections():
    outputs = silent(rows=8, columns=8)
    outputs["scores"][0, 0] = np.linspace(1, 5, 64).reshape(8, 8)
    outputs["boxes"][:] = 0.4
    found = decode(outputs, DECODER, IDENTITY, (64, 64))
    assert len(found.scores) == 10
    assert (np.diff(found.scores) <= 0).all()
    assert np.isclose(found.scores[0], 1 / (1 + np.exp(-5)))


def test_extreme_logits_do_not_overflow():
    outputs = silent()
    outputs["scores"][0, 0, 0, 0] = 1e4
    outputs["scores"][0, 0, 0, 1] = -1e4
    with np.errstate(over="raise", invalid="raise"):
        assert decode(outputs, DECODER, IDENTITY, (48, 32)).scores.tolist() == [1.0]


def test_only_the_best_candidates_are_compared():
    outputs = silent(rows=50, columns=50)
    outputs["scores"][:] = 3
    outputs["boxes"][:] = 0.4
    decoder = BoxDecoder(8, 0.5, 0.5, 10_000)
    assert len(decode(outputs, decoder, IDENTITY, (400, 400)).scores) == CANDIDATES


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 80), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_suppression_is_torchvisions(seed, count, labels, threshold):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 40, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1, 30, (count, 2))], axis=1).astype(np.float32)
    scores = random.permutation(count).astype(np.float32) / max(count, 1)
    kinds = random.integers(0, labels, count)
    theirs = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(kinds), threshold)
    assert suppress(boxes, scores, kinds, threshold).tolist() == theirs.tolist()


def test_identical_boxes_of_one_label_leave_the_first():
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (3, 1))
    scores = np.full(3, 0.5, np.float32)
    assert suppress(boxes, scores, np.zeros(3, np.int64), 0.5).tolist() == [0]
    assert suppress(boxes, scores, np.array([0, 1, 0]), 0.5).tolist() == [0, 1]


def test_boxes_without_area_do_not_divide_by_zero():
    boxes = np.zeros((2, 4), np.float32)
    with np.errstate(all="raise"):
        assert suppress(boxes, np.ones(2, np.float32), np.zeros(2, np.int64), 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0.25, 0.5])
def test_overlap_equal_to_the_threshold_stays(threshold):
    boxes = np.array([[0, 0, 4, 1], [0, 0, 4 * threshold, 1]], np.float32)
    assert suppress(boxes, np.array([1, 0.5], np.float32), np.zeros(2, np.int64), threshold).tolist() == [
        0,
        1,
    ]
