"""Weight scales that make a layer's factor one over an integer that suits the contract's rounding.

A layer multiplies its accumulator with ``s_x * s_w / s_y``. Where that is ``1 / N``, ``N`` even and not close below a
power of two, rule R1's two roundings are one rounding of a float32 product, so that the simulated NPU runs on a host's
integer kernels (``runtime.npu.steps``), bit for bit. Widening ``s_w`` to the next such ``N`` costs at most ``2 / N`` of
its resolution. The other rules need no alignment.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.graph.fusion import fused_activation
from pipeline.graph.view import Graph, Node
from pipeline.quantize.encodings import Encodings, WeightEncoding
from pipeline.quantize.weights import has_weight
from runtime.npu.contracts import Contract

SMALLEST = 32
"""Below this reciprocal a step of 2 would cost more than a sixteenth of the weight's resolution."""

LARGEST_FRACTION = 1.9
"""Of a reciprocal over the power of two below it; nearer to 2 its steps are not apart enough for float32."""

LARGEST = 1 << 16
"""Above this reciprocal the product of a float32 does not resolve single accumulators."""


def align(graph: Graph, encodings: Encodings, contract: Contract) -> Encodings:
    """``encodings`` with weight scales widened to suit ``contract``; unchanged for a rule that needs nothing.

    A weight that serves several operators keeps its scales.
    """
    if contract.rule not in ("r1", "r3"):
        return encodings
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if has_weight(node, encodings.activations) and node.required(1).name in encodings.weights:
            users.setdefault(node.required(1).name, []).append(node)
    weights: dict[str, WeightEncoding] = dict(encodings.weights)
    for name, nodes in users.items():
        ratio = _ratio(graph, nodes[0], encodings)
        if len(nodes) == 1 and ratio is not None:
            weights[name] = _aligned(encodings.weights[name], ratio)
    return replace(encodings, weights=weights)


def _ratio(graph: Graph, node: Node, encodings: Encodings) -> float | None:
    """``s_y / s_x`` of ``node`` with the clamp that is fused to it; ``None`` where one is not quantized, or int16."""
    clamp = fused_activation(graph, node)
    output = encodings.activations.get((node if clamp is None else clamp).outputs[0].name)
    source = encodings.activations.get(node.required(0).name)
    if output is None or source is None or "int16" in (source.dtype, output.dtype):
        return None
    return output.scale / source.scale


def _aligned(encoding: WeightEncoding, ratio: float) -> WeightEncoding:
    scales = np.array(encoding.scales, np.float64)
    reciprocal = ratio / scales
    wanted = even_reciprocals(reciprocal)
    widened = np.where(wanted > 0, ratio / np.maximum(wanted, 1), scales).astype(np.float32)
    return replace(encoding, scales=tuple(float(s) for s in widened))


def even_reciprocals(reciprocal: NDArray[np.float64]) -> NDArray[np.int64]:
    """The largest suitable even integer up to each of ``reciprocal``; 0 where there is none in reach."""
    even = 2 * np.floor(np.minimum(reciprocal, LARGEST) / 2).astype(np.int64)
    power = 2 ** np.floor(np.log2(np.maximum(even, 1))).astype(np.int64)
    top = 2 * np.floor(power * LARGEST_FRACTION / 2).astype(np.int64)
    fitted = np.minimum(even, top)
    fitted = np.where(fitted == power, 2 * np.floor(power / 2 * LARGEST_FRACTION / 2).astype(np.int64), fitted)
    inside = (reciprocal >= SMALLEST) & (reciprocal <= LARGEST) & (fitted >= SMALLEST)
    return np.where(inside, fitted, 0)
