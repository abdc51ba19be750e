"""The rungs of the ladder that change layers: what each offers of which layers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.compile.support import kernels
from pipeline.graph.view import Graph, Node, view
from pipeline.graph.weighted import channel_axis
from pipeline.quantize.advising import Means
from pipeline.quantize.recipe import Recipe
from pipeline.quantize.scheme import Scheme
from pipeline.quantize.sensitivity import Sensitivity
from pipeline.quantize.trials import State
from pipeline.quantize.variants import Variant, results_of, tail_of, unit_of, varied, with_readers
from pipeline.quantize.weights import has_weight
from pipeline.targets.placement import by_target
from pipeline.targets.profile import Target

MOST_LAYERS = 6
"""Layers of a rung that are tried, those that lose most alone."""

MOST_TAILS = 2
"""Of these, from how many on everything is also tried in the other way, which changes device or type only once."""

SPREAD = 3
"""Places, evenly over the network, from which on everything is tried in int16."""

Offer = Callable[[Target, Scheme, State, Sequence[Sensitivity]], Sequence[tuple[str, Variant]]]
"""What a rung offers of layers, those that lose most alone first."""


def means(target: Target, scheme: Scheme, state: State, recipe: Recipe, climbed: bool) -> Means:
    """What there is against what a layer of ``state`` loses, made by ``recipe`` and, if ``climbed``, by the ladder."""
    coarse = _coarse(target, state, _weighted(state).values())
    return Means(target.name, _narrow(target, scheme, state), {n.name for n in coarse}, recipe, climbed)


def _weighted(state: State) -> Mapping[str, Node]:
    """The operators with quantized weights, by name."""
    nodes = [n for n in view(state.model).nodes if has_weight(n, state.encodings.activations)]
    return {n.name: n for n in nodes if n.required(1).name in state.encodings.weights}


def _losing(state: State, rows: Sequence[Sensitivity]) -> Sequence[Node]:
    """The operators with quantized weights among ``rows``, as many as are tried."""
    nodes = _weighted(state)
    return [nodes[row.node] for row in rows if row.node in nodes][:MOST_LAYERS]


def _coarse(target: Target, state: State, nodes: Iterable[Node]) -> Sequence[Node]:
    """Those of ``nodes`` that have one weight scale by a rule of their NPU."""
    rules = {op: known.rules for op, known in target.operators.items()}
    return [
        node
        for node in nodes
        if state.encodings.weights[node.required(1).name].axis is None
        and channel_axis(node) is not None
        and any(use.rule == "per_tensor_weights" for use in (*target.rules, *rules.get(node.op, ())))
    ]


def per_channel(
    target: Target, scheme: Scheme, state: State, rows: Sequence[Sensitivity]
) -> Sequence[tuple[str, Variant]]:
    """A weight scale per channel, for operators whose NPU has a rule against it; the host computes these in int8."""
    nodes = _coarse(target, state, _losing(state, rows))
    return [(node.name, Variant(per_channel=frozenset({node.name}))) for node in nodes]


def _narrow(target: Target, scheme: Scheme, state: State) -> frozenset[str]:
    """The activations that could have int16: the contract has it, and the NPU takes what makes and reads them so."""
    names = [name for name, e in state.encodings.activations.items() if e.dtype != "int16"]
    return _on_npu(target, scheme, state, frozenset(names)) if "int16" in scheme.types else frozenset()


def _on_npu(target: Target, scheme: Scheme, state: State, names: frozenset[str]) -> frozenset[str]:
    """``names`` without those that would send an operator to the host in int16 that the NPU takes as it is."""
    judge = by_target(target, kernels(target.contract))
    refused = {n.name for n in view(state.quantized()).nodes if judge(n)}
    while names:
        made = varied(state, Variant(wide=names), scheme)
        graph, seen = view(made.quantized()), view(made.model)
        lost = [n.name for n in graph.nodes if n.name not in refused and judge(n)]
        results = [t for name in lost for t in results_of(seen, name) if t in names]
        if not results:
            return names
        alone = varied(state, Variant(wide=frozenset(results)), scheme).encodings.activations
        names -= {name for name, e in alone.items() if e.dtype == "int16"}
    return names


def int16(target: Target, scheme: Scheme, state: State, rows: Sequence[Sensitivity]) -> Sequence[tuple[str, Variant]]:
    """Int16 activations where the contract has them: of a layer and its readers, from one on, and of all."""
    narrow, graph = _narrow(target, scheme, state), view(state.model)
    chosen = [row for row in rows if row.tensor in narrow]
    alone = [_with_readers(graph, row) for row in chosen[:MOST_LAYERS]]
    places = [row.node for row in chosen[:MOST_TAILS]] + _spread(graph, [row.node for row in chosen])
    tails = [(f"{name} and all after it", _results(graph, tail_of(graph, name))) for name in dict.fromkeys(places)]
    offered = [*alone, *tails, ("every layer", narrow)]
    return [(what, Variant(wide=names & narrow)) for what, names in offered if names & narrow]


def _with_readers(graph: Graph, row: Sensitivity) -> tuple[str, frozenset[str]]:
    names = with_readers(graph, row.tensor)
    return f"{row.node} and what reads it" if len(names) > 1 else row.node, names


def _spread(graph: Graph, names: Sequence[str]) -> list[str]:
    """``SPREAD`` of ``names``, evenly over the graph's order, both ends left out."""
    order = [n.name for n in graph.nodes if n.name in set(names)]
    return [order[(i + 1) * len(order) // (SPREAD + 1)] for i in range(SPREAD)] if order else []


def _results(graph: Graph, names: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(results_of(graph, name) for name in names))


def on_host(target: Target, scheme: Scheme, state: State, rows: Sequence[Sensitivity]) -> Sequence[tuple[str, Variant]]:
    """Real numbers on the host: of one layer, and from there on to the end."""
    graph, nodes = view(state.model), _losing(state, rows)
    alone = [(node.name, Variant(floats=unit_of(graph, node.name))) for node in nodes]
    tails = [(f"{n.name} and all after it", Variant(floats=tail_of(graph, n.name))) for n in nodes[:MOST_TAILS]]
    return [*alone, *tails]


@dataclass(frozen=True)
class Rung:
    """A rung that changes layers.

    Attributes:
        able: whether it offers any layer anything, before it is known what each loses.
        offer: what it offers.
        anew: whether weights are rounded for the outputs again after it, because int8 layers' noise shaped them.
    """

    able: Callable[[Target, Scheme, State], bool]
    offer: Offer
    anew: bool = False


RUNGS: Mapping[str, Rung] = {
    "per channel": Rung(lambda on, scheme, state: bool(_coarse(on, state, _weighted(state).values())), per_channel),
    "int16": Rung(lambda on, scheme, state: bool(_narrow(on, scheme, state)), int16, anew=True),
    "cpu": Rung(lambda on, scheme, state: bool(_weighted(state)), on_host),
}
"""The rungs that change layers, in order."""
