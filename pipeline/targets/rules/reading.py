"""What rules read of an operator: its sizes with ONNX's defaults filled in, tolerant of shapes that are not known."""

import math
from collections.abc import Callable

import numpy as np

from pipeline.graph.view import Node, Tensor
from pipeline.targets.profile import Limits

Rule = Callable[[Node, Limits], str | None]
"""A rule: the fact about the node that violates it, or ``None``."""

GLOBAL = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
"""Pooling whose kernel is the whole map."""

INDICES = {"Gather": 1, "Where": 0}
"""Inputs that by definition hold no real numbers: positions, conditions."""

POSITIONS = frozenset({"ArgMax", "ArgMin"})
"""Operators whose outputs by definition are positions."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Operators whose tensors begin with time, then directions where there are any, then the batch."""

DEFAULT_AXES = {"ArgMax": 0, "ArgMin": 0, "Split": 0, "Gather": 0, "Flatten": 1}
"""ONNX's axis where the operator does not say; elsewhere the last."""


def number(limits: Limits, name: str) -> float:
    """The limit ``name``, a number."""
    value = limits[name]
    return float(value[0] if isinstance(value, tuple) else value)


def choices(limits: Limits, name: str) -> tuple[int | float | str, ...]:
    """The limit ``name``, a list."""
    value = limits[name]
    return value if isinstance(value, tuple) else (value,)


def shown(tensor: Tensor) -> list[int | None]:
    """The tensor's shape as facts show it."""
    return list(tensor.shape or ())


def size(tensor: Tensor, axis: int) -> int:
    """The tensor's size along ``axis``; 0 when it is not known or there is no such axis."""
    shape = tensor.shape or ()
    return (shape[axis] or 0) if -len(shape) <= axis < len(shape) else 0


def spatial(tensor: Tensor) -> tuple[int, ...]:
    """Height and width (all dimensions behind the channels), 0 for one that is not known."""
    return tuple(d or 0 for d in (tensor.shape or ())[2:])


def elements(shape: tuple[int | None, ...]) -> int:
    """The number of elements, those of unknown dimensions counted as 1."""
    return math.prod(d for d in shape if d is not None)


def data(node: Node) -> tuple[Tensor, ...]:
    """The tensors computed at run time that hold data: not positions or conditions."""
    skipped = node.input(INDICES.get(node.op, -1)) if node.op in INDICES else None
    made = () if node.op in POSITIONS else node.outputs
    return (*(t for t in node.activations if t is not skipped), *made)


def kernel(node: Node) -> tuple[int, ...]:
    """The kernel: of the attribute, the weight, or the whole map of a global pool."""
    if node.op in GLOBAL:
        return spatial(node.required(0))
    weight = node.input(1)
    return node.ints("kernel_shape", () if weight is None else spatial(weight))


def per_axis(node: Node, name: str) -> tuple[int, ...]:
    """Strides or dilations, 1 where the node has none."""
    return node.ints(name, (1,) * (len(kernel(node)) or 2))


def padding(node: Node) -> tuple[int, ...]:
    """Padding before every spatial axis, then behind; ``auto_pad`` resolved where the input's size is known."""
    count = len(kernel(node)) or 2
    mode = node.text("auto_pad", "NOTSET")
    if not mode.startswith("SAME") or node.op == "ConvTranspose":
        return node.ints("pads", (0,) * (2 * count))
    window = zip(
        spatial(node.required(0)), kernel(node), per_axis(node, "strides"), per_axis(node, "dilations"), strict=False
    )
    totals = [max((-(-s // step) - 1) * step + (k - 1) * dilation + 1 - s, 0) for s, k, step, dilation in window]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*small, *large) if mode == "SAME_UPPER" else (*large, *small)


def axis(node: Node) -> int:
    """The axis that the operator works along, from 0."""
    rank = len((node.input(0) or node.outputs[0]).shape or ()) or 1
    return node.int("axis", DEFAULT_AXES.get(node.op, -1)) % rank


def reduced(node: Node) -> tuple[int, ...]:
    """The axes that a reduction is over, from 0; all of them when it names none, and none when that means nothing."""
    given = node.input(1)
    rank = len(node.required(0).shape or ()) or 1
    if given is not None and given.constant is not None:
        axes = tuple(int(a) % rank for a in np.ravel(given.constant))
    else:
        axes = tuple(a % rank for a in node.ints("axes", ()))
    return axes if axes or node.int("noop_with_empty_axes", 0) else tuple(range(rank))


def channels(node: Node) -> int:
    """The channels of the first input, 0 when they are not known."""
    return size(node.required(0), 1)


def batch(node: Node, tensor: Tensor) -> int:
    """The batch size of ``tensor``, 1 where it is not known or there is none; recurrent layers have theirs second."""
    if node.op in RECURRENT:
        return size(node.required(0), 0 if node.int("layout", 0) else 1) or 1
    return size(tensor, 0) or 1 if len(tensor.shape or ()) > 1 else 1


def depthwise(node: Node) -> bool:
    """Whether a convolution has one group per input channel, and more than one."""
    group = node.int("group", 1)
    return group > 1 and group == channels(node)
