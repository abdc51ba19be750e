"""Post-training quantization: from a float graph and its statistics to encodings."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from pipeline.errors import ModelError
from pipeline.graph.fusion import fused_outputs
from pipeline.graph.view import Graph, Tensor
from pipeline.graph.weighted import WEIGHTED
from pipeline.quantize import weights
from pipeline.quantize.aligned import align
from pipeline.quantize.apart import apart
from pipeline.quantize.calibrate import activations
from pipeline.quantize.encodings import ActivationEncoding, Encodings, computed_in
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.ranges import CHOICES, Range
from pipeline.quantize.scheme import Scheme
from runtime.npu.requantize import SHIFT_MAX

SAME_SCALE = frozenset({
    "AveragePool", "Concat", "DepthToSpace", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators whose inputs and output share one scale and zero point (TFLite int8 contract)."""

FLAT_BEYOND: Mapping[str, float] = {"Sigmoid": 7.0, "Tanh": 3.5}
"""Inputs beyond which a function is within half a step of its end: 1/(1 + e^-7) > 1 - 1/512, tanh(3.5) > 1 - 1/256."""


@dataclass(frozen=True)
class Choosing:
    """How ranges are chosen.

    Attributes:
        choice: a key of ``pipeline.quantize.ranges.CHOICES``.
        percentile: of the values kept, for the choice of that name.
        by_tensor: another choice, or the range itself, for some activations, by name.
        wide: activations that are held in int16 where the target computes with that; those that share a scale with
            one of them are too. Their range is all that was seen, unless ``by_tensor`` says otherwise.
    """

    choice: str = "mse"
    percentile: float = 99.99
    by_tensor: Mapping[str, str | Range] = field(default_factory=dict)
    wide: Set[str] = frozenset()


def quantize(
    graph: Graph, histograms: Mapping[str, Histogram], scheme: Scheme, choose: Choosing, mse_weights: bool = False
) -> Encodings:
    """Encodings of every activation and weight of a float ``graph``.

    Args:
        graph: the float model.
        histograms: what its activations took, by name.
        scheme: what the target takes.
        choose: how ranges are chosen.
        mse_weights: whether a weight's range is the one with the least squared error, not all of it.

    Raises:
        ModelError: an activation has no histogram; a weight or bias is not finite; int16 is wanted of a target that
            does not compute with it.
    """
    skipped = fused_outputs(graph) | apart(graph, histograms)
    wanted = [t for t in activations(graph) if t.name not in skipped]
    missing = [t.name for t in wanted if t.name not in histograms]
    if missing:
        raise ModelError("was not calibrated", where=missing[0], fix="calibrate the same model")
    groups = _groups(graph, [t.name for t in wanted], scheme.shared_scales)
    types = _types(groups, scheme, choose)
    ranges = {t.name: _range(graph, t, histograms[t.name], scheme, choose, types[t.name]) for t in wanted}
    for name, least in reach(graph, histograms).items():
        if name in ranges:
            low, high = ranges[name]
            ranges[name] = min(low, 0.0), max(high, min(low, 0.0) + least)
    encoded = _encode(graph, groups, ranges, scheme, types)
    narrow = {t.name: _range(graph, t, histograms[t.name], scheme, choose, "int8") for t in wanted}
    first = Encodings(encoded, {}, converted(graph, encoded, scheme, narrow))
    found = replace(first, weights=weights.encode(graph, first, scheme, mse_weights))
    return found if scheme.contract is None else align(graph, found, scheme.contract)


def reach(graph: Graph, histograms: Mapping[str, Histogram]) -> Mapping[str, float]:
    """The least range of each activation that is narrower than what its operator's multiplier can give, by name.

    A factor ``s_in * s_w / s_out`` has a shift of at most ``SHIFT_MAX``, so it is below ``2**SHIFT_MAX``; here it is
    kept below half of that, for ranges that are chosen narrower or scales that are widened. What is too narrow has
    fewer than 256 levels, and what follows takes its range as it is.
    """
    widths = {name: seen.width for name, seen in histograms.items()}
    narrow: dict[str, float] = {}
    for node in graph.nodes:
        taken = [widths[t.name] for t in node.activations if t.name in widths]
        weight = node.input(1) if node.op in WEIGHTED else None
        gain = 1.0 if weight is None or weight.constant is None else float(np.abs(weight.real).max()) / 127
        least = max(taken, default=0.0) * gain * 2.0 ** (1 - SHIFT_MAX)
        for tensor in node.outputs:
            if 0.0 < widths.get(tensor.name, 0.0) < least:
                narrow[tensor.name] = widths[tensor.name] = least
    return narrow


def _types(groups: Iterable[Sequence[str]], scheme: Scheme, choose: Choosing) -> Mapping[str, str]:
    """The type of every activation; those of one group have one."""
    found: dict[str, str] = {}
    for members in groups:
        wide = scheme.activations == "int16" or not choose.wide.isdisjoint(members)
        if wide and "int16" not in scheme.types:
            what = f"the target computes with {' and '.join(scheme.types)}, not with int16"
            raise ModelError(what, where=members[0], fix="name a target whose contract has int16")
        found |= dict.fromkeys(members, "int16" if wide else "int8")
    return found


def converted(
    graph: Graph,
    encoded: Mapping[str, ActivationEncoding],
    scheme: Scheme,
    narrow: Mapping[str, Range] = MappingProxyType({}),
) -> Mapping[str, ActivationEncoding]:
    """How operators of the other type read an activation: int8 as int16 exactly, int16 as int8 over a range.

    That range is what ``narrow`` has for it, by name; else all that int16 holds.
    """
    found: dict[str, ActivationEncoding] = {}
    for node in graph.nodes:
        kind = computed_in(graph, node, encoded)
        for tensor in node.activations if kind is not None else ():
            own = encoded.get(tensor.name)
            if own is None or kind is None or own.dtype == kind:
                continue
            if kind == "int16":
                low, high, step = own.low, own.high, (own.scale / 128, 0)
            else:
                low, high = narrow.get(tensor.name, (own.low, own.high))
                step = scheme.activation(low, high)
            found[tensor.name] = ActivationEncoding(low, high, *step, kind)
    return found


def _range(graph: Graph, tensor: Tensor, histogram: Histogram, scheme: Scheme, choose: Choosing, dtype: str) -> Range:
    # The network's input is what preprocessing makes of 0..255; nothing of it may be clipped.
    wide = dtype == "int16"
    own = "minmax" if wide or graph.producer(tensor.name) is None else choose.choice
    choice = choose.by_tensor.get(tensor.name, own)
    if not isinstance(choice, str):
        return choice
    low, high = CHOICES[choice](histogram, choose.percentile, scheme)
    limit = math.inf if wide else _flat_beyond(graph, tensor)
    return max(low, -limit), min(high, limit)


def _flat_beyond(graph: Graph, tensor: Tensor) -> float:
    """The magnitude beyond which no reader of ``tensor`` tells values apart, infinite without one."""
    readers = graph.consumers(tensor.name)
    if not readers or graph.is_output(tensor.name):
        return math.inf
    return max(FLAT_BEYOND.get(n.op, math.inf) if n.standard else math.inf for n in readers)


def _encode(
    graph: Graph,
    groups: Iterable[Sequence[str]],
    ranges: Mapping[str, Range],
    scheme: Scheme,
    types: Mapping[str, str],
) -> Mapping[str, ActivationEncoding]:
    """Encodings of ``ranges``: one for all tensors that must share it, the contract's where that fixes it.

    A group of tensors takes a fixed encoding when everything that enters the group has it; otherwise the fixed tensor
    keeps its own, and the compiler rescales it, unless the target demands the one scale.
    """
    encoded: dict[str, ActivationEncoding] = {}
    for members in groups:
        dtype, every = types[members[0]], scheme.fixed(types[members[0]])
        low, high = min(ranges[m][0] for m in members), max(ranges[m][1] for m in members)
        fixed = {m: every.get(_op(graph, m)) for m in members}
        entering = {fixed[m] for m in members if _op(graph, m) not in SAME_SCALE}
        common = entering.pop() if len(entering) == 1 else None
        demanded = any(n.op in scheme.shared_scales for m in members for n in graph.consumers(m))
        for member in members:
            own = None if demanded else fixed[member]
            scale, zero = common or own or scheme.activation(low, high, dtype)
            encoded[member] = ActivationEncoding(low, high, scale, zero, dtype)
    return {name: encoded[name] for name in ranges}


def _groups(graph: Graph, names: Sequence[str], shared: Set[str]) -> Sequence[Sequence[str]]:
    """The tensors ``names`` in groups that must share their encoding; ``shared`` operators join their inputs."""
    leader = {name: name for name in names}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        if node.standard and node.op in SAME_SCALE | shared:
            if node.op in SAME_SCALE and not any(t.name in leader for t in node.outputs):
                continue  # it gives float, from parts with scales of their own
            joined = (*node.activations, *(node.outputs if node.op in SAME_SCALE else ()))
            members = [t.name for t in joined if t.name in leader]
            for member in members[1:]:
                leader[find(member)] = find(members[0])
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(find(name), []).append(name)
    return tuple(groups.values())


def _op(graph: Graph, name: str) -> str:
    producer = graph.producer(name)
    return "" if producer is None or not producer.standard else producer.op
