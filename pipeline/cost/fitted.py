"""Constants fitted to measurements, at most three per target, with the rows of the calibration table they come from.

All else stays a priori: the i.MX 93 (``ethos-u65-256``) and the DLA need none, their rows lie within the a priori
band. The forms of the Edge TPU's and the RK3588's model were chosen while looking at these rows, so even a row left
out of a fit is no silicon that nobody showed us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.cost.bands import Band


@dataclass(frozen=True)
class Fit:
    """What was fitted for one target; constants are ``None`` where not fitted.

    Attributes:
        rows: models of the calibration table that were fitted to.
        band: around a prediction: the worst error of a row that was left out of a fit to the others, where more than
            the constants were measured; a model's usual one otherwise.
        share: part of the peak that convolutions reach.
        tops: effective peak, where none is published.
        inference_ms: of one inference, whatever is in it (driver, interrupt).
        operator_ms: of one operator, whatever it does.
        link: bytes per second over the link.
        static_w, unit_mj: watts while it runs, and millijoules per unit of relative energy, of the whole board.
    """

    rows: tuple[str, ...]
    band: Band
    share: float | None = None
    tops: float | None = None
    inference_ms: float | None = None
    operator_ms: float | None = None
    link: float | None = None
    static_w: float | None = None
    unit_mj: float | None = None

    @property
    def times(self) -> Mapping[str, float]:
        """The constants that times were fitted with, by name."""
        values = {name: getattr(self, name) for name in ("share", "tops", "inference_ms", "operator_ms", "link")}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def constants(self) -> Mapping[str, float]:
        """All that were fitted, by name."""
        values = {"static_w": self.static_w, "unit_mj": self.unit_mj}
        return {**self.times, **{name: value for name, value in values.items() if value is not None}}


EDGE_TPU = ("MobileNet v1 1.0", "SqueezeNet", "Inception v1", "Inception v4", "VGG16")
ROCKCHIP = ("resnet50-v2-7", "yolov5s_relu", "yolov8n")
USUAL = Band(0.8, 1.25)
"""Good published models against silicon: 6 to 20 %."""

FITS: Mapping[str, Fit] = MappingProxyType(
    {
        "coral-edgetpu-usb3": Fit(EDGE_TPU, USUAL, share=0.5146, inference_ms=0.978, link=4.83e8),
        "coral-edgetpu-pcie": Fit(EDGE_TPU, USUAL, share=0.313, inference_ms=0.3845, link=4.276e8),
        # The same chip and driver as on USB 3; its link is the slope through the one network measured on USB 2.
        "coral-edgetpu-usb2": Fit(("Inception v4",), USUAL, share=0.5146, inference_ms=0.978),
        "rk3588": Fit(ROCKCHIP, USUAL, share=0.7069, operator_ms=0.0423),
        # Energy: wall power of the board in its MaxQ mode, GPU alone and with both DLA, ResNet-50.
        "jetson-xavier-nx-gpu": Fit(("ResNet-50",), USUAL, share=0.3162, static_w=8.54, unit_mj=8.35e-10),
        "snapdragon-855": Fit(("MobileNet v1 1.0",), USUAL, tops=0.4062),
        # A throughput of many at once: one alone takes far longer (Server: 8.99 ms on average, against 0.15 ms here).
        "sapeon-x220": Fit(("ResNet-50",), Band(0.8, 61.0), tops=75.86),
    }
)
"""By target; rows are models of the calibration table."""


def fit_of(target: str) -> Fit | None:
    """The constants of ``target``; ``None`` when nothing was fitted to it."""
    return FITS.get(target)
