"""Split into Slices, and grouped convolutions into plain ones."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import onnx_ir as ir

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, single
from pipeline.rewrites.reading import Array, Builder, constant, dims, floats, given, integers, source
from pipeline.rewrites.rule import Rule

PARTS = range(1, 33)
"""Numbers of outputs that a Split may have."""


def _slice(op: Builder, value: ir.Value, axis: int, start: int, stop: int, name: str) -> ir.Value:
    """``value[start:stop]`` along ``axis``."""
    ends = [integers(op, [n], f"{name}.{what}") for what, n in (("start", start), ("stop", stop), ("axis", axis))]
    return op.op("Slice", value, *ends)


def _is_static_split(node: ir.Node) -> bool:
    """Whether every part has a known size (it has, or the driver would not ask)."""
    return all(dims(v) for v in node.outputs)


def _to_slices(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    value = source(node)
    axis = node.attributes.get_int("axis", 0) % len(dims(value))
    stops = list(accumulate(dims(v)[axis] for v in node.outputs))
    starts = [0, *stops[:-1]]
    return [_slice(op, value, axis, a, b, str(node.name)) for a, b in zip(starts, stops, strict=True)]


def _kernel(node: ir.Node) -> tuple[Array, Array | None] | None:
    """Weights and bias of a Conv in groups that is not depthwise, all constant; else ``None``."""
    weight, bias = constant(given(node, 1)), constant(given(node, 2))
    group = node.attributes.get_int("group", 1)
    if weight is None or group == 1 or weight.shape[1] == 1 or (given(node, 2) is not None and bias is None):
        return None
    return weight, bias


def _is_grouped(node: ir.Node) -> bool:
    return _kernel(node) is not None


def _plain(node: ir.Node) -> dict[str, ir.Attr]:
    """The attributes of a Conv without its groups."""
    return {name: value for name, value in node.attributes.items() if name != "group"}


def _to_parts(op: Builder, node: ir.Node) -> ir.Value:
    found = _kernel(node)
    assert found is not None
    weight, bias = found
    group, name, width = node.attributes.get_int("group", 1), str(node.name), weight.shape[1]
    outputs = []
    for index, part in enumerate(np.split(weight, group)):
        inputs = [
            _slice(op, source(node), 1, index * width, (index + 1) * width, name),
            floats(op, part, f"{name}.weight"),
        ]
        if bias is not None:
            inputs.append(floats(op, np.split(bias, group)[index], f"{name}.bias"))
        outputs.append(op.op("Conv", *inputs, **_plain(node)))
    return op.op("Concat", *outputs, axis=1)


def _to_dense(op: Builder, node: ir.Node) -> ir.Value:
    found = _kernel(node)
    assert found is not None
    weight, _ = found
    group = node.attributes.get_int("group", 1)
    rows, width = weight.shape[0] // group, weight.shape[1]
    dense = np.zeros((weight.shape[0], group * width, *weight.shape[2:]), np.float32)
    for index in range(group):
        inner = slice(index * rows, (index + 1) * rows)
        dense[inner, index * width : (index + 1) * width] = weight[inner]
    return op.op("Conv", source(node), floats(op, dense, f"{node.name}.weight"), *node.inputs[2:], **_plain(node))


SPLIT_TO_SLICE = Rule(
    "split-to-slice",
    Kind.EXACT,
    "Split becomes one Slice per part.",
    Patterns(tuple(single("Split", _is_static_split, _to_slices, parts) for parts in PARTS)),
)
GROUPED_TO_PARTS = Rule(
    "split-grouped-conv",
    Kind.EXACT,
    "A Conv in groups becomes a Slice and a Conv per group, and a Concat; depthwise Conv stays.",
    Patterns((single("Conv", _is_grouped, _to_parts),)),
)
GROUPED_TO_DENSE = Rule(
    "grouped-conv-to-dense",
    Kind.EXACT,
    "A Conv in groups becomes one Conv with zeros between the groups: more multiplications, no other operator.",
    Patterns((single("Conv", _is_grouped, _to_dense),)),
)
