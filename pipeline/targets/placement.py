"""Placement: on which device each operator runs, and every reason why not on the NPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.graph.fusion import units
from pipeline.graph.macs import macs
from pipeline.graph.view import Graph, Node
from pipeline.targets.profile import Target
from pipeline.targets.rules import violations

NPU, CPU = "npu", "cpu"


@dataclass(frozen=True)
class Placed:
    """Where an operator runs.

    Attributes:
        node: the operator's name.
        op: its ONNX type.
        device: ``npu`` or ``cpu``.
        reasons: why it is not on the NPU, each a sentence with its fact; empty on the NPU.
        macs: multiply-accumulates of one inference.
        phase: position in the sequence of partitions: operators with one phase run together, lower phases first.
    """

    node: str
    op: str
    device: str
    reasons: tuple[str, ...]
    macs: int
    phase: int


def place(
    graph: Graph, target: Target, no_kernel: Callable[[Node], str | None], max_npu_partitions: int | None = None
) -> tuple[Placed, ...]:
    """The placement of every operator of ``graph``, in the graph's order.

    An operator goes to the NPU when it breaks no rule of ``target``, the simulated NPU has a kernel for it, the
    operators fused with it go too, and the target's partition policy allows it: of a limited number of NPU
    partitions the first ones in execution order are kept (the Edge TPU's compiler keeps one).

    Args:
        graph: the quantized model.
        target: the NPU.
        no_kernel: why the simulated NPU cannot run a node, or ``None``.
        max_npu_partitions: overrides the target's own policy.
    """
    reasons: dict[str, tuple[str, ...]] = {}
    for unit in units(graph):
        own = {n.name: _reasons(n, target, no_kernel) for n in unit}
        blocking = [n for n in unit if own[n.name]]
        for node in unit:
            others = [f"It is fused with {b.name}, which is not on the NPU" for b in blocking if b is not node]
            reasons[node.name] = own[node.name] or tuple(others)
    limit = target.partition.max_npu_partitions if max_npu_partitions is None else max_npu_partitions
    phases = _phases(graph, reasons)
    if limit is not None:
        kept = sorted({p for n, p in phases.items() if not reasons[n]})[:limit]
        for node in graph.nodes:
            if not reasons[node.name] and phases[node.name] not in kept:
                reasons[node.name] = (_policy(graph, node, reasons, limit),)
        phases = _phases(graph, reasons)
    return tuple(
        Placed(n.name, n.op, CPU if reasons[n.name] else NPU, reasons[n.name], macs(n), phases[n.name])
        for n in graph.nodes
    )


def _reasons(node: Node, target: Target, no_kernel: Callable[[Node], str | None]) -> tuple[str, ...]:
    broken = tuple(str(v) for v in violations(node, target))
    missing = None if broken else no_kernel(node)
    return broken if missing is None else (f"The simulation must have a kernel; {missing}",)


def _phases(graph: Graph, reasons: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The smallest phase per node that never runs before its inputs: even phases are the NPU's, odd ones the CPU's.

    An operator of the same device as its inputs joins their phase, otherwise it opens the next one; so operators
    with equal phase never wait for a later one, and the partitions, one per phase, form no cycle.
    """
    phases: dict[str, int] = {}
    for unit in units(graph):
        members = {n.name for n in unit}
        before = [p for n in unit for p in graph.predecessors(n) if p.name not in members]
        phase = max((phases[p.name] for p in before), default=0)
        odd = 1 if reasons[unit[0].name] else 0
        phase += (phase + odd) % 2
        phases.update(dict.fromkeys(members, phase))
    return phases


def _policy(graph: Graph, node: Node, reasons: Mapping[str, tuple[str, ...]], limit: int) -> str:
    before = _first_fallback(graph, node, reasons)
    kind = "one NPU partition" if limit == 1 else f"{limit} NPU partitions"
    return f"The target takes {kind}; it comes after {before}, which is a fallback"


def _first_fallback(graph: Graph, node: Node, reasons: Mapping[str, tuple[str, ...]]) -> str:
    """The earliest fallback that ``node`` depends on."""
    ancestors: set[str] = set()
    waiting = [node]
    while waiting:
        for p in graph.predecessors(waiting.pop()):
            if p.name not in ancestors:
                ancestors.add(p.name)
                waiting.append(p)
    return next((n.name for n in graph.nodes if n.name in ancestors and reasons[n.name]), "an earlier partition")
