"""From a target's profile to the model that its figures fit."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pipeline.cost import edgetpu, ethos, nvdla, throughput
from pipeline.cost.nouns import Device, LayerCost, Work
from pipeline.targets.profile import Target

Cost = Callable[[Work, Device], LayerCost]

MODELS: Mapping[str, Cost] = MappingProxyType(
    {"systolic": edgetpu.cost, "ethos-u": ethos.cost, "nvdla": nvdla.cost, "throughput": throughput.cost}
)
"""The model of one operator for each value of ``cost_model``; ``unknown`` has none."""


def device(target: Target) -> Device:
    """``target`` as the cost model sees it: the figures that are public."""
    known = {name: figure.value for name, figure in target.figures.items() if figure.value is not None}
    return Device(target.name, target.cost_model, MappingProxyType(known))


def cost(work: Work, on: Device) -> LayerCost:
    """What ``work`` costs on the device by itself, in the middle of others."""
    model = MODELS.get(on.model)
    return LayerCost(None, None, missing=("cost_model",)) if model is None else model(work, on)


def costs(works: Sequence[Work], on: Device) -> tuple[LayerCost, ...]:
    """What each of ``works`` costs when all run on the device in this order: caches and prefetching seen as a whole."""
    if on.model == "ethos-u":
        return ethos.costs(works, on)
    if on.model == "systolic":
        return edgetpu.costs(works, on)
    if on.model == "nvdla":
        return nvdla.costs(works, on)
    return tuple(cost(work, on) for work in works)
