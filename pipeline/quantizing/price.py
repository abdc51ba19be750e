"""What a quantized model is estimated to cost where its target runs it."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from pipeline.checking.check import Demands, place
from pipeline.checking.pricing import saved, totals
from pipeline.compile.support import kernels
from pipeline.cost.hosts import HostProfile
from pipeline.graph.view import view
from pipeline.targets.placement import by_target
from pipeline.targets.profile import Target


@dataclass(frozen=True)
class Price:
    """One inference, estimated.

    Attributes:
        ms: milliseconds, crossings and launches included; ``None`` when a time is not known.
        mj: millijoules; ``None`` when a power is not known.
        crossings: tensors that go from one device to the other, inputs and outputs of the model included.
    """

    ms: float | None
    mj: float | None
    crossings: int

    def minus(self, other: "Price") -> "Price":
        """How much more than ``other`` it is."""
        return Price(saved(self.ms, other.ms), saved(self.mj, other.mj), self.crossings - other.crossings)


Pricer = Callable[[onnx.ModelProto], Price]


def pricer(target: Target, host: HostProfile | None, demands: Demands) -> Pricer:
    """What prices a quantized model on ``target`` with its ``host``, placed as ``demands`` want it.

    A layer with real weights runs on the host; its time there is that of int8 with conversions, a lower bound.
    """

    def price(model: onnx.ModelProto) -> Price:
        found = place(view(model), target, host, by_target(target, kernels(target.contract)), demands)
        total = totals(found.priced, found.solution)
        return Price(total.ms, total.energy_mj, len(found.solution.crossings))

    return price
