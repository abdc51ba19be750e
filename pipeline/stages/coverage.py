"""Say which operators the target NPU takes, and of each fallback every reason."""

from pipeline.compile.support import kernels
from pipeline.graph.model import load
from pipeline.graph.view import view
from pipeline.stages.common import COVERAGE, MODEL, save_coverage
from pipeline.targets import library
from pipeline.targets.placement import NPU, by_target, place
from pipeline.workspace import Context, Result


def run(context: Context) -> Result:
    """Place every operator.

    Writes ``coverage.json``.

    Returns:
        ``macs`` of one inference; ``macs_on_npu``, the fraction of them on the NPU (1 when there are none);
        ``nodes``, ``nodes_on_npu``. The gate ``coverage.min_macs_on_npu`` is missed when the fraction is below it.

    Raises:
        ModelError: the exported file cannot be read, or a shape is not static.
        TargetError: the target's profile is wrong.
    """
    config = context.config
    target = library.load(context.profile)
    graph = view(load(context.inputs["export"] / MODEL))
    limit = config.partition.max_npu_partitions or target.partition.max_npu_partitions
    judge = by_target(target, kernels(target.contract))
    placed = place(graph, judge, limit)
    save_coverage(context.out / COVERAGE, target.name, placed)
    macs = sum(p.macs for p in placed)
    on_npu = sum(p.macs for p in placed if p.device == NPU)
    fraction = on_npu / macs if macs else 1.0
    floor = config.coverage.min_macs_on_npu
    gates: tuple[str, ...] = ()
    if fraction < floor:
        named = {node.name: node for node in graph.nodes}
        first = next((p for p in placed if p.reasons and judge(named[p.node])), None)
        because = "" if first is None else f"; first fallback: {first.node} ({first.op}): {first.reasons[0]}"
        taken = f"{target.name} takes {fraction:.2%} of the MACs ({on_npu:,} of {macs:,})"
        gates = (f"coverage.min_macs_on_npu is {floor:.2%}, {taken}{because}",)
    counts = {"nodes": float(len(placed)), "nodes_on_npu": float(sum(p.device == NPU for p in placed))}
    return Result({"macs": float(macs), "macs_on_npu": fraction, **counts}, gates)
