"""Post-training quantization: from a float graph and its statistics to encodings."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import ModelError
from pipeline.graph.fusion import fused_outputs
from pipeline.graph.view import Graph, Tensor
from pipeline.quantize import weights
from pipeline.quantize.calibrate import activations
from pipeline.quantize.encodings import ActivationEncoding, Encodings
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.ranges import CHOICES, Range, affine

SAME_SCALE = frozenset({
    "AveragePool", "Concat", "DepthToSpace", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators whose inputs and output share one scale and zero point (TFLite int8 contract)."""

FIXED_OUTPUT: Mapping[str, tuple[float, int]] = {
    "Sigmoid": (1 / 256, -128),
    "Softmax": (1 / 256, -128),
    "Tanh": (1 / 128, 0),
}
"""Operators whose output has a fixed scale and zero point (TFLite int8 contract)."""


def quantize(
    graph: Graph,
    histograms: Mapping[str, Histogram],
    per_channel: Mapping[str, bool],
    choice: str = "mse",
    percentile: float = 99.99,
) -> Encodings:
    """Encodings of every activation and weight of a float ``graph``.

    Args:
        graph: the float model.
        histograms: what its activations took, by name.
        per_channel: for each operator with weights, whether the target takes a scale per channel.
        choice: how a range is chosen, a key of ``pipeline.quantize.ranges.CHOICES``.
        percentile: for that choice.

    Raises:
        ModelError: an activation has no histogram; a weight or bias is not finite.
    """
    skipped = fused_outputs(graph)
    wanted = [t for t in activations(graph) if t.name not in skipped]
    missing = [t.name for t in wanted if t.name not in histograms]
    if missing:
        raise ModelError("was not calibrated", where=missing[0], fix="calibrate the same model")
    ranges = {t.name: _range(graph, t, histograms[t.name], choice, percentile) for t in wanted}
    encoded = _encode(graph, ranges)
    return Encodings(encoded, weights.encode(graph, encoded, per_channel))


def _range(graph: Graph, tensor: Tensor, histogram: Histogram, choice: str, percentile: float) -> Range:
    # The network's input is what preprocessing makes of 0..255; nothing of it may be clipped.
    is_input = graph.producer(tensor.name) is None
    return CHOICES["minmax" if is_input else choice](histogram, percentile)


def _encode(graph: Graph, ranges: Mapping[str, Range]) -> Mapping[str, ActivationEncoding]:
    """Encodings of ``ranges``: one for all tensors that must share it, the contract's where that fixes it.

    A group of tensors takes a fixed encoding when everything that enters the group has it; otherwise the fixed tensor
    keeps its own, and the compiler rescales it.
    """
    encoded: dict[str, ActivationEncoding] = {}
    for members in _groups(graph, ranges):
        low, high = min(ranges[m][0] for m in members), max(ranges[m][1] for m in members)
        fixed = {m: _fixed(graph, m) for m in members}
        entering = {fixed[m] for m in members if _op(graph, m) not in SAME_SCALE}
        common = entering.pop() if len(entering) == 1 else None
        for member in members:
            scale, zero = common or fixed[member] or affine(low, high)
            encoded[member] = ActivationEncoding(low, high, scale, zero)
    return {name: encoded[name] for name in ranges}


def _groups(graph: Graph, ranges: Mapping[str, Range]) -> Iterable[Sequence[str]]:
    """The tensors of ``ranges`` in groups that must share their encoding."""
    leader = {name: name for name in ranges}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        if node.standard and node.op in SAME_SCALE:
            members = [t.name for t in (*node.activations, *node.outputs) if t.name in leader]
            for member in members[1:]:
                leader[find(member)] = find(members[0])
    groups: dict[str, list[str]] = {}
    for name in ranges:
        groups.setdefault(find(name), []).append(name)
    return groups.values()


def _op(graph: Graph, name: str) -> str:
    producer = graph.producer(name)
    return "" if producer is None or not producer.standard else producer.op


def _fixed(graph: Graph, name: str) -> tuple[float, int] | None:
    return FIXED_OUTPUT.get(_op(graph, name))
