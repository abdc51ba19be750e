"""Cut the model into partitions, each of which runs on one device, by what that is estimated to cost."""

from dataclasses import replace

from pipeline.checking import document, fallbacks
from pipeline.checking.check import Demands, describe, place
from pipeline.checking.gates import Gates, missed
from pipeline.checking.nouns import Check
from pipeline.compile import plan
from pipeline.compile.closure import require_kernels
from pipeline.compile.partitions import cut
from pipeline.compile.support import kernels
from pipeline.config import RunConfig
from pipeline.cost import hosts
from pipeline.graph.model import load
from pipeline.graph.view import view
from pipeline.stages.common import CHECK, MODEL
from pipeline.targets import library
from pipeline.targets.placement import Placed, by_target
from pipeline.workspace import Context, Result


def run(context: Context) -> Result:
    """Place every operator where ``partition.objective`` wants it, and cut the model there.

    Writes ``plan.json``, each partition as ``<index>.onnx``, and ``check.json``: the placement with its estimated cost
    and the price of each fallback, as ``pipeline check --json`` prints it.

    Returns:
        ``partitions``, ``npu_partitions``; ``crossings``: tensors that go from one device to the other, those of the
        model's ends included, and their ``crossing_bytes`` per inference; ``macs_on_npu``, the fraction that runs
        there; estimates, where they are known: ``ms``, ``low_ms``, ``high_ms``, ``mj``, ``optimal_ms``,
        ``greedy_ms``, ``cpu_ms``. The gates of ``partition``, and ``coverage.min_macs_on_npu`` for what runs on the
        NPU, are missed when they are above or below.

    Raises:
        ModelError: the exported file cannot be read, a demand is impossible, or ONNX Runtime has no kernel for a
            fallback.
        TargetError: the profile of the target or its host is wrong.
    """
    config = context.config
    target = library.load(context.profile)
    model = load(context.inputs["export"] / MODEL)
    host = None if context.host is None else hosts.load(context.host)
    demands = Demands(config.partition.place, config.partition.max_npu_partitions, config.partition.objective)
    found = place(view(model), target, host, by_target(target, kernels(target.contract)), demands)
    checked = describe(config.name, target, found)
    base = fallbacks.Base(found.graph, found.units, found.priced, found.solution)
    checked = replace(checked, fallbacks=fallbacks.prices(base), fallback_ops=fallbacks.prices_by_op(base))
    gates = missed(checked, _gates(config))
    partitions = cut(found.graph, _placed(checked))
    require_kernels(model, found.graph, partitions)
    plan.save(context.out, model, partitions)
    (context.out / CHECK).write_text(document.text(checked, gates))
    return Result(_metrics(checked), gates)


def _placed(checked: Check) -> tuple[Placed, ...]:
    """The placement as the cut takes it: a partition is a phase."""
    phases = {name: phase for phase, (_, names) in enumerate(checked.partitions) for name in names}
    return tuple(Placed(n.name, n.op, n.device, n.reasons, n.macs, phases[n.name]) for n in checked.nodes)


def _gates(config: RunConfig) -> Gates:
    partition = config.partition
    return Gates(
        config.coverage.min_macs_on_npu, partition.max_ms, partition.max_crossings, partition.max_partitions,
        partition.max_mb, partition.max_mj,
    )  # fmt: skip


def _metrics(checked: Check) -> dict[str, float]:
    total, placed = checked.totals, checked.cut
    known = {
        "ms": total.ms, "low_ms": total.low_ms, "high_ms": total.high_ms, "mj": total.energy_mj,
        "optimal_ms": placed.optimal_ms, "greedy_ms": placed.greedy_ms, "cpu_ms": placed.cpu_ms,
    }  # fmt: skip
    return {
        "partitions": float(placed.partitions),
        "npu_partitions": float(placed.npu_partitions),
        "crossings": float(placed.crossings),
        "crossing_bytes": float(total.crossing_bytes),
        "macs_on_npu": checked.coverage,
        **{name: value for name, value in known.items() if value is not None},
    }
