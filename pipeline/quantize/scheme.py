"""How a target wants its tensors quantized, as the quantizer reads it: zero points, shared scales, kinds of scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import TargetError
from pipeline.targets.profile import Target
from runtime.npu.contracts import Contract, find_contract

DEAD_RANGE = 1e-4
"""The range of what was never seen to be anything but 0 (MinimumRealRange of ONNX Runtime's QNN)."""

SMALLEST_STEP = 2.0**-62
"""No activation's scale is smaller, so that its product with a weight's scale as small stays a normal float32."""

FIXED_OUTPUT: Mapping[str, tuple[float, int]] = {
    "Sigmoid": (1 / 256, -128),
    "Softmax": (1 / 256, -128),
    "Tanh": (1 / 128, 0),
}
"""Operators whose output has a fixed scale and zero point (TFLite int8 contract)."""

FIXED_SYMMETRIC: Mapping[str, tuple[float, int]] = dict.fromkeys(FIXED_OUTPUT, (1 / 128, 0))
"""The same where zero points are 0: one bit less for what is never negative, and 1 becomes 127/128."""


@dataclass(frozen=True)
class Scheme:
    """What scales and zero points may be.

    Attributes:
        per_channel: for each operator with weights, whether it takes a weight scale per output channel.
        symmetric: whether activations have zero point 0.
        shared_scales: operators whose inputs share one scale.
        power_of_two: whether every scale is a power of two, so that a shift rescales.
        contract: whose rounding weight scales are aligned to (``pipeline.quantize.aligned``); ``None`` aligns none.
    """

    per_channel: Mapping[str, bool] = field(default_factory=dict)
    symmetric: bool = False
    shared_scales: frozenset[str] = frozenset()
    power_of_two: bool = False
    contract: Contract | None = None

    @property
    def fixed(self) -> Mapping[str, tuple[float, int]]:
        """Scale and zero point of the operators whose output always takes the same range."""
        return FIXED_SYMMETRIC if self.symmetric else FIXED_OUTPUT

    def activation(self, low: float, high: float) -> tuple[float, int]:
        """Scale (a float32 value) and zero point of int8 that covers ``low`` to ``high``; 0 is exact.

        Asymmetric as TFLite has it: ``real = scale * (q - zero_point)`` with q in [-128, 127]. Symmetric: zero point
        0 and q in [-127, 127]. A power of two is the next one that still covers the range.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = (-DEAD_RANGE / 2, DEAD_RANGE / 2) if self.symmetric else (0.0, DEAD_RANGE)
        if self.symmetric:
            return self.scale(max(-low, high, 127 * SMALLEST_STEP) / 127), 0
        scale = self.scale(max(high - low, 255 * SMALLEST_STEP) / 255)
        zero = int(np.clip(np.rint(-128 - low / scale), -128, 127))
        return scale, zero

    def scale(self, least: float) -> float:
        """The smallest scale of the scheme's kind that is not below ``least``, as float32 has it."""
        return float(np.float32(2.0 ** np.ceil(np.log2(least)) if self.power_of_two else least))


def of(target: Target, power_of_two: bool = False) -> Scheme:
    """The scheme that ``target`` and its contract take; ``power_of_two`` narrows it further.

    Raises:
        TargetError: its contract computes with other activations than int8.
    """
    wanted, contract = target.quantization, find_contract(target.contract)
    if contract.activations != "int8":
        what = f"its contract {contract.name} computes with {contract.activations}; models are quantized to int8"
        raise TargetError(what, where=target.name, fix="name a contract with int8 activations")
    symmetric = wanted.symmetric or contract.symmetric
    shifts = power_of_two or contract.multiplier_bits == 1
    return Scheme(
        target.per_channel(), symmetric, frozenset(wanted.shared_scales), shifts, None if shifts else contract
    )
