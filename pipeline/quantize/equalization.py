"""Moving ranges between neighbouring layers, without changing what the network computes.

Between an operator that makes channels and those that read them, each channel may be divided by a factor and multiplied
again: cross-layer equalization (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019) evens the weights, SmoothQuant (Xiao et al., ICML 2023) moves outlier channels of activations
into weights. A clamp such as ReLU6 stays as it is: channels that reach its limit keep their size, and no other is made
larger, however small calibration saw it: the clamp would cut it on images that were not seen. Made smaller, a channel
that comes to the limit on such an image goes beyond it. High biases are absorbed into what follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Graph, Node, Tensor, view
from pipeline.quantize.calibrate import Calibration, Channels
from pipeline.quantize.constants import copied, store, users
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.scheme import Scheme

Aim = Literal["weights", "activations", "both"]
Values = NDArray[np.float64]

MAKERS = frozenset({"Conv", "Gemm", "LayerNormalization"})
READERS = frozenset({"Conv", "Gemm", "MatMul"})
CARRIERS = frozenset({
    "AveragePool", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Pad", "PRelu", "Relu", "Clip",
})  # fmt: skip
"""What commutes with a positive factor per channel; a Clip only as the module says."""

SWEEPS = 12
SETTLED = 0.02
"""Logarithm of the factors below which another sweep is not worth it."""

BEYOND = 16.0
"""Times the median channel's largest value from which on a channel leaves the others too few levels."""

LARGEST_FACTOR = 1e6
CLAMPED = 0.9
"""Share of a clamp's limit from which on a channel counts as one that reaches it: images not seen may go further."""


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


@dataclass
class _Layer:
    """A weight in float64 while it is worked on: ``out`` and ``into`` are its axes of output and input channels."""

    values: Values
    bias: Values | None
    out: int
    into: int
    groups: int

    def out_largest(self) -> Values:
        """Largest magnitude per output channel: [O]."""
        return _largest(self.values, self.out)

    def into_largest(self) -> Values:
        """Largest magnitude per input channel: [I]."""
        if self.groups == 1:
            return _largest(self.values, self.into)
        grouped = self.values.reshape(self.groups, self.values.shape[0] // self.groups, self.values.shape[1], -1)
        found: Values = np.abs(grouped).max(axis=(1, 3)).reshape(-1)
        return found

    def divide_out(self, factor: Values) -> None:
        """Divide every output channel, and its bias, by its factor."""
        self.values /= _along(factor, self.out, self.values.ndim)
        if self.bias is not None:
            self.bias /= factor

    def multiply_into(self, factor: Values) -> None:
        """Multiply every input channel by its factor."""
        if self.groups == 1:
            self.values *= _along(factor, self.into, self.values.ndim)
        else:
            self.values *= self._spread(factor)

    def response(self, shift: Values) -> Values:
        """What a constant ``shift`` of every input channel adds to each output channel: [O]."""
        axes = tuple(a for a in range(self.values.ndim) if a != self.out)
        along = _along(shift, self.into, self.values.ndim) if self.groups == 1 else self._spread(shift)
        total: Values = (self.values * along).sum(axis=axes)
        return total

    def _spread(self, factor: Values) -> Values:
        """A factor per input channel shaped for a grouped weight [O, I/groups, ...]."""
        rows = np.repeat(factor.reshape(self.groups, -1), self.values.shape[0] // self.groups, axis=0)
        return rows.reshape(*rows.shape, *[1] * (self.values.ndim - 2))


def _largest(values: Values, axis: int) -> Values:
    found: Values = np.abs(values).max(axis=tuple(a for a in range(values.ndim) if a != axis))
    return found


def _along(factor: Values, axis: int, rank: int) -> Values:
    shape = [1] * rank
    shape[axis] = -1
    return factor.reshape(shape)


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
            return Pair(maker, readers, tuple(carriers), tuple(tensors), ceiling)
        carrier = readers[0]
        limit = _limit(carrier)
        if len(readers) != 1 or limit is None or (limit != np.inf and ceiling is not None):
            return None
        ceiling = ceiling if limit == np.inf else limit
        carriers.append(carrier)
        tensors.append(carrier.outputs[0])


def _limit(node: Node) -> float | None:
    """The upper limit that ``node`` puts on what it carries, infinite without one; ``None`` when it carries nothing."""
    if node.op == "Flatten":
        return np.inf if all(d == 1 for d in node.required(0).dims[2:]) and node.int("axis", 1) == 1 else None
    if not node.standard or node.op not in CARRIERS or len(node.activations) != 1:
        return None
    if node.op == "Clip":
        low, high = clip_range(node)
        return None if low not in (0.0, None) else np.inf if high is None else high
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
    return node.op == "Conv" or len(weights[0].dims) == 2


def equalize(
    model: onnx.ModelProto, channels: Mapping[str, Channels], scheme: Scheme, aim: Aim, absorb: bool
) -> tuple[onnx.ModelProto, int]:
    """``model`` with its channels evened, which computes the same, and at how many places.

    Args:
        model: the float model.
        channels: what each channel of its activations took, those inside fused operators included.
        scheme: what the target takes; an operator with a scale per channel needs no even weights.
        aim: even the weights on both sides, the activations between them against the weights behind, or all three.
        absorb: whether to move what a channel never falls below into the bias behind it.
    """
    work = _Work(model, channels)
    usable = [pair for pair in pairs(view(model)) if all(t.name in channels for t in pair.tensors)]
    work.sweep(usable, scheme, aim)
    if absorb:
        for pair in usable:
            work.absorb(pair)
    return work.finish(), len(usable)


def rescue(
    model: onnx.ModelProto, calibration: Calibration, scheme: Scheme
) -> tuple[onnx.ModelProto, Calibration, tuple[str, ...]]:
    """``model`` evened only where channels are so unlike that one scale would lose most of them.

    These are places where a channel's largest value is more than ``BEYOND`` times the median channel's: the others
    would share fewer than 16 of 256 levels. Nothing is calibrated again: dividing a channel divides its extremes.

    Returns:
        The model, which computes the same; its statistics, right in their extremes and means alone; and the tensors
        behind which channels were evened.
    """
    channels = calibration.channels
    found = [pair for pair in pairs(view(model)) if _unlike(channels.get(pair.tensors[-1].name))]
    if not found:
        return model, calibration, ()
    work = _Work(model, channels)
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
    return bool(largest.max() > BEYOND * np.median(largest[largest > 0]))


class _Work:
    """The weights and channel statistics of a model while they are changed."""

    def __init__(self, model: onnx.ModelProto, channels: Mapping[str, Channels]) -> None:
        self.model = copied(model)
        self.layers: dict[str, tuple[Node, _Layer]] = {}
        self.channels = {n: Channels(c.low.copy(), c.high.copy(), c.mean.copy()) for n, c in channels.items()}
        self.divided: dict[str, Values] = {}
        """By what each maker's channels were divided in all, by its name."""

    def sweep(self, places: Sequence[Pair], scheme: Scheme, aim: Aim) -> None:
        """Even all ``places`` until they have settled."""
        for _ in range(SWEEPS):
            moved = [self.rescale(pair, self.factors(pair, scheme, aim)) for pair in places]
            if max(moved, default=0.0) < SETTLED:
                break

    def layer(self, node: Node) -> _Layer:
        if node.name not in self.layers:
            self.layers[node.name] = (node, _layer(node))
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
        floor = 1 / self.divided.get(pair.maker.name, np.ones_like(factor))  # undoes what made a channel smaller
        reaching = self._first(pair).high >= (pair.ceiling or np.inf) * CLAMPED
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
        self.divided[pair.maker.name] = self.divided.get(pair.maker.name, 1.0) * factor
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
            if layer.bias is not None:
                store(self.model, node, 2, layer.bias)
        return self.model


def _layer(node: Node) -> _Layer:
    values = node.required(1).real.astype(np.float64)
    bias = node.input(2)
    flat = None if bias is None else bias.real.astype(np.float64)
    if node.op == "Conv":
        return _Layer(values, flat, 0, 1, node.int("group", 1))
    if node.op == "LayerNormalization":
        return _Layer(values, flat, 0, 0, 1)
    out = 0 if node.op == "Gemm" and node.int("transB", 0) else 1
    if flat is not None:
        flat = np.broadcast_to(flat.reshape(-1) if flat.size == 1 else flat, (values.shape[out],)).copy()
    return _Layer(values, flat, out, 1 - out, 1)


def _unpadded(node: Node) -> bool:
    if node.op != "Conv":
        return True
    return not any(node.ints("pads", ())) and node.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")
