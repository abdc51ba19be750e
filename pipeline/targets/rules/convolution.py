"""Rules about convolution and matrix multiplication."""

import numpy as np

from pipeline.graph.view import Node, Tensor
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import (
    channels,
    choices,
    depthwise,
    kernel,
    number,
    padding,
    per_axis,
    shown,
    size,
    spatial,
)

INT8_MAX = 127


def two_spatial_dimensions(node: Node, limits: Limits) -> str | None:
    """There must be two spatial dimensions."""
    shape = node.required(0).shape
    return None if shape is not None and len(shape) == 4 else f"its input has shape {shown(node.required(0))}"


def group_one(node: Node, limits: Limits) -> str | None:
    """Groups must be 1."""
    group = node.int("group", 1)
    return None if group == 1 else f"it has {group} groups"


def group_one_or_depthwise(node: Node, limits: Limits) -> str | None:
    """Groups must be 1 or one per input channel (depthwise)."""
    group = node.int("group", 1)
    return None if group == 1 or depthwise(node) else f"it has {group} groups and {channels(node)} channels"


def max_groups(node: Node, limits: Limits) -> str | None:
    """Groups must be at most {groups}."""
    group = node.int("group", 1)
    return None if group <= number(limits, "groups") else f"it has {group} groups"


def depth_multiplier(node: Node, limits: Limits) -> str | None:
    """There must be {multiplier} output channel per input channel."""
    made = size(node.required(1), 0) / max(channels(node), 1)
    return None if made == number(limits, "multiplier") else f"it has {made:g} output channels per input channel"


def max_output_channels(node: Node, limits: Limits) -> str | None:
    """Output channels must be at most {channels}."""
    made = size(node.outputs[0], 1)
    return None if made <= number(limits, "channels") else f"it has {made} output channels"


def square_dilation(node: Node, limits: Limits) -> str | None:
    """Dilation must be the same in both directions."""
    dilations = per_axis(node, "dilations")
    return None if len(set(dilations)) == 1 else f"it has dilations {list(dilations)}"


def max_dilation(node: Node, limits: Limits) -> str | None:
    """Dilations must be at most {dilation}."""
    dilations = per_axis(node, "dilations")
    return None if max(dilations) <= number(limits, "dilation") else f"it has dilations {list(dilations)}"


def dilation_needs_stride_one(node: Node, limits: Limits) -> str | None:
    """Dilation is only taken with stride 1."""
    dilations, strides = per_axis(node, "dilations"), per_axis(node, "strides")
    both = max(dilations) > 1 and max(strides) > 1
    return f"it has dilations {list(dilations)} and strides {list(strides)}" if both else None


def dilation_needs_kernel_one(node: Node, limits: Limits) -> str | None:
    """Dilation is only taken with a 1x1 kernel."""
    dilations, window = per_axis(node, "dilations"), kernel(node)
    both = max(dilations) > 1 and max(window, default=1) > 1
    return f"it has dilations {list(dilations)} and kernel {list(window)}" if both else None


def max_stride(node: Node, limits: Limits) -> str | None:
    """Strides must be at most {stride}."""
    strides = per_axis(node, "strides")
    return None if max(strides) <= number(limits, "stride") else f"it has strides {list(strides)}"


def stride_one_of(node: Node, limits: Limits) -> str | None:
    """Strides must be one of {strides}."""
    strides = per_axis(node, "strides")
    return None if set(strides) <= set(choices(limits, "strides")) else f"it has strides {list(strides)}"


def large_stride(node: Node, limits: Limits) -> str | None:
    """Strides above {stride} are only taken without dilation and without padding."""
    strides, dilations, pads = per_axis(node, "strides"), per_axis(node, "dilations"), padding(node)
    if max(strides) <= number(limits, "stride") or (max(dilations) == 1 and not any(pads)):
        return None
    return f"it has strides {list(strides)}, dilations {list(dilations)} and padding {list(pads)}"


def max_kernel(node: Node, limits: Limits) -> str | None:
    """The kernel must be at most {height} high, and have at most {area} elements."""
    window = kernel(node)
    tall = bool(window) and window[0] > number(limits, "height")
    large = int(np.prod(window)) > number(limits, "area")
    return f"it has kernel {list(window)}" if tall or large else None


def max_kernel_size(node: Node, limits: Limits) -> str | None:
    """The kernel must be at most {size} in each direction."""
    window = kernel(node)
    return f"it has kernel {list(window)}" if max(window, default=0) > number(limits, "size") else None


def max_dilated_kernel(node: Node, limits: Limits) -> str | None:
    """Kernel and dilation together must be at most {size} in each direction."""
    window, dilations = kernel(node), per_axis(node, "dilations")
    sums = [k + d for k, d in zip(window, dilations, strict=False) if d > 1]
    large = max(sums, default=0) > number(limits, "size")
    return f"it has kernel {list(window)} and dilations {list(dilations)}" if large else None


def kernel_width(node: Node, limits: Limits) -> str | None:
    """The kernel must be {width} wide."""
    window = kernel(node)
    return None if window[-1:] == (int(number(limits, "width")),) else f"it has kernel {list(window)}"


def small_or_long(node: Node, limits: Limits) -> str | None:
    """Kernel and strides must be at most {size} in each direction, or one of {long} by 1."""
    for what, sizes in (("kernel", kernel(node)), ("strides", per_axis(node, "strides"))):
        long = len(sizes) == 2 and sizes[0] in choices(limits, "long") and sizes[1] == 1
        if not long and max(sizes, default=0) > number(limits, "size"):
            return f"it has {what} {list(sizes)}"
    return None


def max_padding(node: Node, limits: Limits) -> str | None:
    """Padding must be at most {padding} on each side."""
    pads = padding(node)
    return None if max(pads, default=0) <= number(limits, "padding") else f"it has padding {list(pads)}"


def padding_below_kernel(node: Node, limits: Limits) -> str | None:
    """Padding must be smaller than the kernel."""
    pads, window = padding(node), kernel(node)
    small = all(p < k for p, k in zip(pads, (*window, *window), strict=False))
    return None if small else f"it has padding {list(pads)} and kernel {list(window)}"


def max_input_width(node: Node, limits: Limits) -> str | None:
    """The input must be at most {width} wide."""
    width = size(node.required(0), -1)
    return None if width <= number(limits, "width") else f"it is {width} wide"


def width_under_tall_kernel(node: Node, limits: Limits) -> str | None:
    """Under a kernel higher than 1, dilation included, the input must be less than {width} wide."""
    window, dilations, width = kernel(node), per_axis(node, "dilations"), size(node.required(0), -1)
    tall = bool(window) and (window[0] - 1) * dilations[0] + 1 > 1
    return f"it is {width} wide and the kernel is {list(window)}" if tall and width >= number(limits, "width") else None


def weight_sum(node: Node, limits: Limits) -> str | None:
    """The absolute int8 weights of an output must sum to at most {sum}."""
    weight = node.input(1)
    if weight is None or weight.constant is None or weight.constant.ndim < 2:
        return None
    rows = _rows(node, weight)
    if rows.shape[1] * INT8_MAX <= number(limits, "sum"):
        return None
    if weight.quantization is None:  # as symmetric int8 with one scale per output
        rows = np.rint(rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) * INT8_MAX)
    else:
        rows = rows - (0 if weight.quantization.per_channel else int(weight.quantization.zero_point))
    largest = int(np.abs(rows).sum(axis=1).max())
    return f"those of {weight.name} sum to {largest}" if largest > number(limits, "sum") else None


def _rows(node: Node, weight: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The weight as one row per output channel."""
    values = np.asarray(weight.constant, np.float64)
    if node.op == "Conv" or (node.op == "Gemm" and node.int("transB", 0)):
        return values.reshape(values.shape[0], -1)
    if node.op == "ConvTranspose":
        return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    return np.swapaxes(values, -1, -2).reshape(-1, values.shape[-2])


def transposed_strides(node: Node, limits: Limits) -> str | None:
    """Strides must be 1 or {stride}, and equal in both directions unless the input is 1 high or 1 wide."""
    strides = per_axis(node, "strides")
    known = set(strides) <= {1, int(number(limits, "stride"))}
    flat = 1 in spatial(node.required(0))
    return None if known and (len(set(strides)) == 1 or flat) else f"it has strides {list(strides)}"


def transposed_output(node: Node, limits: Limits) -> str | None:
    """The output must be input x stride, or input x stride + kernel - stride."""
    window, strides = kernel(node), per_axis(node, "strides")
    sizes = list(zip(spatial(node.required(0)), spatial(node.outputs[0]), strides, window, strict=False))
    same = all(made == given * s for given, made, s, _ in sizes)
    valid = all(made == given * s + k - s for given, made, s, k in sizes)
    return None if same or valid else f"it makes {shown(node.outputs[0])} of {shown(node.required(0))}"


def vector_output(node: Node, limits: Limits) -> str | None:
    """The output must be a vector, with one dimension larger than 1."""
    large = [d for d in node.outputs[0].shape or () if d != 1]
    return None if len(large) <= 1 else f"its output has shape {shown(node.outputs[0])}"


def max_inner_size(node: Node, limits: Limits) -> str | None:
    """The dimension that is summed over must be at most {size}."""
    inner = size(node.required(0), 0 if node.op == "Gemm" and node.int("transA", 0) else -1)
    return None if inner <= number(limits, "size") else f"it sums over {inner}"


def max_columns(node: Node, limits: Limits) -> str | None:
    """The output must have at most {columns} columns."""
    columns = size(node.outputs[0], -1)
    return None if columns <= number(limits, "columns") else f"it has {columns}"
