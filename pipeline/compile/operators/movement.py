"""What moves values: reshapes, transpositions, joins, pieces, padding, resizes."""

import numpy as np

from pipeline.compile.operators.lowering import Lowering, Made
from pipeline.compile.windows import linear_weights, nearest_indices
from pipeline.graph.view import Node, quantize
from runtime.npu.program import Attribute


def reshape(op: Lowering) -> list[Made]:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity."""
    return op.one("reshape", clamp=False)


def transpose(op: Lowering) -> list[Made]:
    """Transpose."""
    order = op.node.ints("perm", tuple(reversed(range(len(op.output.dims)))))
    return op.one("transpose", {"permutation": order}, clamp=False)


def concat(op: Lowering) -> list[Made]:
    """Concat; constants take the output's quantization."""
    made, specs = op.operands(like=op.output)
    axis = op.node.int("axis", 0) % len(op.output.dims)
    joined = op.instruction("concat", {"axis": axis}, clamp=False, inputs=tuple(s.name for s in specs))
    return [*made, Made(joined)]


def split(op: Lowering) -> list[Made]:
    """Split: a slice for every output."""
    axis = op.node.int("axis", 0) % len(op.source.dims)
    made, start = [], 0
    for output in op.node.outputs:
        starts = [start if i == axis else 0 for i in range(len(op.source.dims))]
        attributes: dict[str, Attribute] = {"starts": tuple(starts), "steps": (1,) * len(starts)}
        made.append(Made(op.instruction("slice", attributes, clamp=False, output=output.wire)))
        start += output.dims[axis]
    return made


def slice_axes(op: Lowering) -> list[Made]:
    """Slice."""
    places = slice_places(op.node)
    attributes: dict[str, Attribute] = {
        "starts": tuple(p.start for p in places),
        "steps": tuple(p.step for p in places),
    }
    return op.one("slice", attributes, clamp=False)


def slice_places(node: Node) -> list[range]:
    """The indices that a Slice takes along every axis; opset 1 attributes included."""
    shape = node.required(0).dims

    def given(index: int, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        tensor = node.input(index)
        return node.ints(name, default) if tensor is None else tuple(int(v) for v in np.ravel(tensor.real))

    starts, ends = given(1, "starts", ()), given(2, "ends", ())
    axes = given(3, "axes", tuple(range(len(starts))))
    steps = given(4, "steps", (1,) * len(starts))
    places = [range(size) for size in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        places[axis % len(shape)] = range(shape[axis])[start:end:step]
    return places


def pad(op: Lowering) -> list[Made]:
    """Pad with a constant."""
    source = op.source.quantization
    given = op.node.input(2)
    value = np.zeros(1, np.float32) if given is None else np.ravel(given.real).astype(np.float32)
    zero = op.spec(op.source).zero_point or 0
    filler = zero if source is None else int(np.ravel(quantize(value, source))[0])
    return op.one("pad", {"pads": pad_widths(op.node), "value": filler}, clamp=False)


def pad_widths(node: Node) -> tuple[int, ...]:
    """Values before and after every axis; opset 2 attributes included."""
    rank, given, chosen = len(node.required(0).dims), node.input(1), node.input(3)
    widths = node.ints("pads", ()) if given is None else tuple(int(v) for v in np.ravel(given.real))
    axes = range(rank) if chosen is None else [int(a) % rank for a in np.ravel(chosen.real)]
    every = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        every[axis], every[axis + rank] = widths[index], widths[index + len(widths) // 2]
    return tuple(every)


def resize(op: Lowering) -> list[Made]:
    """Resize to the nearest value, or linearly."""
    if op.node.text("mode", "nearest") == "nearest":
        rows, columns = nearest_indices(op.node, 2), nearest_indices(op.node, 3)
        return op.one("resize_nearest", {}, {"rows": rows, "columns": columns}, clamp=False)
    constants = {}
    for name, axis in (("rows", 2), ("columns", 3)):
        for end, values in zip(("low", "high", "weight"), linear_weights(op.node, axis), strict=True):
            constants[f"{name}_{end}"] = values
    return op.one("resize_linear", {}, constants, clamp=False)


def depth_to_space(op: Lowering) -> list[Made]:
    """DepthToSpace."""
    mode = int(op.node.text("mode", "DCR") == "CRD")
    return op.one("depth_to_space", {"block": op.node.int("blocksize", 1), "columns_first": mode}, clamp=False)


def space_to_depth(op: Lowering) -> list[Made]:
    """SpaceToDepth."""
    return op.one("space_to_depth", {"block": op.node.int("blocksize", 1)}, clamp=False)
