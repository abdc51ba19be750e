"""Loss, augmentation, metric: against hand-made cases."""

import numpy as np
import pytest
import torch

from pipeline.config import AugmentConfig
from pipeline.tasks.detection.augment import Augment
from pipeline.tasks.detection.loss import assign, cell_centres, detection_loss
from pipeline.tasks.detection.metric import average_precision
from runtime.adapters.detection import Detections


def assigned(boxes, labels=None, rows=4, columns=6):
    boxes = torch.tensor([boxes], dtype=torch.float32).reshape(1, -1, 4)
    labels = torch.zeros(boxes.shape[:2], dtype=torch.int64) if labels is None else torch.tensor([labels])
    return assign(cell_centres(rows, columns, boxes.device), boxes, labels)[0].reshape(rows, columns)


def test_the_central_cells_of_a_box_report_it():
    owner = assigned([[0, 0, 4, 4]])
    assert torch.nonzero(owner == 0).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_a_tiny_box_still_gets_the_cell_it_lies_in():
    owner = assigned([[3.1, 1.2, 3.3, 1.5]])
    assert torch.nonzero(owner == 0).tolist() == [[1, 3]]


def test_of_two_boxes_the_smaller_wins():
    owner = assigned([[0, 0, 4, 4], [1.2, 1.2, 1.9, 1.9]])
    assert owner[1, 1] == 1
    assert owner[2, 2] == 0


def test_padding_is_never_assigned():
    assert (assigned([[0, 0, 4, 4]], labels=[-1]) == -1).all()


def test_images_without_boxes_are_all_background():
    assert (assigned([]) == -1).all()


def perfect(boxes, labels):
    """Outputs that say exactly the truth: boxes in pixels at stride 8 on 4 x 6 cells."""
    centres = cell_centres(4, 6, torch.device("cpu"))
    owner = assign(centres, boxes / 8, labels)[0]
    scores = torch.full((1, 2, 24), -20.0)
    distances = torch.zeros(1, 4, 24)
    for cell, box in enumerate(owner.tolist()):
        if box >= 0:
            scores[0, labels[0, box], cell] = 20.0
            corners = boxes[0, box] / 8
            distances[0, :2, cell] = centres[cell] - corners[:2]
            distances[0, 2:, cell] = corners[2:] - centres[cell]
    return scores.reshape(1, 2, 4, 6), distances.reshape(1, 4, 4, 6)


BOXES = torch.tensor([[[2.0, 3.0, 20.0, 30.0], [24.0, 8.0, 40.0, 30.0]]])
LABELS = torch.tensor([[0, 1]])


def test_the_truth_costs_nothing():
    assert detection_loss(*perfect(BOXES, LABELS), BOXES, LABELS, 8).item() == pytest.approx(0, abs=1e-5)


def test_a_wrong_class_and_a_wrong_box_cost():
    scores, distances = perfect(BOXES, LABELS)
    assert detection_loss(scores.flip(1), distances, BOXES, LABELS, 8) > 1
    assert detection_loss(scores, distances + 0.5, BOXES, LABELS, 8) > 0.1


def test_negative_distances_count_as_small_ones_and_still_learn():
    scores, distances = perfect(BOXES, LABELS)
    low = torch.full_like(distances, -3.0).requires_grad_()
    loss = detection_loss(scores, low, BOXES, LABELS, 8)
    assert torch.equal(loss, detection_loss(scores, torch.full_like(distances, 0.1), BOXES, LABELS, 8))
    loss.backward()
    assert low.grad is not None
    assert low.grad.abs().sum() > 0


def test_no_boxes_at_all_still_give_a_finite_loss():
    scores, distances = perfect(BOXES, LABELS)
    loss = detection_loss(scores, distances, torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64), 8)
    assert torch.isfinite(loss)


def picture():
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    image[:, 10:30, 20:36] = 255
    return image, torch.tensor([[20.0, 10.0, 36.0, 30.0]]), torch.tensor([0])


def test_augmentation_depends_on_seed_epoch_and_position_only():
    augment = Augment(AugmentConfig(), seed=3)
    torch.manual_seed(1)
    first = augment(*picture(), (2, 5))
    torch.rand(100)
    second = Augment(AugmentConfig(), seed=3)(*picture(), (2, 5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    others = [augment(*picture(), (3, 5)), augment(*picture(), (2, 6)), Augment(AugmentConfig(), 4)(*picture(), (2, 5))]
    assert not any(torch.equal(first[0], other[0]) for other in others)


def test_augmentation_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    Augment(AugmentConfig(), 0)(*picture(), (0, 0))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("position", range(20))
def test_boxes_follow_the_picture(position):
    image, boxes, _ = Augment(AugmentConfig(colour=0), 0)(*picture(), (0, position))
    bright = torch.nonzero(image[0] > 180).flip(1)
    if len(boxes):
        found = torch.cat([bright.min(0).values, bright.max(0).values + 1])
        assert (found - boxes[0]).abs().max() <= 1.5


def test_everything_turned_off_changes_nothing():
    image, boxes, labels = picture()
    result = Augment(AugmentConfig(flip=0, colour=0, scale=0, shift=0), 0)(image, boxes, labels, (0, 0))
    assert all(torch.equal(a, b) for a, b in zip(result, (image, boxes, labels), strict=True))


def found(*boxes, score=0.9):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), score, np.float32),
        np.zeros(len(boxes), np.int64),
    )


TRUTH = (np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32), np.zeros(2, np.int64))


def test_perfect_boxes_have_precision_one():
    assert average_precision([found(*TRUTH[0])], [TRUTH]) == {"ap50": 1.0, "ap": 1.0}


def test_half_of_the_boxes_have_precision_one_half():
    assert average_precision([found(TRUTH[0][0])], [TRUTH])["ap50"] == pytest.approx(51 / 101)


def test_loose_boxes_count_at_iou_one_half_only():
    metrics = average_precision([found([0, 0, 10, 8.2], [20, 20, 40, 36.4])], [TRUTH])
    assert metrics["ap50"] == 1.0
    assert metrics["ap"] == pytest.approx(0.7)


def test_no_boxes_have_precision_zero():
    assert average_precision([found()], [TRUTH]) == {"ap50": 0.0, "ap": 0.0}
