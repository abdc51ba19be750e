"""Opening ONNX models of any origin: any exporter, opset 7 to 23, float or quantized, dimensions open or fixed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx

from pipeline.errors import ModelError, one_line
from pipeline.graph.constants import refuse_nan
from pipeline.graph.files import outside, read
from pipeline.graph.model import complete_names
from pipeline.graph.nouns import Graph
from pipeline.graph.opsets import upgrade
from pipeline.graph.shapes import Fixed, refuse_open, settle
from pipeline.graph.tidy import inline, merge_pairs, qoperators, sort
from pipeline.graph.view import view

NONE_FIXED: Fixed = MappingProxyType({})


@dataclass(frozen=True)
class Opened:
    """A model that was opened.

    Attributes:
        model: valid ONNX, all shapes known, every node named.
        graph: its view.
        notes: what was done to it that its owner must know, each a sentence.
    """

    model: onnx.ModelProto
    graph: Graph
    notes: tuple[str, ...]


def open_model(path: Path, dims: Mapping[str, int] = NONE_FIXED) -> Opened:
    """The model in ``path``, ready for rules, costs and partitions.

    Local functions are written out, unsorted nodes sorted, opsets below 13 converted, equal QuantizeLinear of a tensor
    merged, missing shapes inferred. If and Loop, operators of unknown domains, and quantization that is no property of
    a tensor stay operators; weights beyond 1.5 GB stay in their files.

    Args:
        path: a file, its weights inside it or in its folder.
        dims: sizes of open dimensions by name; an open batch is 1 unless it is among them.

    Raises:
        ModelError: the file cannot be read or is not valid ONNX, its opset is not known, ``dims`` does not fit it, a
            dimension stays open or is 0, or a constant holds NaN.
    """
    given = read(path)
    _check(given, path)
    model = inline(given)
    complete_names(model)
    notes = sort(model, path)
    model, converted = upgrade(model, path)
    complete_names(model)
    merge_pairs(model)
    model, settled = settle(model, dims, path)
    graph = view(model, path.parent)
    refuse_open(graph, model, path)
    _refuse_nan(graph, path)
    _refuse_misfits(graph, path)
    return Opened(model, graph, (*notes, *converted, *settled, *qoperators(model)))


def _check(model: onnx.ModelProto, path: Path) -> None:
    """ONNX's own checker, unsorted nodes forgiven; raises ``ModelError``."""
    try:
        onnx.checker.check_model(str(path) if outside(model) else model)
    except (onnx.checker.ValidationError, ValueError) as error:
        message = one_line(error)
        if "topologically sorted" not in message:
            raise ModelError(f"is not valid ONNX: {message}", where=path) from error


def _refuse_nan(graph: Graph, path: Path) -> None:
    """Raise ``ModelError`` for a constant that holds NaN."""
    readers: dict[str, list[str]] = {}
    values = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor is not None and tensor.constant is not None:
                readers.setdefault(tensor.name, []).append(node.op)
                values[tensor.name] = tensor.constant
    for name, value in values.items():
        refuse_nan(name, value, readers[name], path)


def _refuse_misfits(graph: Graph, path: Path) -> None:
    """Raise ``ModelError`` for a convolution of other channels than its input has, which shape inference lets pass."""
    for node in graph.nodes:
        if node.standard and node.op in ("Conv", "ConvTranspose"):
            source, weight = node.required(0).shape, node.required(1).shape
            if source is None or weight is None or len(source) < 2 or None in (source[1], weight[0], weight[1]):
                continue
            takes = weight[0] if node.op == "ConvTranspose" else (weight[1] or 0) * node.int("group", 1)
            if takes != source[1]:
                what = f"{node.op} {node.name} takes {takes} channels, {node.required(0).name} has {source[1]}"
                raise ModelError(f"is not valid ONNX: {what}", where=path)
