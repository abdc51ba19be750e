"""Bias correction: what rounding shifts on average is taken off the biases.

Fast: from the float inputs' channel means and the weights' rounding alone (Nagel et al., ICCV 2019, section 4.2). Full:
from the engine's own outputs, layer by layer, each seeing the corrections before it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.view import Graph, Node
from pipeline.quantize.addends import behind, of_step
from pipeline.quantize.calibrate import Channels
from pipeline.quantize.encodings import Encodings
from pipeline.quantize.qdq import round_weight
from pipeline.quantize.rounding import error, layer, whole_bias
from pipeline.quantize.walk import Step, as_real
from pipeline.quantize.weights import channel_bias

Values = NDArray[np.float64]

FEWEST_ALIVE = 0.1
"""A channel that is clamped in more than nine of ten places is corrected as if in nine."""


def expected_shifts(graph: Graph, encodings: Encodings, channels: Mapping[str, Channels]) -> Mapping[str, Values]:
    """What rounding a layer's weights adds to each output channel on average, by the operator with its bias: [O].

    Only layers with a bias and constant weights have an entry; that of a MatMul is in the Add behind it. A weight's
    error is taken at every place alike, so padding counts as if it were the channel's mean.
    """
    shifts = {}
    for node in graph.nodes:
        source, weight = node.input(0), node.input(1)
        known = source is not None and weight is not None and weight.name in encodings.weights
        if not known or source is None or weight is None:
            continue
        seen, held = channels.get(source.name), _held(graph, node)
        if seen is not None and held is not None:
            shifts[held.name] = _shift(node, encodings, seen)
    return shifts


def _held(graph: Graph, node: Node) -> Node | None:
    """The operator with the bias of ``node``: itself, or the Add behind a MatMul; ``None`` when it has none."""
    if node.op in ("Conv", "Gemm"):
        return None if channel_bias(node) is None else node
    # The channels of statistics are the last axis of all but images.
    return behind(graph, node) if len(node.required(0).shape or ()) < 4 else None


def _shift(node: Node, encodings: Encodings, seen: Channels) -> Values:
    weight = node.required(1)
    encoding = encodings.weights[weight.name]
    scales = np.array(encoding.scales, np.float64)
    values = weight.real.astype(np.float64)
    along = [1] * values.ndim
    if encoding.axis is not None:
        along[encoding.axis] = -1
    change = round_weight(weight.real, encoding) * scales.reshape(along) - values
    if node.op in ("Gemm", "MatMul"):
        change = change if node.op == "Gemm" and node.int("transB", 0) else change.T
        return np.asarray(change @ seen.mean)
    groups = node.int("group", 1)
    summed = change.reshape(groups, change.shape[0] // groups, change.shape[1], -1).sum(axis=3)
    return np.asarray(np.einsum("goi,gi->go", summed, seen.mean.reshape(groups, -1)).reshape(-1))


def correct(step: Step, learn: int) -> bool:
    """Shift the biases of ``step`` by the mean error of its outputs on its first ``learn`` images; whether kept.

    An Add's constant per channel is a bias too. It is kept under the same condition as ``rounding.compensate``.
    """
    own, added = layer(step), of_step(step)
    if added is None and (own is None or not own.biased):
        return False
    before = error(step, learn)
    shift = _mean_error(step, learn)
    if added is not None:
        old, new = {"value": added.integers}, {"value": added.shifted(shift)}
    elif own is not None:
        old, new = {"bias": own.bias}, {"bias": whole_bias(own.bias + shift / own.products)}
    step.replace(new)
    if error(step, learn) < before:
        return True
    step.replace(old)
    return False


def _mean_error(step: Step, learn: int) -> Values:
    """By how much the outputs of ``step`` are too small on its first ``learn`` images, per channel not clamped: [O]."""
    (wire, name), *_ = step.outputs()
    real = np.stack([values[name] for values in step.reals[:learn]]).astype(np.float64)
    found = as_real(step.engine, wire, step.results()[:learn]).astype(np.float64)
    axis = 2 if step.unit.nodes[0].op == "Conv" else real.ndim - 1
    others = tuple(a for a in range(real.ndim) if a != axis)
    moving = (found > found.min(axis=others, keepdims=True)) & (found < found.max(axis=others, keepdims=True))
    alive = np.maximum(moving.mean(axis=others), FEWEST_ALIVE)
    return np.asarray((real - found).mean(axis=others) / alive)
