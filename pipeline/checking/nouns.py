"""The nouns of a check: where each operator runs, what that and each fallback costs, and how good the cut is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.cost.model import Totals
from pipeline.rewrites.nouns import Kind


@dataclass(frozen=True)
class NodeCheck:
    """Where one operator runs and what it costs there.

    Attributes:
        name: the operator's name.
        op: its ONNX type.
        device: ``npu`` or ``cpu``.
        reasons: why it is not on the NPU, each a sentence with its fact; empty on the NPU.
        macs: multiply-accumulates of one inference.
        ms: milliseconds on its device; ``None`` when a figure is missing, 0 where another operator includes it.
        mj: millijoules on its device, ``None`` when its power is not known.
        bytes: moved by it, over all memories.
        bound: what limits it, see ``LayerCost.bound``.
    """

    name: str
    op: str
    device: str
    reasons: tuple[str, ...]
    macs: int
    ms: float | None
    mj: float | None
    bytes: int
    bound: str


@dataclass(frozen=True)
class Price:
    """What one fallback costs: the model as it is against the same model on a target that takes this operator.

    ``delta_ms`` is the sum of the parts.

    Attributes:
        node: the operator's name.
        op: its ONNX type.
        delta_ms: milliseconds that would be saved, ``None`` when a time is not known.
        delta_mb: megabytes (10^6 bytes) moved less, over all memories and the link; ``None`` without a price.
        delta_mj: millijoules saved, ``None`` when a power is not known.
        parts: milliseconds by cause: ``cpu``, ``npu`` (negative: what the NPU would spend), ``crossings``,
            ``launches``; quantizing and dequantizing around a kernel that computes in float is part of ``cpu``.
    """

    node: str
    op: str
    delta_ms: float | None
    delta_mb: float | None
    delta_mj: float | None
    parts: Mapping[str, float]


@dataclass(frozen=True)
class OpPrice:
    """What it costs that the NPU does not take the operators of one type.

    Attributes:
        op: ONNX type.
        nodes: names of the operators.
        delta_ms: milliseconds that would be saved if it took all of them, ``None`` when a time is not known.
        delta_mj: millijoules likewise.
    """

    op: str
    nodes: tuple[str, ...]
    delta_ms: float | None
    delta_mj: float | None


@dataclass(frozen=True)
class Cut:
    """How the model is cut, and how good that is.

    Attributes:
        optimal_ms: of the cheapest placement; ``None`` when a time is not known.
        greedy_ms: of everything on the NPU that it takes, as toolchains do.
        cpu_ms: of everything on the host.
        lower_bound_ms: no allowed placement takes less.
        gap_percent: by how much that may be above the optimum; 0 when it is proven, ``None`` when unknown.
        partitions: on both devices.
        npu_partitions: on the NPU.
        crossings: tensors that go from one device to the other, inputs and outputs of the model included.
        by_cost: whether the cheapest placement was looked for; without times the NPU gets all that it takes.
    """

    optimal_ms: float | None
    greedy_ms: float | None
    cpu_ms: float | None
    lower_bound_ms: float | None
    gap_percent: float | None
    partitions: int
    npu_partitions: int
    crossings: int
    by_cost: bool


@dataclass(frozen=True)
class Gain:
    """What a rewrite rule, applied wherever it fits, would gain.

    Attributes:
        rule: its name.
        kind: exact, close or needs-fine-tuning.
        sentence: what it does.
        nodes: names of the operators that it replaces.
        delta_ms: milliseconds saved; negative when it costs time; ``None`` when a time is not known.
        delta_macs_on_npu: multiply-accumulates that move onto the NPU; negative when it takes some off.
        delta_coverage: of the fraction of the MACs that is on the NPU, the change.
        delta_nodes_on_cpu: fallbacks fewer; negative when there are more.
        delta_mj: millijoules saved, ``None`` when a power is not known.
    """

    rule: str
    kind: Kind
    sentence: str
    nodes: tuple[str, ...]
    delta_ms: float | None
    delta_macs_on_npu: int
    delta_coverage: float
    delta_nodes_on_cpu: int
    delta_mj: float | None


@dataclass(frozen=True)
class Check:
    """A model on a target.

    Attributes:
        model: what it is called: its file.
        target: the target's name.
        host: the name of the host's profile, ``None`` when none is known.
        nodes: every operator, in the model's order.
        cut: how it is partitioned.
        partitions: in execution order, each with its device and the names of its operators.
        refused: names of the operators that the NPU does not take, wherever the others are.
        totals: what it costs.
        fallbacks: the price of each, dearest first.
        fallback_ops: the price of all fallbacks of one type together, dearest first.
        rewrites: what would help, best first; ``None`` when not asked for.
        notes: what else a reader must know, each a sentence.
    """

    model: str
    target: str
    host: str | None
    nodes: tuple[NodeCheck, ...]
    cut: Cut
    partitions: tuple[tuple[str, tuple[str, ...]], ...]
    refused: frozenset[str]
    totals: Totals
    fallbacks: tuple[Price, ...] = ()
    fallback_ops: tuple[OpPrice, ...] = ()
    rewrites: tuple[Gain, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(node.macs for node in self.nodes)

    @property
    def macs_on_npu(self) -> int:
        """Those of them that run on the NPU."""
        return sum(node.macs for node in self.nodes if node.device == "npu")

    @property
    def macs_taken(self) -> int:
        """Those that the NPU could take, were nothing placed on the CPU by choice or policy."""
        return sum(node.macs for node in self.nodes if node.name not in self.refused)

    @property
    def coverage(self) -> float:
        """The fraction of the MACs on the NPU; of the operators where there are no MACs."""
        if self.macs:
            return self.macs_on_npu / self.macs
        return self.nodes_on_npu / len(self.nodes) if self.nodes else 1.0

    @property
    def nodes_on_npu(self) -> int:
        """Operators on the NPU."""
        return sum(node.device == "npu" for node in self.nodes)
