"""The boxes and arrows of the graph's picture, from the exported model, its coverage and its partitions."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from pipeline.errors import ModelError
from pipeline.graph.fusion import units
from pipeline.graph.model import load
from pipeline.graph.view import Graph, Tensor, view
from pipeline.graph.view import Node as Operator
from pipeline.report import results
from pipeline.report.formats import count, plural
from pipeline.report.graph_picture import Arrow, Box
from pipeline.report.results import Absent, Node, Partition
from pipeline.summary import RunSummary

MOST_BOXES = 150
"""A graph with more boxes is shown as its partitions."""

_MOST_FUSED = 2
"""Operators in one box: an operator and the activation function that is fused into it."""


@dataclass(frozen=True)
class Parts:
    """A picture's boxes and arrows; ``whole`` unless operators are collapsed into their partitions."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    whole: bool


def parts(summary: RunSummary, most: int = MOST_BOXES) -> Parts | Absent:
    """What to draw, or why nothing can be drawn; with more than ``most`` boxes partitions stand for operators."""
    plan, nodes = results.plan(summary), results.coverage(summary)
    if isinstance(plan, Absent):
        return plan
    if isinstance(nodes, Absent):
        return nodes
    placed = {node.name: node for node in nodes}
    if len(placed) > _MOST_FUSED * most:
        return Parts(*_collapsed(plan, placed), whole=False)
    graph = _graph(summary, placed)
    if isinstance(graph, Absent):
        return graph
    if len(units(graph)) > most:
        return Parts(*_collapsed(plan, placed), whole=False)
    return Parts(*_detailed(graph, placed, plan), whole=True)


def _graph(summary: RunSummary, placed: Mapping[str, Node]) -> Graph | Absent:
    """The exported model's operators, all of which the coverage stage has placed."""
    folder = results.folder_of(summary, "export")
    if isinstance(folder, Absent):
        return folder
    path = folder / "model.onnx"
    try:
        graph = view(load(path))
    except ModelError as error:
        return Absent(f"{error}.")
    stranger = next((node.name for node in graph.nodes if node.name not in placed), None)
    return graph if stranger is None else Absent(f"{path}: coverage.json does not know the operator {stranger}.")


def _detailed(
    graph: Graph, placed: Mapping[str, Node], plan: Sequence[Partition]
) -> tuple[tuple[Box, ...], tuple[Arrow, ...]]:
    """A box for every operator with its fused activation function, and one for each input and output."""
    number = {name: index for index, partition in enumerate(plan) for name in partition.nodes}
    runs_on = {name: partition.device for partition in plan for name in partition.nodes}
    boxes = [Box(f"input {t.name}", _shape(t), t.name, "edge", f"input {t.name}") for t in graph.inputs]
    makers = {t.name: box for t, box in zip(graph.inputs, boxes, strict=True)}
    takers: list[tuple[Box, list[Tensor]]] = []
    for unit in units(graph):
        first = unit[0].name
        device = runs_on.get(first, placed[first].device)
        box = Box(f"operator {first}", _title(unit), first, device, _hint(unit, placed, number, device))
        own = {t.name for node in unit for t in node.outputs}
        makers |= dict.fromkeys(own, box)
        takers.append((box, [t for node in unit for t in node.activations if t.name not in own]))
    for tensor, name in zip(graph.outputs, graph.output_names, strict=True):
        takers.append((Box(f"output {name}", _shape(tensor), name, "edge", f"output {name}"), [tensor]))
    found: dict[tuple[str, str], Arrow] = {}
    for box, tensors in takers:
        boxes.append(box)
        for tensor in tensors:
            source = makers.get(tensor.name)
            if source is not None:  # a constant that leaves the model comes from no box
                crossing = {source.place, box.place} == {"npu", "cpu"}
                _add(found, Arrow(source.key, box.key, f"{tensor.name}: {_shape(tensor)}", crossing))
    return _ordered(boxes, found), tuple(found.values())


def _ordered(boxes: Sequence[Box], arrows: Iterable[tuple[str, str]]) -> tuple[Box, ...]:
    """The boxes, every one after those that point to it."""
    by_key = {box.key: box for box in boxes}
    before: dict[str, list[str]] = {box.key: [] for box in boxes}
    for source, target in arrows:
        before[target].append(source)
    return tuple(by_key[key] for key in TopologicalSorter(before).static_order())


def _add(found: dict[tuple[str, str], Arrow], arrow: Arrow) -> None:
    """Keep one arrow per pair of boxes, with the hints of all."""
    earlier = found.get((arrow.source, arrow.target))
    if earlier is not None:
        hints = dict.fromkeys([*earlier.hint.splitlines(), arrow.hint])
        arrow = Arrow(arrow.source, arrow.target, "\n".join(hints), earlier.crossing or arrow.crossing)
    found[arrow.source, arrow.target] = arrow


def _title(unit: Sequence[Operator]) -> str:
    """``Conv 3x3 /2 + Clip``: kernel, stride, and what is fused."""
    first = unit[0]
    words = [first.op]
    weights = first.input(1)
    if first.op in ("Conv", "ConvTranspose") and weights is not None and weights.shape is not None:
        words.append("\N{MULTIPLICATION SIGN}".join(str(size) for size in weights.shape[2:]))
        if max(first.ints("strides", (1,))) > 1:
            words.append(f"/{max(first.ints('strides', (1,)))}")
        if first.int("group", 1) > 1:
            words.append("dw")
    return " ".join(words) + "".join(f" + {node.op}" for node in unit[1:])


def _hint(unit: Sequence[Operator], placed: Mapping[str, Node], number: Mapping[str, int], device: str) -> str:
    lines = [f"{node.name} ({node.op})" for node in unit]
    first = placed[unit[0].name]
    where = f"partition {number[first.name]}" if first.name in number else "in no partition"
    lines.append(f"{device.upper()}, {where}, output {_shape(unit[-1].outputs[0])}")
    macs = sum(placed[node.name].macs for node in unit)
    lines += [f"{count(macs)} MACs"] if macs else []
    lines += dict.fromkeys(reason for node in unit for reason in placed[node.name].reasons)
    return "\n".join(lines)


def _shape(tensor: Tensor) -> str:
    if tensor.shape is None:
        return "shape unknown"
    return "\N{MULTIPLICATION SIGN}".join("?" if size is None else str(size) for size in tensor.shape)


def _collapsed(plan: Sequence[Partition], placed: Mapping[str, Node]) -> tuple[tuple[Box, ...], tuple[Arrow, ...]]:
    """A box for every partition with the number of its operators."""
    makers: dict[str, int] = {}
    boxes, found = [], dict[tuple[str, str], Arrow]()
    for index, partition in enumerate(plan):
        operators = Counter(placed[name].op for name in partition.nodes if name in placed)
        hint = "\n".join(f"{number} {op}" for op, number in operators.most_common())
        title = f"{partition.device.upper()} partition {index}"
        boxes.append(Box(str(index), title, plural(len(partition.nodes), "operator"), partition.device, hint))
        for tensor in partition.inputs:
            source = makers.get(tensor.name)
            if source is not None:
                size = "\N{MULTIPLICATION SIGN}".join(str(each) for each in tensor.shape)
                text = f"{tensor.name}: {size} {tensor.dtype}, {count(math.prod(tensor.shape))} values"
                crossing = plan[source].device != partition.device
                _add(found, Arrow(str(source), str(index), text, crossing))
        makers.update({tensor.name: index for tensor in partition.outputs})
    return tuple(boxes), tuple(found.values())
