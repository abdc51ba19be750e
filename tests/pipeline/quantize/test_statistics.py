"""Channel statistics, extremes alone, moving averages and entropy."""

import os
import sys

import numpy as np
import pytest
from smallmodels import images, model, run_onnx

from pipeline.errors import ModelError
from pipeline.graph.view import view
from pipeline.quantize.calibrate import MOST, calibrate
from pipeline.quantize.histogram import AVERAGING, Histogram
from pipeline.quantize.ranges import entropy, moving_average
from pipeline.quantize.scheme import Scheme

SHAPE = (1, 3, 6, 6)
RANDOM = np.random.default_rng(3)
WEIGHT = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)


def net(opset=18):
    return model("g (float[1,3,6,6] x) => (float[1,4] y) { a = Conv (x, w) \n r = Relu (a) \n p = GlobalAveragePool (r)"
                 " y = Flatten (p) }", opset, w=WEIGHT)  # fmt: skip


def tapped(names):
    floating = net()
    for name in names:
        floating.graph.output.append(next(v for v in floating.graph.value_info if v.name == name))
    return floating


@pytest.mark.parametrize("histograms", [True, False])
@pytest.mark.parametrize("opset", [13, 18])
def test_channels_against_numpy(histograms, opset):
    floating, seen = net(opset), images(SHAPE, count=5)
    found = calibrate(floating, view(floating), seen, histograms)
    values = np.concatenate([run_onnx(tapped(["r"]), {"x": image})["r"] for image in seen])
    np.testing.assert_allclose(found.channels["r"].high, values.max(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found.channels["r"].low, values.min(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.channels["r"].mean, values.mean(axis=(0, 2, 3)), rtol=1e-5)
    assert found.channels["y"].mean.shape == (4,)
    assert found.images == 5
    assert found.histograms["r"].high == pytest.approx(values.max(), rel=1e-6)
    assert ("a" in found.histograms) == histograms  # it exists only inside the fused operator


def test_extremes_and_their_averages_are_those_of_a_histogram_of_the_whole_tensor():
    floating, seen = net(), images(SHAPE, count=7)
    found = calibrate(floating, view(floating), seen, False).histograms["r"]
    expected = Histogram()
    for image in seen:
        expected.update(run_onnx(tapped(["r"]), {"x": image})["r"])
    for name in ("low", "high", "updates", "average_low", "average_high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6)


def test_tensors_without_channels_or_with_an_unknown_number_of_them_have_extremes_alone():
    floating = model(
        "g (float[1,3] x) => (float[1] s, float[n,m] k) { i = NonZero (x) \n c = Cast <to = 1> (i) \n k = Mul (c, x1)"
        " s = ReduceSum <keepdims = 0> (x, axes) }",
        18, x1=np.float32(2.0), axes=np.array([1]),
    )  # fmt: skip
    found = calibrate(floating, view(floating), [np.float32([[0.0, 2.0, -5.0]]), np.float32([[0.0, 2.0, 4.0]])], False)
    assert set(found.channels) == {"x"}
    assert {name: (h.low, h.high) for name, h in found.histograms.items()} == {
        "x": (-5.0, 4.0), "c": (0.0, 2.0), "k": (0.0, 4.0), "s": (-3.0, 6.0)
    }  # fmt: skip


def test_images_are_read_a_few_at_a_time_and_counted_in_order():
    floating, taken, seen = net(), [], images(SHAPE, count=30)
    at_once = min(os.cpu_count(), MOST)

    def told():
        for place, image in enumerate(seen):
            taken.append(place)
            yield image if place != 20 else np.full_like(image, np.inf)

    with pytest.raises(ModelError, match="x: is not finite on calibration image 21"):
        calibrate(floating, view(floating), told(), False)
    assert 21 <= len(taken) <= 20 + at_once


def size(statistics):
    counts = sum(h.counts.nbytes for h in statistics.histograms.values())
    return counts + sum(sys.getsizeof(c.mean) for c in statistics.channels.values())


def test_statistics_take_the_same_memory_for_any_number_of_images():
    floating = net()
    few, many = (calibrate(floating, view(floating), images(SHAPE, count=n)) for n in (2, 60))
    assert size(few) == size(many)


def test_moving_average_is_the_weighted_mean_of_the_extremes():
    histogram, values = Histogram(), RANDOM.standard_normal((30, 50)).astype(np.float32)
    for image in values:
        histogram.update(image)
    weights = (1 - AVERAGING) ** np.arange(29, -1, -1)
    low, high = moving_average(histogram, 0, Scheme())
    assert low == pytest.approx(float(np.average(values.min(axis=1), weights=weights)))
    assert high == pytest.approx(float(np.average(values.max(axis=1), weights=weights)))


def counted(values):
    histogram = Histogram()
    histogram.update(values.astype(np.float32))
    return histogram


def test_entropy_cuts_a_lone_outlier_but_not_the_bulk():
    bulk = RANDOM.standard_normal(100_000)
    low, high = entropy(counted(np.append(bulk, 60.0)), 0, Scheme())
    assert 2.5 < high < 15
    assert low < 0
    spiky = np.append(np.maximum(bulk, 0), np.zeros(400_000))  # what a ReLU gives: mostly zeros
    low, high = entropy(counted(spiky), 0, Scheme())
    assert (low, 2.0 < high < 4.5) == (0.0, True)


def test_entropy_keeps_what_is_uniform():
    values = np.linspace(-1, 1, 50_000)
    low, high = entropy(counted(values), 0, Scheme())
    assert high > 0.95
    assert low < -0.95


@pytest.mark.parametrize("exponent", [-130, -20, 0, 60, 120])
def test_bins_are_exact_at_every_size(exponent):
    values = np.ldexp(np.float32([1.0, -0.75, 0.3, -1e-3]), exponent)
    histogram = counted(values)
    limit = np.ldexp(1.0, histogram.exponent)
    edges = np.linspace(-limit, limit, len(histogram.counts) + 1)
    np.testing.assert_array_equal(histogram.counts, np.histogram(values.astype(np.float64), edges)[0])


@pytest.mark.parametrize("histograms", [True, False])
def test_a_single_number_has_extremes_too(histograms):
    floating = model("g (float[1,4] x) => (float[1,4] y) { top = ReduceMax <keepdims = 0> (x) \n y = Clip (x, , top) }")
    seen = images((1, 4), count=3)
    found = calibrate(floating, view(floating), seen, histograms)
    assert found.histograms["top"].high == pytest.approx(max(image.max() for image in seen))
    assert "top" not in found.channels
