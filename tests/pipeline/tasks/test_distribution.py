"""The awkward head: distances are means of distributions."""

import numpy as np
import pytest
import torch

from pipeline.tasks.detection.distribution import DistributionHead, distribution_detector


def test_distances_are_means_of_softmax_over_bins():
    head = DistributionHead(inputs=5, bins=4).eval()
    features = torch.randn(2, 5, 3, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.logits.weight.normal_(generator=torch.Generator().manual_seed(1))
        found = head(features).numpy()
        logits = head.logits(features).numpy().reshape(2, 4, 4, 3, 6)  # sides, bins
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(found, (shares * np.arange(4).reshape(4, 1, 1)).sum(axis=2), rtol=1e-5)


def test_the_detector_has_the_outputs_of_the_plain_one():
    network = distribution_detector(labels=2).eval()
    with torch.no_grad():
        scores, boxes = network(torch.zeros(1, 3, 64, 96))
    assert (scores.shape, boxes.shape) == ((1, 2, 8, 12), (1, 4, 8, 12))
    assert 1.0 < float(boxes.mean()) < 2.0  # near the typical distance of 1.5 strides


def test_a_distribution_needs_two_bins():
    with pytest.raises(ValueError, match="bins = 1"):
        distribution_detector(labels=1, bins=1)
