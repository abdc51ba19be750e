"""How far an estimate may be off: factors on the time, from published errors, never from hope.

Silicon against models without fitting: 6 to 20 % for good ones (cost-model table of published accuracy: TPU v1 paper
model 8 % on average, nn-Meter within 10 % for 99 % of models on phone CPUs). NVDLA's RTL took 2.34 times its sheet's
cycles (nvdla/hw#202). Vela moves from 19 % below to 38 % above silicon with the DRAM bandwidth that one assumes.
Chips in the calibration table reach between 11.6 % (Edge TPU, MobileNet v1) and 45 % (RK3588, ResNet-50) of their
peak.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LOWEST_SHARE = 0.116
"""Part of its peak that the least efficient chip of the calibration table reaches."""


@dataclass(frozen=True)
class Band:
    """Factors on an estimated time between which the truth is expected."""

    low: float
    high: float

    def around(self, ms: float) -> tuple[float, float]:
        """The limits for ``ms``."""
        return ms * self.low, ms * self.high


MODELS: Mapping[str, Band] = MappingProxyType(
    {
        "ethos-u": Band(0.8, 1.38),
        "nvdla": Band(0.43, 1.38),
        "systolic": Band(1.0, 1 / LOWEST_SHARE),
        "throughput": Band(1.0, 1 / LOWEST_SHARE),
    }
)
"""A priori, by ``cost_model``. ``nvdla``: down to the sheet itself, 1 / 2.34, which no RTL beats; up as far as Vela's
worst. The last two estimate at full peak, so the truth lies above."""

HOST_MEASURED = Band(0.8, 1.6)
"""A machine against its own measured rates: MobileNet v1, v2 and SqueezeNet took 1.01 to 1.03 times what is predicted,
ResNet-8, at 0.08 ms, 1.6 times (``pipeline.cost.validation.machine``, ONNX Runtime on a busy machine)."""
HOST_UNVERIFIED = Band(0.5, 2.0)
"""A host that nobody measured is scaled from another; a factor of two either way is a convention, not a source."""


def device_band(model: str) -> Band:
    """The a priori band of a ``cost_model``."""
    return MODELS.get(model, Band(1.0, 1 / LOWEST_SHARE))
