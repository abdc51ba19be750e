"""What can be said before anything is tried: from the weights, from the statistics, and of detectors' heads."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.compile.support import no_kernel
from pipeline.graph.view import Graph, Node
from pipeline.graph.weighted import WEIGHTED, channel_axis
from pipeline.quantize import weights
from pipeline.quantize.apart import FAR, apart
from pipeline.quantize.calibrate import Calibration, Channels
from pipeline.quantize.encodings import Encodings
from pipeline.quantize.histogram import Histogram
from pipeline.quantize.ptq import FLAT_BEYOND, reach
from runtime.npu.contracts import Contract
from runtime.npu.requantize import SHIFT_MAX, SHIFT_MIN

FLAT_FROM = 2.0
"""Times that an input exceeds what a Sigmoid tells apart before it is worth telling."""

NEVER = "all its values were 0, so it got the narrowest range; calibrate with images that it reacts to, or prune it"
MOST_CHANNELS = 3
"""Channels that are named."""


def of_weights(graph: Graph) -> tuple[str, ...]:
    """What is odd about the weights of a float ``graph``, each a sentence that names the operator.

    Dead channels: those whose weights are all zero, or nearly so beside the others (2**-20 of the largest).
    """
    return tuple(sentence for node in graph.nodes for sentence in _dead(node))


def _dead(node: Node) -> Iterator[str]:
    weight = node.input(1)
    if not node.standard or node.op not in WEIGHTED or weight is None or weight.constant is None:
        return
    axis = channel_axis(node)
    if axis is None or weight.dtype != "float32":
        return
    rows = np.abs(np.moveaxis(weight.real.astype(np.float64), axis, 0)).reshape(weight.dims[axis], -1).max(axis=1)
    dead = np.flatnonzero(rows <= 2.0**-20 * rows.max())
    if dead.size:
        what = f"{node.name} has {dead.size} of {len(rows)} output channels without weights: {_some(dead)}"
        yield f"{what}; they cost time and tell nothing: prune them"


def of_statistics(graph: Graph, calibration: Calibration) -> tuple[str, ...]:
    """What is odd about the activations of a float ``graph``, each a sentence that names the tensor.

    Activations that never fire; channels far beyond the others of a tensor; tensors of unlike size that must share a
    scale because a Concat or its like joins them; Sigmoids whose input is flat nearly everywhere.
    """
    seen = calibration.histograms
    never = [name for name, h in seen.items() if h.low == h.high == 0.0]
    return (
        *(f"{name} never fires: {NEVER}" for name in never),
        *_narrow(graph, seen),
        *_joined(graph, seen),
        *_flat(graph, seen),
        *_outliers(calibration.channels),
    )


def _narrow(graph: Graph, seen: Mapping[str, Histogram]) -> Iterator[str]:
    """Activations so small beside what they are made of that no multiplier gives them 256 levels."""
    for name, least in reach(graph, seen).items():
        levels = 256 * seen[name].width / least
        yield (
            f"{name} spans {seen[name].width:.2g}, less than a multiplier reaches from its inputs: it keeps "
            f"{levels:.0f} levels of 256; look for a weight or a normalization that shrinks it"
        )


def _joined(graph: Graph, seen: Mapping[str, Histogram]) -> Iterator[str]:
    """Concats whose inputs differ so much that the smaller ones lose most of their levels."""
    split = apart(graph, seen)
    for node in graph.nodes:
        if node.op != "Concat" or not node.standard:
            continue
        sizes = {t.name: seen[t.name].largest for t in node.activations if t.name in seen}
        alive = {name: size for name, size in sizes.items() if size > 0}
        if len(alive) < 2 or max(alive.values()) < FAR * min(alive.values()):
            continue
        largest, smallest = max(alive, key=alive.__getitem__), min(alive, key=alive.__getitem__)
        ratio = alive[largest] / alive[smallest]
        if node.outputs[0].name in split:
            yield (
                f"{node.name} (Concat) joins {largest} and {smallest}, which is {ratio:.0f} times smaller: each keeps "
                "its own scale, and the join is made in float, behind the NPU; outputs of their own would need no join"
            )
            continue
        yield (
            f"{node.name} (Concat) gives {largest} and {smallest} one scale, though the first is {ratio:.0f} times as "
            "large: make them outputs of their own, or scale one of them in training"
        )


def _flat(graph: Graph, seen: Mapping[str, Histogram]) -> Iterator[str]:
    """Sigmoids and their like whose input reaches far beyond what their output tells apart."""
    for node in graph.nodes:
        source, limit = node.input(0), FLAT_BEYOND.get(node.op)
        if limit is None or not node.standard or source is None or source.name not in seen:
            continue
        size = seen[source.name].largest
        if size <= FLAT_FROM * limit:
            continue
        alone = all(n.op == node.op for n in graph.consumers(source.name)) and not graph.is_output(source.name)
        done = f"its range was cut to {limit:g}" if alone else "others read it too, so its range stays"
        yield f"{source.name} reaches {size:.0f}, {node.name} ({node.op}) tells nothing apart beyond {limit:g}: {done}"


def _outliers(channels: Mapping[str, Channels]) -> Iterator[str]:
    """Tensors with channels far beyond the others, those that are worst first."""
    found: list[tuple[float, str]] = []
    for name, each in channels.items():
        largest = each.largest
        alive = largest[largest > 0]
        far = np.flatnonzero(largest > FAR * np.median(alive)) if alive.size else np.zeros(0, int)
        if far.size:
            ratio = float(largest.max() / np.median(alive))
            said = f"{name} has {far.size} of {len(largest)} channels beyond {FAR:g} times the median: {_some(far)}"
            found.append((ratio, f"{said}; the largest is {ratio:.0f} times it"))
    yield from (sentence for _, sentence in sorted(found, key=lambda pair: (-pair[0], pair[1])))


def of_encodings(graph: Graph, encodings: Encodings) -> tuple[str, ...]:
    """What no integer contract can express, each a sentence that names the operator.

    A bias that fits only because its weight's scale was widened for it (its channel then has fewer levels), and a
    requantization factor whose shift leaves [-31, 30].
    """
    sentences = []
    for node in graph.nodes:
        if weights.has_weight(node, encodings.activations) and node.required(1).name in encodings.weights:
            sentences += [*_widened(node, encodings), *_out_of_range(node, encodings)]
    return tuple(sentences)


def _widened(node: Node, encodings: Encodings) -> Iterator[str]:
    encoding, values = encodings.weights[node.required(1).name], node.required(1).real.astype(np.float64)
    if weights.channel_bias(node) is None:
        return
    first = values if encoding.axis is None else np.moveaxis(values, encoding.axis, 0)
    rows = np.abs(first).reshape(len(encoding.scales), -1).max(axis=1)
    levels = rows / np.array(encoding.scales)
    few = np.flatnonzero((rows > 0) & (levels < 127 / FAR))
    if few.size:
        what = "a bias" if encoding.axis is None else f"{few.size} channels whose bias is"
        which = "" if encoding.axis is None else f": {_some(few)}"
        yield (
            f"{node.name} has {what} so large beside {'its' if encoding.axis is None else 'their'} weights that the "
            f"weights keep fewer than {127 / FAR:.0f} levels{which}; shrink it where it comes from, a batch norm or "
            "an offset of the input"
        )


def _out_of_range(node: Node, encodings: Encodings) -> Iterator[str]:
    output = encodings.activations.get(node.outputs[0].name)
    if output is None:
        return
    source = encodings.read(node.required(0).name, output.dtype) or output
    factors = source.scale * np.array(encodings.weights[node.required(1).name].scales) / output.scale
    exponents = np.frexp(factors)[1]
    if exponents.max() > SHIFT_MAX or exponents.min() < SHIFT_MIN:
        what = f"{node.name} would be rescaled by {factors.min():g} to {factors.max():g}, beyond what a shift can"
        yield f"{what}; give {node.outputs[0].name} a range of its inputs' size: overrides in the recipe"


def of_integers(graph: Graph, contract: Contract) -> tuple[str, ...]:
    """What of a quantized ``graph`` has no integers under ``contract``, each a sentence that names the operator.

    Operators without a kernel, and those whose accumulator the actual weights and bias may overflow.
    """
    reasons = [(node, no_kernel(node, contract)) for node in graph.nodes]
    return tuple(f"{n.name} ({n.op}) will run on the host: {reason}" for n, reason in reasons if reason is not None)


def _some(channels: Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> str:
    named = ", ".join(str(int(c)) for c in channels[:MOST_CHANNELS])
    return f"{named}, ..." if len(channels) > MOST_CHANNELS else named
