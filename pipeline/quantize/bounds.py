"""How far activations can go on the engine, whatever the image: intervals, from encoded ranges and weights.

A quantized tensor saturates at the ends of its encoding, so what reads it is bounded by interval arithmetic (Moore,
"Interval Analysis", 1966) from its weights and bias, but for their rounding. What calibration saw is no bound.

That is so of a quantization in which everything is an integer. An operator that a ladder has in real numbers reads and
gives what no encoding limits, so an interval is no bound behind it, while weights that were evened by it stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Graph, Node
from pipeline.quantize import ptq
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.ptq import Choosing
from pipeline.quantize.ranges import Range
from pipeline.quantize.scheme import Scheme

Values = NDArray[np.float64]

HULLS = frozenset({"AveragePool", "Flatten", "GlobalAveragePool", "Identity", "MaxPool", "Pad"})
"""What gives nothing beyond its input and 0; a Pad where it adds zeros."""


@dataclass(frozen=True)
class Interval:
    """What each channel stays within: float64 [C] both, 0 among them."""

    low: Values
    high: Values

    def within(self, low: float, high: float) -> "Interval":
        """As far as it lies between two limits, 0 among them."""
        return Interval(np.clip(self.low, low, high), np.clip(self.high, low, high))


def encoded(
    graph: Graph, histograms: Mapping[str, Histogram], scheme: Scheme, by_tensor: Mapping[str, str | Range]
) -> Mapping[str, Range]:
    """The widest range that a quantized activation of ``graph`` is given by any choice, by name.

    Every choice lies within the extremes that were seen, but a range of ``by_tensor``; where int16 may be asked for
    later, that is symmetric.

    Raises:
        ModelError: a weight or a bias holds values that are not finite.
    """
    wide = {name: choice for name, choice in by_tensor.items() if not isinstance(choice, str)}
    found = ptq.quantize(graph, histograms, scheme, Choosing("minmax", by_tensor=wide)).activations
    ranges = {}
    for name, each in found.items():
        least, most = (-128, 127) if each.dtype == "int8" else (-32767, 32767)
        low, high = (least - each.zero_point) * each.scale, (most - each.zero_point) * each.scale
        if "int16" in scheme.types:
            low, high = min(low, -high), max(high, -low)
        producer = graph.producer(name)
        above = producer is not None and producer.standard and producer.op in ("Relu", "Sigmoid", "Softmax")
        ranges[name] = 0.0 if above else min(low, 0.0), max(high, 0.0)
    return ranges


def carried(carriers: Sequence[Node], made: Interval) -> Interval | None:
    """What ``carriers``, operators without weights in a row, make of ``made``; ``None`` when they may go beyond it."""
    for node in carriers:
        if node.op in ("Relu", "Clip"):
            low, high = clip_range(node)
            made = made.within(-np.inf if low is None else min(low, 0.0), np.inf if high is None else max(high, 0.0))
        elif node.op not in HULLS:
            return None
    return made
