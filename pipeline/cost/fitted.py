"""Constants fitted to measurements, at most three per chip, with the rows of the calibration table that they come from.

``share`` is the part of the peak that convolutions reach, ``tops`` an effective peak where none is published, and
``inference_ms`` a cost per inference that no figure explains (driver, interrupt). All else stays a priori. The i.MX 93
(``ethos-u65-256``) and the DLA need none: their rows lie within the a priori band.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.cost.bands import Band


@dataclass(frozen=True)
class Fit:
    """What was fitted for one chip.

    Attributes:
        rows: models of the calibration table that were fitted to.
        held_out: models that were not, and are predicted.
        band: around a prediction: the worst error on ``held_out``, where there is any; a model's usual one otherwise.
        share, tops, inference_ms: the constants, ``None`` where not fitted.
    """

    rows: tuple[str, ...]
    held_out: tuple[str, ...]
    band: Band
    share: float | None = None
    tops: float | None = None
    inference_ms: float | None = None


SMALL = ("MobileNet v1 1.0", "SqueezeNet")
LARGE = ("Inception v1", "VGG16")
USUAL = Band(0.8, 1.25)
"""Good published models against silicon: 6 to 20 %."""

FITS: Mapping[str, Fit] = MappingProxyType(
    {
        "coral-edgetpu-usb3": Fit(SMALL, LARGE, Band(0.8, 1.25), inference_ms=1.18),
        "coral-edgetpu-pcie": Fit(SMALL, LARGE, Band(0.7, 1.5), inference_ms=0.9),
        # The same chip and driver; only a network that is all link was measured on USB 2.
        "coral-edgetpu-usb2": Fit((), ("Inception v4",), Band(0.8, 1.25), inference_ms=1.18),
        # Predicts YOLOv5s and YOLOv8n (8.25 and 4.35 GMAC as published) 21 % above and 29 % below.
        "rk3588": Fit(("resnet50-v2-7",), ("yolov5s_relu", "yolov8n"), Band(0.8, 1.41), share=0.44),
        "jetson-xavier-nx-gpu": Fit(("ResNet-50",), (), USUAL, share=0.312),
        "snapdragon-855": Fit(("MobileNet v1 1.0",), (), USUAL, tops=0.385),
        # A throughput of many at once: one alone takes far longer (Server: 8.99 ms on average, against 0.15 ms here).
        "sapeon-x220": Fit(("ResNet-50",), (), Band(1.0, 61.0), tops=55.5),
    }
)
"""By target; rows are models of the calibration table."""


def fit_of(target: str) -> Fit | None:
    """The constants of ``target``; ``None`` when nothing was fitted to it."""
    return FITS.get(target)
