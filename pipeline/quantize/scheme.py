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

FIXED_WIDE: Mapping[str, tuple[float, int]] = dict.fromkeys(FIXED_OUTPUT, (1 / 32768, 0))
"""The same with int16 activations (TFLite)."""

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
        types: the activation types that the target computes with, the narrowest first.
        activations: the one that activations have unless told otherwise.
        contract: whose rounding weight scales are aligned to (``pipeline.quantize.aligned``); ``None`` aligns none.
    """

    per_channel: Mapping[str, bool] = field(default_factory=dict)
    symmetric: bool = False
    shared_scales: frozenset[str] = frozenset()
    power_of_two: bool = False
    types: tuple[str, ...] = ("int8",)
    activations: str = "int8"
    contract: Contract | None = None

    def fixed(self, dtype: str) -> Mapping[str, tuple[float, int]]:
        """Scale and zero point of the operators whose output always takes the same range."""
        if dtype == "int16":
            return FIXED_WIDE
        return FIXED_SYMMETRIC if self.symmetric else FIXED_OUTPUT

    def activation(self, low: float, high: float, dtype: str = "int8") -> tuple[float, int]:
        """Scale (a float32 value) and zero point of ``dtype`` that covers ``low`` to ``high``; 0 is exact.

        Asymmetric as TFLite has it: ``real = scale * (q - zero_point)`` with q in [-128, 127]. Symmetric: zero point
        0 and q in [-127, 127]; int16 always, with q in [-32767, 32767]. A power of two is the next one that still
        covers the range.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            low, high = (-DEAD_RANGE / 2, DEAD_RANGE / 2) if self.symmetric else (0.0, DEAD_RANGE)
        if dtype == "int16":
            return self.scale(max(-low, high, 32767 * SMALLEST_STEP) / 32767), 0
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
        TargetError: its contract does not compute with the activations that it quantizes models to.
    """
    wanted, contract = target.quantization, find_contract(target.contract)
    if wanted.activations not in contract.types:
        computes = f"its contract {contract.name} computes with {' and '.join(contract.types)}"
        what = f"{computes}; models are quantized to {wanted.activations}"
        raise TargetError(what, where=target.name, fix=f"name a contract with {wanted.activations} activations")
    types = tuple(kind for kind in contract.types if kind in ("int8", "int16"))
    symmetric = wanted.symmetric or contract.symmetric
    shifts = power_of_two or contract.multiplier_bits == 1
    shared = frozenset(wanted.shared_scales)
    aligned = None if shifts else contract
    return Scheme(target.per_channel(), symmetric, shared, shifts, types, wanted.activations, aligned)
