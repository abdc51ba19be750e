"""The nouns of the cost model: the work of one operator, the device that does it, and what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """How an operator keeps a device busy."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    FC = "fc"
    POOL = "pool"
    ELEMENTWISE = "elementwise"
    LUT = "lut"
    COPY = "copy"
    VIEW = "view"
    OTHER = "other"


WEIGHTED = (Kind.CONV, Kind.DEPTHWISE, Kind.FC)
"""Those that multiply by constants, or by a second input."""


class Activation(StrEnum):
    """What happens to an output on its way to memory."""

    NONE = "none"
    CLAMP = "clamp"


class Provenance(StrEnum):
    """Where an estimate comes from: published figures alone, constants fitted to it, or constants fitted to others."""

    A_PRIORI = "a priori"
    FITTED = "fitted"
    HELD_OUT = "held out"


@dataclass(frozen=True)
class Work:
    """What one operator, with the clamp fused into it, asks of a device.

    Attributes:
        name: the node's name.
        op: its ONNX operator type.
        kind: how it keeps a device busy.
        height, width, channels: of the output; rows of a matrix product count as width.
        in_height, in_width, in_channels: of the first input; all channels, also of a grouped convolution.
        kernel, stride, dilation: vertical and horizontal.
        groups: of a convolution.
        element_bytes: of one element of a feature map, 1 for int8.
        in_bytes: of each run-time input.
        out_bytes: of the output.
        weight_bytes: of the constants that the device reads, bias included.
        macs: multiply-accumulates of the mathematics.
        activation: the clamp fused into it.
        passes: how often the output's elements are walked over; above 1 for Softmax and normalizations.
        density: encoded size of the weights over their raw size, where a device compresses them.
        inputs, outputs: names of the tensors that it reads and writes at run time.
    """

    name: str
    op: str
    kind: Kind
    height: int
    width: int
    channels: int
    in_height: int
    in_width: int
    in_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    element_bytes: int = 1
    in_bytes: tuple[int, ...] = ()
    out_bytes: int = 0
    weight_bytes: int = 0
    macs: int = 0
    activation: Activation = Activation.NONE
    passes: int = 1
    density: float = 1.0
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def taps(self) -> int:
        """Elements of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def elements(self) -> int:
        """Elements of the output."""
        return self.height * self.width * self.channels

    @property
    def feature_bytes(self) -> int:
        """Bytes of inputs and output, once each."""
        return sum(self.in_bytes) + self.out_bytes


@dataclass(frozen=True)
class Device:
    """A chip as the cost model sees it.

    Attributes:
        name: the target's name.
        model: ``systolic``, ``ethos-u``, ``nvdla``, ``throughput`` or ``unknown``.
        figures: the numbers of its profile that are known, by name; see ``pipeline.targets.profile``.
    """

    name: str
    model: str
    figures: Mapping[str, float]

    def get(self, name: str) -> float | None:
        """A figure, ``None`` when it is not public."""
        return self.figures.get(name)

    def absent(self, *names: str) -> tuple[str, ...]:
        """Those of ``names`` that are not public."""
        return tuple(n for n in names if n not in self.figures)


@dataclass(frozen=True)
class LayerCost:
    """What one operator costs on one device.

    Attributes:
        ms: milliseconds; ``None`` when a figure is missing that they cannot be said without.
        cycles: of the device's clock, likewise.
        bytes: moved, by memory (``sram``, ``dram``, ``memory``, ``link``).
        bound: what limits it: ``compute``, ``output``, ``weights``, the name of a memory, ``nothing`` or ``unknown``.
        relative_energy: in arbitrary units that are the same on all devices; only ratios mean something.
        energy_mj: millijoules where the device was fitted or its rated power is known, else ``None``.
        missing: figures that are not public and would have counted; the time is then a lower bound, or ``None``.
    """

    ms: float | None
    cycles: float | None
    bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    bound: str = "unknown"
    relative_energy: float | None = None
    energy_mj: float | None = None
    missing: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Over all memories."""
        return sum(self.bytes.values())


FREE = LayerCost(0.0, 0.0, {}, "nothing", 0.0, None)
"""An operator that only renames: no data moves."""
