"""Weights: which constants are quantized as such, along which axis, and with which scales."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.view import Graph, Node
from pipeline.graph.weighted import WEIGHTED, channel_axis
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding, computed_in
from pipeline.quantize.scheme import Scheme

BIAS_LIMIT = 2**30  # a bias must leave room in the int32 accumulator for the products
SMALLEST_PRODUCT = float(np.finfo(np.float32).tiny) * 2**20
"""No bias has a smaller step, so that it stays a normal float32; it decides for channels without weights."""

CLIPS = tuple(float(c) for c in np.linspace(1.0, 0.5, 26))
"""Shares of the largest weight that a scale may cover."""

Activations = Mapping[str, ActivationEncoding]


def encode(
    graph: Graph, encodings: Encodings, scheme: Scheme, least_error: bool = False
) -> Mapping[str, WeightEncoding]:
    """Symmetric int8 scales of every weight of ``graph``, by its name.

    A weight that serves several operators has one encoding that suits them all: per channel only when all of them take
    that along the same axis, and wide enough for each one's bias.

    Args:
        graph: the float model.
        encodings: those of the activations.
        scheme: what the target takes.
        least_error: whether scales clip where that lowers the squared error; else they cover all values.

    Raises:
        ModelError: a weight or a bias holds values that are not finite.
    """
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if has_weight(node, encodings.activations):
            users.setdefault(node.required(1).name, []).append(node)
    steps = {n.name: source_encoding(graph, n, encodings).scale for nodes in users.values() for n in nodes}
    return {name: _encode(nodes, steps, scheme, least_error) for name, nodes in users.items()}


def source_encoding(graph: Graph, node: Node, encodings: Encodings) -> ActivationEncoding:
    """How ``node``, which has a weight, reads its first input."""
    name = node.required(0).name
    return encodings.read(name, computed_in(graph, node, encodings.activations)) or encodings.activations[name]


def has_weight(node: Node, activations: Activations) -> bool:
    """Whether ``node`` multiplies a quantized activation with a constant float weight."""
    if not node.standard or node.op not in WEIGHTED:
        return False
    source, weight = node.required(0), node.required(1)
    return source.name in activations and weight.constant is not None and weight.constant.dtype == np.float32


def channel_bias(node: Node) -> NDArray[np.float64] | None:
    """The bias of ``node``, one value per output channel; ``None`` when it has none, or none of that form."""
    bias = node.input(2)
    if bias is None or bias.constant is None:
        return None
    shape = node.required(1).dims
    axis = channel_axis(node)
    channels = shape[1] * node.int("group", 1) if axis is None else shape[axis]
    values = bias.real.astype(np.float64)
    if values.size != 1 and (values.size != channels or values.shape[-1] != channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,))


def _encode(nodes: Sequence[Node], sources: Mapping[str, float], scheme: Scheme, least_error: bool) -> WeightEncoding:
    axes = {channel_axis(n) if scheme.per_channel.get(n.op, False) else None for n in nodes}
    axis = axes.pop() if len(axes) == 1 else None
    values = nodes[0].required(1).real.astype(np.float64)
    if not np.isfinite(values).all():
        raise ModelError("the weight holds values that are not finite", where=nodes[0].name, fix="check the checkpoint")
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    steps = _least_error(rows) if least_error else np.abs(rows).max(axis=1) / 127
    floors = [_bias_floor(node, sources[node.name], axis) for node in nodes]
    finest = min(1.0, *(sources[node.name] for node in nodes))
    scales = np.max([steps, np.full(steps.shape, SMALLEST_PRODUCT / finest), *floors], axis=0)
    return WeightEncoding(tuple(scheme.scale(s) for s in scales), axis)


def _least_error(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of ``rows`` [channels, values] the scale, of ``CLIPS`` that cut more and more, with least error."""
    whole = np.abs(rows).max(axis=1) / 127
    steps = whole[:, None] * np.array(CLIPS)
    safe = np.maximum(steps, SMALLEST_PRODUCT)
    errors = [
        ((np.clip(np.rint(rows / step[:, None]), -127, 127) * step[:, None] - rows) ** 2).sum(axis=1) for step in safe.T
    ]
    best: NDArray[np.float64] = np.take_along_axis(steps, np.argmin(errors, axis=0)[:, None], axis=1)[:, 0]
    return best


def _bias_floor(node: Node, source: float, axis: int | None) -> NDArray[np.float64]:
    """The smallest weight scales with which the bias still fits int32: ``|bias| / (s_x * s_w) <= BIAS_LIMIT``."""
    bias = channel_bias(node)
    if bias is None:
        return np.zeros(1) if axis is None else np.zeros(node.required(1).dims[axis])
    if not np.isfinite(bias).all():
        raise ModelError("the bias holds values that are not finite", where=node.name, fix="check the checkpoint")
    floor = np.abs(bias) / (source * BIAS_LIMIT)
    return floor.max().reshape(1) if axis is None else floor
