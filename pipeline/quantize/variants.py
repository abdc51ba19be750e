"""Departures from one quantization for all: real numbers, a weight scale per channel, int16 activations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from pipeline.graph.fusion import fused_outputs, units
from pipeline.graph.view import Graph, Node, Tensor, view
from pipeline.graph.weighted import WEIGHTED
from pipeline.quantize import ptq, weights
from pipeline.quantize.addends import addend, behind
from pipeline.quantize.aligned import align
from pipeline.quantize.constants import copied, store
from pipeline.quantize.encodings import Encodings, WeightEncoding
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.trials import State
from pipeline.quantize.weights import has_weight


@dataclass(frozen=True)
class Variant:
    """Where a quantization departs from its scheme.

    Attributes:
        floats: operators that compute in real numbers, by name; they run on the CPU.
        per_channel: operators with one weight scale per output channel though the scheme has one per tensor.
        wide: activations in int16, by tensor; what shares a scale with one of them is int16 too.
    """

    floats: frozenset[str] = frozenset()
    per_channel: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()

    @property
    def layers(self) -> frozenset[str]:
        """The operators whose weights depart."""
        return self.floats | self.per_channel

    def __or__(self, other: "Variant") -> "Variant":
        """Both departures."""
        return Variant(self.floats | other.floats, self.per_channel | other.per_channel, self.wide | other.wide)

    def __bool__(self) -> bool:
        """Whether it departs at all."""
        return bool(self.layers or self.wide)


def varied(state: State, variant: Variant, scheme: Scheme) -> State:
    """``state`` with the departures of ``variant`` from ``scheme``, its layers with the weights of the float model.

    Raises:
        ModelError: a weight or a bias holds values that are not finite, or the target does not compute with int16.
    """
    if variant.wide:
        state = _widened(state, variant.wide, scheme)
    if state.exact is not None:
        state = replace(state, model=_restored(state.model, state.exact, variant.layers))
    graph, encodings = view(state.model), state.encodings
    if variant.per_channel:
        encodings = _per_channel(graph, state, variant.per_channel, scheme)
    if variant.floats:
        encodings = _floated(graph, encodings, variant.floats)
    return replace(state, encodings=encodings)


def _widened(state: State, tensors: frozenset[str], scheme: Scheme) -> State:
    """``state`` with ``tensors`` in int16.

    Weights keep their scales, for which they may have been rounded, but where a bias needs a larger one: int16 reads
    finer steps.
    """
    choosing, before = replace(state.choosing, wide=state.choosing.wide | tensors), state.encodings
    graph = view(state.model)
    made = ptq.quantize(graph, state.calibration.histograms, scheme, choosing, state.least_error)
    made = replace(made, activations={n: e for n, e in made.activations.items() if n in before.activations})
    own = {n.op for n in graph.nodes if n.standard and n.op in WEIGHTED}
    finer = weights.encode(graph, made, replace(scheme, per_channel=dict.fromkeys(own, True)), state.least_error)
    kinds = {name: finer if e.axis is not None else made.weights for name, e in before.weights.items()}
    kept = {name: _at_least(e, kinds[name][name]) for name, e in before.weights.items()}
    return replace(state, encodings=replace(made, weights=kept), choosing=choosing)


def _at_least(before: WeightEncoding, needed: WeightEncoding) -> WeightEncoding:
    """``before`` with each scale that is smaller than ``needed`` made as large."""
    if before.axis != needed.axis:
        return needed
    return replace(before, scales=tuple(map(max, before.scales, needed.scales)))


def _restored(model: onnx.ModelProto, exact: onnx.ModelProto, names: frozenset[str]) -> onnx.ModelProto:
    """A copy of ``model`` in which the operators ``names`` have the weights and biases of ``exact``."""
    made, graph = copied(model), view(model)
    before = {n.name: n for n in view(exact).nodes}
    for node in graph.nodes:
        if node.name not in names or not node.standard:
            continue
        held = behind(graph, node) or node
        index = addend(held)
        if index is not None:
            _restore(made, held, before[held.name].input(index), index)
        if node.op in WEIGHTED:
            for index in (1, 2):
                _restore(made, node, before[node.name].input(index), index)
    return made


def _restore(model: onnx.ModelProto, node: Node, wanted: Tensor | None, index: int) -> None:
    found = node.input(index)
    if found is None or found.constant is None:
        return
    values = np.zeros(found.dims) if wanted is None else wanted.real.astype(np.float64)
    if not np.array_equal(values, found.real):
        store(model, node, index, values)


def _per_channel(graph: Graph, state: State, names: frozenset[str], scheme: Scheme) -> Encodings:
    """The encodings of ``state``, those of the weights of ``names`` with a scale per output channel."""
    chosen = {n.required(1).name for n in _weighted(graph, state.encodings) if n.name in names}
    finer = replace(scheme, per_channel=dict.fromkeys(scheme.per_channel, True))
    before = state.encodings
    made = weights.encode(graph, before, finer, state.least_error)
    found = replace(before, weights={**before.weights, **_only(made, chosen)})
    aligned = found if scheme.contract is None else align(graph, found, scheme.contract)
    return replace(found, weights={**before.weights, **_only(aligned.weights, chosen)})


def _only(encodings: Mapping[str, WeightEncoding], names: set[str]) -> Mapping[str, WeightEncoding]:
    return {name: encoding for name, encoding in encodings.items() if name in names}


def _weighted(graph: Graph, encodings: Encodings) -> tuple[Node, ...]:
    return tuple(n for n in graph.nodes if has_weight(n, encodings.activations))


def _floated(graph: Graph, encodings: Encodings, names: frozenset[str]) -> Encodings:
    """``encodings`` without those of the weights of ``names``, and of what only passes from one of these to another.

    What comes from the NPU or goes there stays quantized; an output of the model that the CPU computes does not.
    """
    users: dict[str, list[str]] = {}
    for node in _weighted(graph, encodings):
        users.setdefault(node.required(1).name, []).append(node.name)
    freed = {weight for weight, nodes in users.items() if names.issuperset(nodes)}
    inside = {
        t.name
        for node in graph.nodes
        if node.name in names
        for t in node.outputs
        if names.issuperset(reader.name for reader in graph.consumers(t.name))
    }
    return Encodings(
        {name: e for name, e in encodings.activations.items() if name not in inside},
        {name: e for name, e in encodings.weights.items() if name not in freed},
        {name: e for name, e in encodings.converted.items() if name not in inside},
    )


def unit_of(graph: Graph, name: str) -> frozenset[str]:
    """The operators that run as one with the operator ``name``, by name."""
    found = next((unit for unit in units(graph) if name in {n.name for n in unit}), ())
    return frozenset(n.name for n in found)


def tail_of(graph: Graph, name: str) -> frozenset[str]:
    """The operator ``name``, what runs as one with it, and all that depends on it."""
    found = set(unit_of(graph, name))
    for node in graph.nodes:
        if any(before.name in found for before in graph.predecessors(node)):
            found |= unit_of(graph, node.name)
    return frozenset(found)


def with_readers(graph: Graph, tensor: str) -> frozenset[str]:
    """The activation ``tensor`` and what is made of it by the operators that read it, by name.

    An operator computes in the type of its output, so only where that is int16 too do readers see more of ``tensor``.
    """
    return frozenset({tensor}).union(*(results_of(graph, n.name) for n in graph.consumers(tensor)))


def results_of(graph: Graph, name: str) -> frozenset[str]:
    """What the operator ``name`` and those that run as one with it give to others, by name."""
    inside = unit_of(graph, name)
    made = frozenset(t.name for n in graph.nodes if n.name in inside for t in n.outputs)
    return made - fused_outputs(graph)
