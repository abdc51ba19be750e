"""This machine against its own profile: a network in ONNX Runtime, measured and predicted."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.cost import hosts
from pipeline.cost.calibrate import measure_host, seconds
from pipeline.cost.nouns import Work
from pipeline.cost.probes import quantized
from pipeline.cost.validation.network import Network
from pipeline.cost.work import works
from pipeline.graph.view import view


@dataclass(frozen=True)
class Timed:
    """A network on this machine.

    Attributes:
        threads: of ONNX Runtime.
        predicted_ms: of its int8 form, under the profile measured just before.
        int8_ms, float_ms: measured.
    """

    threads: int
    predicted_ms: float
    int8_ms: float
    float_ms: float

    @property
    def error(self) -> float:
        """Relative, of what is predicted."""
        return self.predicted_ms / self.int8_ms - 1


def time_network(make: Callable[[], Network], threads: int = 1) -> Timed:
    """``make``'s network on this machine, whose rates are measured first. Takes some seconds."""
    profile = measure_host(threads=threads)
    model = make().model()
    items: tuple[Work, ...] = works(view(model))
    predicted = sum(hosts.cost(work, profile).ms or 0.0 for work in items)
    return Timed(threads, predicted, 1e3 * seconds(quantized(model), threads), 1e3 * seconds(model, threads))
