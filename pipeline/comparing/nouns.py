"""The nouns of a comparison: a row per device, and what it says."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a row is about: an NPU with its host, a GPU that takes everything, or a host alone."""

    NPU = "npu"
    GPU = "gpu"
    CPU = "cpu"


class Worth(StrEnum):
    """Whether the device beats its host: beyond both bands, within them, not at all; or it cannot be known."""

    YES = "yes"
    UNCERTAIN = "uncertain"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Accuracy:
    """How accurate the model is in one form, of 1.

    Attributes:
        ap50: average precision at an overlap of one half.
        ap: COCO's average precision.
    """

    ap50: float
    ap: float


@dataclass(frozen=True)
class Time:
    """How long one inference takes, estimated; milliseconds.

    Attributes:
        ms: in all.
        low_ms, high_ms: the band around it.
        npu_ms, cpu_ms, crossing_ms, launch_ms: its parts.
    """

    ms: float
    low_ms: float
    high_ms: float
    npu_ms: float
    cpu_ms: float
    crossing_ms: float
    launch_ms: float


@dataclass(frozen=True)
class Price:
    """What a device costs.

    Attributes:
        usd: dollars.
        source: where that is said.
        confidence: how far to believe it.
    """

    usd: float
    source: str
    confidence: str


@dataclass(frozen=True)
class Row:
    """A model on one device; ``None`` stands for what is not known.

    Attributes:
        name: of the target; of the host in its own row.
        title: what it is, for people.
        kind: NPU, GPU or CPU.
        host: name of the host's profile.
        hypothetical: whether no such chip exists.
        confidence: how good the profile is: ``high``, ``medium``, ``low``; of a host ``measured`` or ``unverified``.
        provenance: of the times: ``a priori``, ``fitted`` or ``held out``.
        coverage: the fraction of the MACs that is placed on the NPU.
        taken: the fraction that the NPU could take.
        partitions, npu_partitions, crossings: of the placement.
        time: of one inference; ``None`` when a figure is missing that it cannot be said without.
        cpu_ms: of everything on the host.
        worth: whether the device beats its host, ``None`` in a host's own row; not known without a time or a host,
            and where it seems not to but may have operators that are not public.
        energy_mj: of everything that works, as ``pipeline.cost.model.Totals``; ``None`` when one's power is not known.
        known_energy_mj: of those whose power is known.
        energy_missing: names of the powers that are not known though the placement uses them.
        price: of the device.
        accuracy: of int8 under the target's scheme and contract.
        missing: names of figures that are not public and would have counted: the time is a lower bound as to them.
        notes: what else a reader must know, each a sentence.
    """

    name: str
    title: str
    kind: Kind
    host: str | None
    hypothetical: bool
    confidence: str
    provenance: str
    coverage: float
    taken: float
    partitions: int
    npu_partitions: int
    crossings: int
    time: Time | None
    cpu_ms: float | None
    worth: Worth | None
    energy_mj: float | None
    known_energy_mj: float | None
    energy_missing: tuple[str, ...]
    price: Price | None
    accuracy: Accuracy | None
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ms(self) -> float | None:
        """Milliseconds of one inference."""
        return None if self.time is None else self.time.ms

    @property
    def fps(self) -> float | None:
        """Inferences per second, one after the other."""
        return None if self.time is None else 1e3 / self.time.ms

    @property
    def fps_per_watt(self) -> float | None:
        """Inferences per joule."""
        return 1e3 / self.energy_mj if self.energy_mj else None

    @property
    def fps_per_dollar(self) -> float | None:
        """Of the device's price; unknown where it has no part."""
        if self.fps is None or self.price is None or not self.npu_partitions:
            return None
        return self.fps / self.price.usd

    @property
    def speedup(self) -> float | None:
        """How many times faster than its host alone."""
        if self.time is None or self.cpu_ms is None or self.kind is Kind.CPU:
            return None
        return self.cpu_ms / self.time.ms


@dataclass(frozen=True)
class Comparison:
    """A model on many devices.

    Attributes:
        model: what it is called: its file, or the use case's configuration.
        macs: multiply-accumulates of one inference.
        operators: how many it has.
        rows: fastest first; those whose time is not known last.
        accuracy: of the float model; ``None`` for a model file, which has no data to measure with.
        notes: what its owner must know of the model, whatever the device.
    """

    model: str
    macs: int
    operators: int
    rows: tuple[Row, ...]
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()
