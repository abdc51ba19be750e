"""What the cost model says of an NPU partition, in the form that its program carries."""

from collections.abc import Collection

from pipeline.cost.common import RATES, rated_energy
from pipeline.cost.model import CostModel
from pipeline.cost.nouns import Device, LayerCost, Provenance, Work
from pipeline.cost.work import works
from pipeline.graph.view import Graph
from runtime.npu.schedule import Estimates, LayerEstimate


def estimates(
    model: CostModel, graph: Graph, nodes: Collection[str], inputs: Collection[str], outputs: Collection[str]
) -> Estimates:
    """What a partition costs.

    Args:
        model: of the target.
        graph: the whole graph.
        nodes: names of the partition's operators.
        inputs: the tensors that it takes, by their names on the wire.
        outputs: the tensors that it gives.

    Raises:
        ModelError: a shape is not static.
    """
    own = [work for work in works(graph) if work.name in nodes]
    prices = model.price_works(own)
    crossings = {name: prices.crossings[name].ms for name in (*inputs, *outputs)}
    launch = prices.launch_ms
    if prices.inference_ms:
        launch = (launch or 0.0) + prices.inference_ms
    provenance = Provenance.A_PRIORI if model.fit is None else Provenance.HELD_OUT
    crossed = {*inputs, *outputs}
    total = model.total(prices, {work.name for work in own}, 1, crossed)
    layers = tuple(_layer(work, prices.npu[work.name], model.device) for work in own)
    return Estimates(str(provenance), layers, crossings, launch, total.energy_mj)


def _layer(work: Work, cost: LayerCost, device: Device) -> LayerEstimate:
    return LayerEstimate(
        name=work.name,
        macs=work.macs,
        cycles=cost.cycles,
        ms=cost.ms,
        compute_ms=_compute_ms(work, cost, device),
        memory_ms=_memory_ms(cost, device),
        bytes={memory: int(count) for memory, count in cost.bytes.items()},
        bound=cost.bound,
        energy_mj=rated_energy(cost.ms, device) if cost.ms == 0 else cost.energy_mj,
        missing=cost.missing,
    )


def _compute_ms(work: Work, cost: LayerCost, device: Device) -> float:
    """How long the engine is busy: all the time when that is the bound, else at least what its MACs take at peak."""
    if cost.ms is None or cost.bound == "compute":
        return cost.ms or 0.0
    macs, clock = device.get("macs_per_cycle"), device.get("clock_hz")
    at_peak = 0.0 if macs is None or clock is None else 1e3 * work.macs / (macs * clock)
    return min(cost.ms, at_peak)


def _memory_ms(cost: LayerCost, device: Device) -> float:
    """How long the slowest memory is busy; at most the layer's time."""
    rates = {memory: device.get(RATES[memory]) for memory in cost.bytes}
    spent = [1e3 * count / rate for memory, count in cost.bytes.items() if (rate := rates[memory]) is not None]
    return min(cost.ms or 0.0, max(spent, default=0.0))
