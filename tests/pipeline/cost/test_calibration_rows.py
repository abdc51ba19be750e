"""Measured silicon: each row of the calibration table that a network of these tests stands for, with its error.

``a priori`` rows saw no measurement; ``fitted`` rows were fitted to; ``held out`` rows are predicted with constants
that were fitted to others of the same chip. The links and the cache of the Edge TPU are slopes between VGG16 and
Inception v4 (cost-model section 3), so VGG16 is not wholly held out;
the DRAM bandwidth of the i.MX 93 (7.46 GB/s) is unverified.
"""

import networks
import pytest
from test_cost_model import model, whole

from pipeline.cost.fitted import FITS, Fit
from pipeline.cost.hosts import folder, load
from pipeline.cost.nouns import Kind, Work


def v1_small():
    return networks.mobilenet_v1(0.25, 128)


def vgg16():
    """VGG16; its dense layers, 124 MB of weights, as works rather than as an ONNX model."""
    features = networks.works_of(networks.vgg16_features)
    dense = []
    for inputs, outputs in ((25088, 4096), (4096, 4096), (4096, 1000)):
        before, size = (dense or features)[-1].outputs, inputs * outputs
        dense.append(Work(
            f"dense{len(dense)}", "Gemm", Kind.FC, 1, 1, outputs, 1, 1, inputs, in_bytes=(inputs,), out_bytes=outputs,
            weight_bytes=size + 4 * outputs, macs=size, inputs=before, outputs=(f"d{len(dense)}",),
        ))  # fmt: skip
    return (*features, *dense)


def v1_wake():
    return networks.mobilenet_v1(0.25, 96, 2)


def items_of(network):
    return vgg16() if network is vgg16 else networks.works_of(network)


ROWS = [  # target, network, measured ms, label, limit on the relative error
    ("ethos-u65-256", v1_small, 0.37, "a priori", 0.10),
    ("ethos-u65-256", v1_wake, 0.214, "a priori", 0.10),
    ("jetson-xavier-nx-dla", networks.resnet50, 1e3 / 210, "a priori", 0.55),
    ("coral-edgetpu-usb3", networks.mobilenet_v1, 2.4, "fitted", 0.06),
    ("coral-edgetpu-usb3", networks.squeezenet, 2.1, "fitted", 0.06),
    ("coral-edgetpu-usb3", networks.inception_v1, 3.4, "held out", 0.18),
    ("coral-edgetpu-usb3", vgg16, 296, "held out", 0.02),
    ("coral-edgetpu-pcie", networks.mobilenet_v1, 2.4, "fitted", 0.08),
    ("coral-edgetpu-pcie", networks.squeezenet, 2.0, "fitted", 0.08),
    ("coral-edgetpu-pcie", networks.inception_v1, 4.1, "held out", 0.33),
    ("coral-edgetpu-pcie", vgg16, 343, "held out", 0.02),
    ("rk3588", networks.resnet50, 1e3 / 110.1, "fitted", 0.02),
    ("jetson-xavier-nx-gpu", networks.resnet50, 2.574, "fitted", 0.05),
    ("snapdragon-855", networks.mobilenet_v1, 2.958, "fitted", 0.06),
]


@pytest.mark.parametrize(("target", "network", "measured", "label", "limit"), ROWS)
def test_row(target, network, measured, label, limit):
    total = whole(model(target), items_of(network))
    error = total.ms / measured - 1
    print(f"{target:22s} {network.__name__:14s} {label:9s} {measured:8.3f} ms, here {total.ms:8.3f} ({error:+.1%})")  # noqa: T201
    assert abs(error) <= limit
    assert total.low_ms <= measured <= total.high_ms
    assert (label == "a priori") == (target not in FITS)


def test_measured_order_of_the_networks_on_one_chip():
    """The Edge TPU's networks come in the order in which they were measured."""
    order = [networks.squeezenet, networks.mobilenet_v1, networks.inception_v1, vgg16]
    found = [whole(model("coral-edgetpu-usb3"), items_of(n)).ms for n in order]
    assert found == sorted(found)


def test_no_chip_has_more_than_three_fitted_constants():
    for fit in FITS.values():
        assert sum(v is not None for v in (fit.share, fit.tops, fit.inference_ms)) <= 3
        assert not set(fit.rows) & set(fit.held_out)
        assert isinstance(fit, Fit)


@pytest.mark.parametrize(("network", "measured"), [(v1_small, 2.41), (v1_wake, 1.38)])
def test_two_threads_of_the_imx_93_are_what_its_host_was_fitted_to(network, measured):
    total = whole(model("ethos-u65-256"), networks.works_of(network), inside=False)
    error = total.ms / measured - 1
    print(f"i.MX 93, two threads, {network.__name__}: {measured} ms, here {total.ms:.2f} ({error:+.1%})")  # noqa: T201
    assert total.low_ms <= measured <= total.high_ms
    assert abs(error) < 0.05


def test_every_shipped_host_says_where_its_rates_come_from():
    for path in sorted(folder().glob("*.yaml")):
        profile = load(path)
        assert all(rate.source for rate in profile.figures.values())
        assert profile.name == "cortex-a55" or all(r.confidence == "unverified" for r in profile.figures.values())
