import numpy as np
import pytest
from npu_programs import clamp, network, scaling, single, spec

from runtime.npu.timeline import estimate


def conv(channels, outputs, group, size=8):
    x, y = spec("x", (1, channels, size, size)), spec("y", (1, outputs, size, size))
    attributes = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": group, **clamp()}
    weight = np.ones((outputs, channels // group, 3, 3), np.int8)
    constants = {"weight": weight, "bias": np.zeros(outputs, np.int32), **scaling(np.full(outputs, 0.1))}
    return single("conv2d", [x], y, attributes, constants)


def test_a_convolution_costs_its_gemm():
    """64 x 64 array: M = 64 places, K = 9 * 16 = 144 in 3 folds, N = 128 in 2: (2 * 64 + 64 + 64 - 2) * 6."""
    row = estimate(conv(16, 128, 1)).rows[0]
    assert row.macs == 64 * 144 * 128
    assert row.cycles == 254 * 6
    assert (row.input_bytes, row.output_bytes) == (16 * 64, 128 * 64)
    assert row.weight_bytes == 128 * 144 + 3 * 4 * 128
    assert row.ms == pytest.approx(1e3 * max(254 * 6 / 5e8, (1024 + 8192 + row.weight_bytes) / 4e9))


def test_a_depthwise_convolution_uses_one_column():
    """A GEMM per channel: 128 times the cycles of one column, 1/128 of the MACs of the dense layer."""
    dense, depthwise = estimate(conv(128, 128, 1)).rows[0], estimate(conv(128, 128, 128)).rows[0]
    assert dense.macs == 128 * depthwise.macs
    assert depthwise.cycles == 254 * 128
    assert depthwise.bound == "compute"


def test_totals_are_sums():
    timeline = estimate(network(0))
    assert [row.opcode for row in timeline.rows][:2] == ["conv2d", "conv2d"]
    assert timeline.macs == sum(row.macs for row in timeline.rows) > 0
    assert timeline.cycles == sum(row.cycles for row in timeline.rows)
    assert timeline.bytes == sum(row.input_bytes + row.output_bytes + row.weight_bytes for row in timeline.rows)
    assert timeline.ms == pytest.approx(sum(row.ms for row in timeline.rows) + timeline.link_ms)
    crossing = 3 * 16 * 20 + 7 + 16 * 8 * 10
    assert timeline.link_ms == pytest.approx(1e3 * crossing / 4.5e8)
