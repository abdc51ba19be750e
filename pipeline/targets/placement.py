"""Placement: on which device each operator runs, and every reason why not on the NPU."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from pipeline.graph.fusion import units
from pipeline.graph.macs import macs
from pipeline.graph.view import Graph, Node
from pipeline.targets.profile import Target
from pipeline.targets.rules import violations

NPU, CPU = "npu", "cpu"
FIRST_NPU_PHASE = 1


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


Judge = Callable[[Node], tuple[str, ...]]
"""Why a node cannot run on the NPU, each reason a sentence with its fact; empty when it can."""


def by_rules(target: Target) -> Judge:
    """The judge that asks every rule of ``target``: the chip, whatever the simulation has kernels for."""

    def judge(node: Node) -> tuple[str, ...]:
        return tuple(str(v) for v in violations(node, target))

    return judge


def by_target(target: Target, no_kernel: Callable[[Node], str | None]) -> Judge:
    """The judge that asks every rule of ``target``, and then whether the simulated NPU has a kernel."""
    rules, kernels = by_rules(target), by_kernel(no_kernel)
    return lambda node: rules(node) or kernels(node)


def by_kernel(no_kernel: Callable[[Node], str | None]) -> Judge:
    """The judge that only asks whether the simulated NPU has a kernel, whatever the target."""

    def judge(node: Node) -> tuple[str, ...]:
        missing = no_kernel(node)
        return () if missing is None else (f"The simulation must have a kernel; {missing}",)

    return judge


def place(graph: Graph, judge: Judge, max_npu_partitions: int | None) -> tuple[Placed, ...]:
    """The placement of every operator of ``graph``, in the graph's order.

    An operator goes to the NPU when ``judge`` has nothing against it nor against the operators fused with it, its
    tensors are quantized if any of the graph's are, and the partition policy allows it: of a limited number of NPU
    partitions the first ones in execution order are kept (the Edge TPU's compiler keeps one). Fallbacks that no NPU
    operator comes before run ahead of the first NPU partition and cost none.

    Args:
        graph: the quantized model.
        judge: why a node cannot run on the NPU.
        max_npu_partitions: how many the target takes, ``None`` for any number.
    """
    reasons: dict[str, tuple[str, ...]] = {}
    quantized = is_quantized(graph)
    for unit in units(graph):
        floats = float_reasons(unit) if quantized else ()
        own = {n.name: judge(n) or floats for n in unit}
        blocking = [n for n in unit if own[n.name]]
        for node in unit:
            others = [f"It is fused with {b.name}, which is not on the NPU" for b in blocking if b is not node]
            reasons[node.name] = own[node.name] or tuple(others)
    phases = _phases(graph, reasons)
    if max_npu_partitions is not None:
        last = FIRST_NPU_PHASE + 2 * (max_npu_partitions - 1)
        causes = _causes(graph, reasons, {name for name, phase in phases.items() if phase > last})
        for node in graph.nodes:
            if not reasons[node.name] and phases[node.name] > last:
                reasons[node.name] = (_policy(causes[node.name], max_npu_partitions),)
        phases = _phases(graph, reasons)
    return tuple(
        Placed(n.name, n.op, CPU if reasons[n.name] else NPU, reasons[n.name], macs(n), phases[n.name])
        for n in graph.nodes
    )


def _phases(graph: Graph, reasons: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The smallest phase per node that never runs before its inputs: even phases are the CPU's, odd ones the NPU's.

    An operator of the same device as its inputs joins their phase, otherwise it opens the next one; so operators
    with equal phase never wait for a later one, and the partitions, one per phase, form no cycle.
    """
    phases: dict[str, int] = {}
    for unit in units(graph):
        members = {n.name for n in unit}
        before = [p for n in unit for p in graph.predecessors(n) if p.name not in members]
        phase = max((phases[p.name] for p in before), default=0)
        odd = 0 if reasons[unit[0].name] else FIRST_NPU_PHASE
        phase += (phase + odd) % 2
        phases.update(dict.fromkeys(members, phase))
    return phases


def is_quantized(graph: Graph) -> bool:
    """Whether any tensor that is computed at run time is quantized."""
    return any(t.quantization is not None for n in graph.nodes for t in (*n.activations, *n.outputs))


def float_reasons(unit: tuple[Node, ...]) -> tuple[str, ...]:
    """The reason against a unit that reads or writes real numbers, in a graph that is quantized elsewhere."""
    inside = {n.outputs[0].name for n in unit[:-1]}
    own = [t for n in unit for t in (*n.activations, *n.outputs) if t.name not in inside]
    return tuple(f"The NPU computes with integers; {t.name} is not quantized" for t in own if t.quantization is None)[
        :1
    ]


def _policy(fallback: str, limit: int) -> str:
    """The reason against an operator that depends on ``fallback``, which runs after the last partition."""
    kind = "one NPU partition" if limit == 1 else f"{limit} NPU partitions"
    return f"The target takes {kind}; it comes after {fallback}, which is a fallback"


def _causes(graph: Graph, reasons: Mapping[str, tuple[str, ...]], late: Set[str]) -> dict[str, str]:
    """For each node that depends on a fallback among ``late``, the first such fallback in the graph's order."""
    positions = {n.name: i for i, n in enumerate(graph.nodes)}
    causes: dict[str, str] = {}
    for unit in units(graph):
        before = [p.name for n in unit for p in graph.predecessors(n)]
        found = [name for name in before if name in late and reasons[name]]
        found += [causes[name] for name in before if name in causes]
        if found:
            causes.update(dict.fromkeys((n.name for n in unit), min(found, key=positions.__getitem__)))
    return causes
