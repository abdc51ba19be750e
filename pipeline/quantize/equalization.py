"""Moving ranges between neighbouring layers, without changing what the network computes.

Between an operator that makes channels and those that read them, each channel may be divided by a factor and multiplied
again: cross-layer equalization (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019) evens the weights, SmoothQuant (Xiao et al., ICML 2023) moves outlier channels of activations
into weights. High biases are absorbed into what follows.

A clamp such as ReLU6 stays as it is. Channels that reach its limit keep their size. Any other is made larger only as
far as the limit cuts nothing of it on any image, seen or not: up to where its bound (``pipeline.quantize.bounds``)
comes to the limit. Made smaller, a channel whose bound is beyond the limit, and that would come to it on an image that
was not seen, goes beyond it there. Where no channel comes near the limit all are made smaller together, and it is as if
there were no clamp.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Graph, Node, Tensor, view
from pipeline.quantize import bounds, layers
from pipeline.quantize.bounds import Interval
from pipeline.quantize.calibrate import Calibration, Channels, channel_axis
from pipeline.quantize.constants import copied, store, users
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.layers import Layer
from pipeline.quantize.ranges import Range
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.weights import channel_bias

Aim = Literal["weights", "activations", "both"]
Values = NDArray[np.float64]

MAKERS = frozenset({"Conv", "Gemm", "LayerNormalization"})
READERS = frozenset({"Conv", "Gemm", "MatMul"})
CARRIERS = frozenset({
    "AveragePool", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Pad", "PRelu", "Relu", "Clip",
})  # fmt: skip
"""What commutes with a positive factor per channel; a Clip only as the module says."""

SPATIAL = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool"})
"""What joins values along every axis behind the second."""

SWEEPS = 12
SETTLED = 0.02
"""Logarithm of the factors below which another sweep is not worth it."""

LEAST_SHARE = 0.25
BEYOND = 16.0
"""Times what so large a share of the channels stays below from which on a channel leaves these too few levels.

EfficientNet-Lite0 and MobileNetV2 and V3, trained, have up to 8 times.
"""

LARGEST_FACTOR = 1e6
CLAMPED = 0.9
"""Share of a clamp's limit from which on a channel counts as one that reaches it: images not seen may go further."""

ROUNDING = 1e-6
"""Share of a clamp's limit by which a bound that was brought to it may be above it."""


@dataclass(frozen=True)
class Pair:
    """Channels that can be rescaled.

    Attributes:
        maker: makes them, from the left.
        readers: what reads them in the end.
        carriers: what lies between, in order.
        tensors: from the maker's output to what the readers take.
        ceiling: upper limit of a clamp on the way; ``None`` without one.
    """

    maker: Node
    readers: tuple[Node, ...]
    carriers: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    ceiling: float | None


def pairs(graph: Graph) -> tuple[Pair, ...]:
    """Every place of a float ``graph`` where channels can be rescaled, in its order."""
    counts = users(graph)
    found = (_pair(graph, node, counts) for node in graph.nodes if node.op in MAKERS and node.standard)
    return tuple(pair for pair in found if pair is not None)


def _pair(graph: Graph, maker: Node, counts: Mapping[str, int]) -> Pair | None:
    if not _own_weights(maker, counts) or len(maker.outputs) != 1:
        return None
    tensors, carriers, ceiling = [maker.outputs[0]], list[Node](), None
    while True:
        tensor = tensors[-1]
        readers = graph.consumers(tensor.name)
        if graph.is_output(tensor.name) or not readers:
            return None
        if all(n.op in READERS and _own_weights(n, counts) and n.required(0) is tensor for n in readers):
            pair = Pair(maker, readers, tuple(carriers), tuple(tensors), ceiling)
            return pair if _one_axis(pair) else None
        carrier = readers[0]
        limit = _limit(carrier)
        if len(readers) != 1 or limit is None or (limit != np.inf and ceiling is not None):
            return None
        ceiling = ceiling if limit == np.inf else limit
        carriers.append(carrier)
        tensors.append(carrier.outputs[0])


def _one_axis(pair: Pair) -> bool:
    """Whether the axis that is scaled is, all the way, the one whose channels statistics are kept of."""
    first, last = pair.tensors[0], pair.tensors[-1]
    made = 1 if pair.maker.op == "Conv" else len(first.shape or ()) - 1
    axes = [channel_axis(tensor) for tensor in pair.tensors]
    sizes = {(t.shape or ())[axis] for t, axis in zip(pair.tensors, axes, strict=True) if axis is not None}
    if None in axes or len(sizes) != 1 or axes[0] != made or any(axes[-1] != _read(n, last) for n in pair.readers):
        return False
    return all(n.op not in SPATIAL or len(n.required(0).shape or ()) > 3 for n in pair.carriers)


def _read(node: Node, source: Tensor) -> int:
    """The axis of ``source`` over which ``node`` sums."""
    if node.op == "Gemm" and node.int("transA", 0):
        return 0
    return 1 if node.op == "Conv" else len(source.shape or ()) - 1


def _limit(node: Node) -> float | None:
    """The upper limit that ``node`` puts on what it carries, infinite without one; ``None`` when it carries nothing."""
    if node.op == "Flatten":
        return np.inf if all(d == 1 for d in node.required(0).dims[2:]) and node.int("axis", 1) == 1 else None
    if not node.standard or node.op not in CARRIERS or len(node.activations) != 1:
        return None
    if node.op == "Clip":
        low, high = clip_range(node)
        high = np.inf if high is None else high
        return high if low in (0.0, None) and high > 0 else None
    padded = node.op == "Pad" and (node.text("mode", "constant") != "constant" or _fill(node) != 0)
    return None if padded else np.inf


def _fill(node: Node) -> float:
    value = node.input(2)
    return 0.0 if value is None else float(np.ravel(value.real)[0])


def _own_weights(node: Node, counts: Mapping[str, int]) -> bool:
    """Whether every weight of ``node`` is a float32 constant that it alone reads."""
    weights = [t for t in node.inputs[1:3] if t is not None]
    own = all(t.constant is not None and t.dtype == "float32" and counts[t.name] == 1 for t in weights)
    if not own or not weights or not node.standard:
        return False
    if node.op == "LayerNormalization":
        return len(weights[0].dims) == 1
    by_channel = len(weights) == 1 or channel_bias(node) is not None
    return by_channel and (node.op == "Conv" or len(weights[0].dims) == 2)


def equalize(
    model: onnx.ModelProto,
    calibration: Calibration,
    scheme: Scheme,
    aim: Aim,
    absorb: bool,
    by_tensor: Mapping[str, str | Range] = MappingProxyType({}),
) -> tuple[onnx.ModelProto, int]:
    """``model`` with its channels evened, which computes the same, and at how many places.

    Args:
        model: the float model.
        calibration: what each channel of its activations took, those inside fused operators included.
        scheme: what the target takes; an operator with a scale per channel needs no even weights.
        aim: even the weights on both sides, the activations between them against the weights behind, or all three.
        absorb: whether to move what a channel never falls below into the bias behind it.
        by_tensor: ranges that some activations are given whatever they took, by name.

    Raises:
        ModelError: a weight or a bias holds values that are not finite.
    """
    work = _Work(model, calibration, scheme, by_tensor)
    usable = [pair for pair in work.places if all(t.name in calibration.channels for t in pair.tensors)]
    work.sweep(usable, scheme, aim)
    if absorb:
        for pair in usable:
            work.absorb(pair)
    return work.finish(), len(usable)


def rescue(
    model: onnx.ModelProto,
    calibration: Calibration,
    scheme: Scheme,
    by_tensor: Mapping[str, str | Range] = MappingProxyType({}),
) -> tuple[onnx.ModelProto, Calibration, tuple[str, ...]]:
    """``model`` evened only where channels are so unlike that one scale would lose most of them.

    These are places where a channel's largest value is more than ``BEYOND`` times that of a quarter of the channels,
    which would share fewer than 16 of 256 levels. Nothing is calibrated again: dividing a channel divides its extremes.
    Some activations are given the ranges ``by_tensor``, by name, whatever they took.

    Returns:
        The model, which computes the same; its statistics, right in their extremes and means alone; and the tensors
        behind which channels were evened.
    """
    channels = calibration.channels
    found = [pair for pair in pairs(view(model)) if _unlike(channels.get(pair.tensors[-1].name))]
    if not found:
        return model, calibration, ()
    work = _Work(model, calibration, scheme, by_tensor)
    work.sweep(found, scheme, "both")
    seen = dict(calibration.histograms)
    for name in {t.name for pair in found for t in pair.tensors} & work.channels.keys() & seen.keys():
        seen[name] = Histogram()
        seen[name].extremes(float(work.channels[name].low.min()), float(work.channels[name].high.max()))
    moved = Calibration(seen, work.channels, calibration.images)
    return work.finish(), moved, tuple(pair.tensors[-1].name for pair in found)


def _unlike(seen: Channels | None) -> bool:
    if seen is None or not seen.largest.any():
        return False
    largest = seen.largest
    return bool(largest.max() > BEYOND * np.quantile(largest[largest > 0], LEAST_SHARE))


class _Work:
    """The weights and channel statistics of a model while they are changed."""

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration: Calibration,
        scheme: Scheme,
        by_tensor: Mapping[str, str | Range] = MappingProxyType({}),
    ) -> None:
        graph = view(model)
        self.model = copied(model)
        self.places = pairs(graph)
        self.layers: dict[str, tuple[Node, Layer]] = {}
        self.channels = {
            n: Channels(c.low.copy(), c.high.copy(), c.mean.copy()) for n, c in calibration.channels.items()
        }
        self.divided: dict[str, Values] = {}
        """By what the channels of each place's last tensor were divided in all, by its name."""
        clamped = any(pair.ceiling is not None for pair in self.places)
        self.ranges = bounds.encoded(graph, calibration.histograms, scheme, by_tensor) if clamped else {}
        self.reached: dict[str, Interval] = {}
        """What the channels of each place's last tensor stay within, as its weights are now, by name."""

    def sweep(self, evened: Sequence[Pair], scheme: Scheme, aim: Aim) -> None:
        """Even the places ``evened`` until they have settled; whatever lies before one is as it stays."""
        makers = {pair.maker.name for pair in evened}
        for _ in range(SWEEPS):
            most = 0.0
            for pair in self.places:
                if pair.maker.name in makers:
                    most = max(most, self.rescale(pair, self.factors(pair, scheme, aim)))
                self.note_bound(pair)
            if most < SETTLED:
                break

    def bound(self, maker: Node) -> Interval | None:
        """What the channels of ``maker``, as its weights are now, stay within on the engine; ``None`` if unknown."""
        name, layer = maker.required(0).name, self.layer(maker)
        given = self.reached.get(name)
        # The range of a tensor is of its channels as they were: it bounds none that has been divided.
        if maker.op == "LayerNormalization" or (given is None and (name in self.divided or name not in self.ranges)):
            return None
        if given is None:
            channels = len(layer.into_largest())
            given = Interval(*(np.full(channels, end) for end in self.ranges[name]))
        return layer.bound(given)

    def note_bound(self, pair: Pair) -> None:
        """Keep how far the last tensor of ``pair`` goes, for the bound of what reads it."""
        made = self.bound(pair.maker) if self.ranges else None
        found = None if made is None else bounds.carried(pair.carriers, made)
        if found is not None:
            self.reached[pair.tensors[-1].name] = found

    def layer(self, node: Node) -> Layer:
        if node.name not in self.layers:
            self.layers[node.name] = (node, layers.layer(node))
        return self.layers[node.name][1]

    def factors(self, pair: Pair, scheme: Scheme, aim: Aim) -> Values:
        """What every channel is to be divided by: the mean, in logarithms, of what each side would have it be."""
        wishes = []
        maker = self.layer(pair.maker)
        made = self.channels[pair.tensors[-1].name].largest
        if aim in ("weights", "both") and pair.maker.op != "LayerNormalization":
            wishes.append(maker.out_largest())
        if aim in ("activations", "both"):
            wishes.append(made)
        read = np.max([self.layer(n).into_largest() for n in pair.readers], axis=0)
        alone = all(self._depthwise(n) and scheme.per_channel.get(n.op, False) for n in pair.readers)
        if not (aim == "activations" and alone):
            wishes.append(1 / np.maximum(read, np.finfo(np.float64).tiny))
        live = (maker.out_largest() > 0) & (read > 0) & (made > 0)
        if not live.any():
            return np.ones(len(read))
        logs = np.mean([np.log(np.where(live, wish, 1.0)) for wish in wishes], axis=0)
        logs -= logs[live].mean()
        factor = np.where(live, np.exp(np.clip(logs, -np.log(LARGEST_FACTOR), np.log(LARGEST_FACTOR))), 1.0)
        return factor if pair.ceiling is None else self._under(pair, factor)

    def _under(self, pair: Pair, factor: Values) -> Values:
        """``factor`` changed so that the clamp cuts nothing that it would not cut before channels were divided."""
        ceiling, bound = pair.ceiling or np.inf, self.bound(pair.maker)
        most = np.full_like(factor, np.inf) if bound is None else bound.high
        # One undoes what made a channel smaller, the other brings what it can reach at most to the limit.
        floor = np.minimum(1 / self.divided.get(pair.tensors[-1].name, np.ones_like(factor)), most / ceiling)
        reaching = (self._first(pair).high >= ceiling * CLAMPED) & (most > ceiling * (1 + ROUNDING))
        if not reaching.any():
            return factor * float((floor / factor).max())
        factor = factor / np.exp(np.log(factor[reaching]).mean())
        return np.where(reaching, 1.0, np.maximum(factor, floor))

    def _first(self, pair: Pair) -> Channels:
        """What the first tensor of ``pair`` took that statistics were kept of; a clamp leaves its limit visible."""
        return next(self.channels[t.name] for t in pair.tensors if t.name in self.channels)

    def _depthwise(self, node: Node) -> bool:
        layer = self.layer(node)
        return node.op == "Conv" and layer.groups > 1 and layer.values.shape[1] == 1

    def rescale(self, pair: Pair, factor: Values) -> float:
        """Divide and multiply; returns by how much, as the largest logarithm beyond what all channels share."""
        self.layer(pair.maker).divide_out(factor)
        last = pair.tensors[-1].name
        self.divided[last] = self.divided.get(last, 1.0) * factor
        for reader in pair.readers:
            self.layer(reader).multiply_into(factor)
        for name in {t.name for t in pair.tensors} & self.channels.keys():
            seen = self.channels[name]
            self.channels[name] = Channels(seen.low / factor, seen.high / factor, seen.mean / factor)
        logs = np.log(factor)
        return float(np.abs(logs - logs.mean()).max())

    def absorb(self, pair: Pair) -> None:
        """Move what each channel never falls below from the bias before a Relu into the biases behind it.

        A reader that pads sees zeros at its border, and a clamp its limit, so neither takes part.
        """
        maker = self.layer(pair.maker)
        floor = np.maximum(self.channels[pair.tensors[0].name].low, 0.0)
        bare = pair.ceiling is None and all(n.op in ("Relu", "Clip") for n in pair.carriers)
        bare = bare and all(_unpadded(n) for n in pair.readers)
        if not bare or not floor.any() or maker.bias is None or pair.maker.op == "LayerNormalization":
            return
        if any(self.layer(n).bias is None for n in pair.readers):
            return
        maker.bias -= floor
        for reader in pair.readers:
            layer = self.layer(reader)
            layer.bias = layer.response(floor) + (0.0 if layer.bias is None else layer.bias)

    def finish(self) -> onnx.ModelProto:
        """The model with the changed weights, as float32."""
        for node, layer in self.layers.values():
            store(self.model, node, 1, layer.values)
            bias = node.input(2)
            if layer.bias is not None and bias is not None:
                store(self.model, node, 2, layer.bias.reshape((*[1] * (len(bias.dims) - 1), -1)))
        return self.model


def _unpadded(node: Node) -> bool:
    if node.op != "Conv":
        return True
    return not any(node.ints("pads", ())) and node.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")
