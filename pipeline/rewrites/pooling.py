"""Pooling: global to windowed and back, to depthwise convolutions, and large windows in two steps."""

import numpy as np
import onnx_ir as ir

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, single
from pipeline.rewrites.reading import (
    Builder,
    constant,
    dims,
    floats,
    given,
    integers,
    ints,
    is_plain_window,
    source,
    window,
)
from pipeline.rewrites.rule import Rule

LARGE = 8
"""Largest window of a pooling that is left alone, elements per side: NVDLA's limit, and Ethos-U's with padding."""


def _is_image(node: ir.Node) -> bool:
    return len(dims(source(node))) == 4


def _size(node: ir.Node) -> tuple[int, int]:
    """Height and width of the input."""
    return dims(source(node))[2], dims(source(node))[3]


def _means_image(node: ir.Node) -> bool:
    """Whether a ReduceMean takes the mean over height and width of an image."""
    if not _is_image(node):
        return False
    stated = constant(given(node, 1))
    axes = ints(node, "axes", ()) if stated is None else tuple(int(a) for a in stated.ravel())
    return sorted(a % 4 for a in axes) == [2, 3] and (stated is not None or given(node, 1) is None)


def _mean_to_global(op: Builder, node: ir.Node) -> ir.Value:
    pooled = op.op("GlobalAveragePool", source(node))
    return pooled if node.attributes.get_int("keepdims", 1) else op.op("Flatten", pooled, axis=1)


def _global_to_mean(op: Builder, node: ir.Node) -> ir.Value:
    graph = node.graph
    if graph is not None and graph.opset_imports.get("", 0) >= 18:
        return op.op("ReduceMean", source(node), integers(op, [2, 3], f"{node.name}.axes"), keepdims=1)
    return op.op("ReduceMean", source(node), axes=[2, 3], keepdims=1)


def _global_to_window(op: Builder, node: ir.Node) -> ir.Value:
    return op.op("AveragePool", source(node), kernel_shape=list(_size(node)))


def _covers_image(node: ir.Node) -> bool:
    """Whether the only window of an AveragePool is the whole image."""
    kernel, _, pads = window(node)
    return _is_image(node) and is_plain_window(node) and not any(pads) and kernel == _size(node)


def _window_to_global(op: Builder, node: ir.Node) -> ir.Value:
    return op.op("GlobalAveragePool", source(node))


def _counts_alike(node: ir.Node) -> bool:
    """Whether every window of an AveragePool divides by the same number."""
    if not _is_image(node) or not is_plain_window(node):
        return False
    return not any(window(node)[2]) or node.attributes.get_int("count_include_pad", 0) == 1


def _depthwise(op: Builder, node: ir.Node) -> ir.Value:
    """Each channel convolved with a window of equal weights."""
    channels = dims(source(node))[1]
    kernel, strides, pads = window(node)
    kernel = kernel or _size(node)
    weight = floats(op, np.full((channels, 1, *kernel), 1 / np.prod(kernel)), f"{node.name}.weight")
    return op.op(
        "Conv", source(node), weight, group=channels, kernel_shape=list(kernel), strides=list(strides), pads=list(pads)
    )


def _factor(size: int) -> int:
    """The divisor of ``size`` for the first of two steps: the largest up to ``LARGE``; 1 where there is none."""
    return max(d for d in range(1, LARGE + 1) if size % d == 0)


def _steps(node: ir.Node) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Windows of two poolings, each as its stride, that make the one of ``node``; ``None`` where there are none."""
    kernel, strides, pads = window(node)
    size = _size(node)
    kernel = kernel or size
    apart = all(k in (n, s) for k, n, s in zip(kernel, size, strides, strict=True))
    first = tuple(_factor(k) if k > LARGE else 1 for k in kernel)
    if any(pads) or not apart or max(first) == 1:
        return None
    return (first[0], first[1]), (kernel[0] // first[0], kernel[1] // first[1])


def _splits(node: ir.Node) -> bool:
    return _is_image(node) and is_plain_window(node) and _steps(node) is not None


def _split(op: Builder, node: ir.Node) -> ir.Value:
    steps = _steps(node)
    assert steps is not None
    value = source(node)
    for step in steps:
        value = op.op("AveragePool", value, kernel_shape=list(step), strides=list(step))
    return value


def _is_large_maximum(node: ir.Node) -> bool:
    """Whether a MaxPool has a window above ``LARGE`` and its padding is smaller than the first of two steps."""
    if not _is_image(node) or not is_plain_window(node) or len(node.outputs) != 1:
        return False
    kernel, _, pads = window(node)
    first = [min(k, LARGE) for k in kernel]
    return max(kernel) > LARGE and all(p < f for p, f in zip(pads, first * 2, strict=True))


def _cascade(op: Builder, node: ir.Node) -> ir.Value:
    """Two MaxPools whose windows overlap: sizes a, then k - a + 1, make one of size k."""
    kernel, strides, pads = window(node)
    first = [min(k, LARGE) for k in kernel]
    second = [k - f + 1 for k, f in zip(kernel, first, strict=True)]
    value = op.op("MaxPool", source(node), kernel_shape=first, pads=list(pads))
    return op.op("MaxPool", value, kernel_shape=second, strides=list(strides))


MEAN_TO_GLOBAL = Rule(
    "reduce-mean-to-global-average-pool",
    Kind.EXACT,
    "ReduceMean over height and width becomes GlobalAveragePool, and Flatten where the dimensions are dropped.",
    Patterns((single("ReduceMean", _means_image, _mean_to_global),)),
)
GLOBAL_TO_MEAN = Rule(
    "global-average-pool-to-reduce-mean",
    Kind.EXACT,
    "GlobalAveragePool becomes ReduceMean over height and width.",
    Patterns((single("GlobalAveragePool", _is_image, _global_to_mean),)),
)
GLOBAL_TO_AVERAGE = Rule(
    "global-average-pool-to-average-pool",
    Kind.EXACT,
    "GlobalAveragePool becomes an AveragePool whose window is the whole image.",
    Patterns((single("GlobalAveragePool", _is_image, _global_to_window),)),
)
AVERAGE_TO_GLOBAL = Rule(
    "average-pool-to-global-average-pool",
    Kind.EXACT,
    "AveragePool whose window is the whole image becomes GlobalAveragePool.",
    Patterns((single("AveragePool", _covers_image, _window_to_global),)),
)
AVERAGE_TO_DEPTHWISE = Rule(
    "average-pool-to-depthwise-conv",
    Kind.EXACT,
    "AveragePool and GlobalAveragePool become a depthwise Conv with equal weights, for NPUs without pooling.",
    Patterns((single("AveragePool", _counts_alike, _depthwise), single("GlobalAveragePool", _is_image, _depthwise))),
)
SPLIT_AVERAGE = Rule(
    "split-average-pool",
    Kind.EXACT,
    f"AveragePool or GlobalAveragePool with a window above {LARGE} becomes two with smaller windows.",
    Patterns((single("AveragePool", _splits, _split), single("GlobalAveragePool", _splits, _split))),
)
CASCADE_MAX = Rule(
    "cascade-max-pool",
    Kind.EXACT,
    f"MaxPool with a window above {LARGE} becomes two with smaller windows.",
    Patterns((single("MaxPool", _is_large_maximum, _cascade),)),
)
