"""Rules about pooling."""

from pipeline.graph.view import Node
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import kernel, number, padding, per_axis, shown, size, spatial


def average_counts_padding(node: Node, limits: Limits) -> str | None:
    """AveragePool must count its padding."""
    left_out = any(padding(node)) and not node.int("count_include_pad", 0)
    return "its count_include_pad is 0 and it is padded" if left_out else None


def explicit_padding(node: Node, limits: Limits) -> str | None:
    """Padding must be given in numbers, without auto_pad."""
    mode = node.text("auto_pad", "NOTSET")
    return None if mode in ("NOTSET", "") else f"its auto_pad is {mode}"


def no_ceil_mode(node: Node, limits: Limits) -> str | None:
    """The output size must be rounded down, without ceil_mode."""
    return "its ceil_mode is 1" if node.int("ceil_mode", 0) else None


def padded_kernel(node: Node, limits: Limits) -> str | None:
    """A padded pool must have a kernel of at most {size} in each direction."""
    window, pads = kernel(node), padding(node)
    large = any(pads) and max(window, default=0) > number(limits, "size")
    return f"it has kernel {list(window)} and padding {list(pads)}" if large else None


def stride_within_kernels(node: Node, limits: Limits) -> str | None:
    """Strides must be at most {times} x the kernel."""
    window, strides = kernel(node), per_axis(node, "strides")
    small = all(s <= number(limits, "times") * k for s, k in zip(strides, window, strict=False))
    return None if small else f"it has kernel {list(window)} and strides {list(strides)}"


def average_buffer(node: Node, limits: Limits) -> str | None:
    """Kernel height x kernel width x 32 + input width x (31 x stride + kernel width) must be at most {size}."""
    window, strides, width = kernel(node), per_axis(node, "strides"), size(node.required(0), -1)
    if len(window) != 2:
        return f"it has kernel {list(window)}"
    used = window[0] * window[1] * 32 + width * (31 * strides[0] + window[1])
    return None if used <= number(limits, "size") else f"it takes {used}"


def pool_buffer(node: Node, limits: Limits) -> str | None:
    """The kernel must be smaller than {size} / (input width / ({lanes} x stride) x stride)."""
    window, width = kernel(node), size(node.required(0), -1)
    stride = per_axis(node, "strides")[-1]
    bound = number(limits, "size") / max(width / (number(limits, "lanes") * stride) * stride, 1e-9)
    return None if max(window, default=0) < bound else f"it has kernel {list(window)} where the bound is {bound:g}"


def max_map(node: Node, limits: Limits) -> str | None:
    """The map must be at most {size} high and wide."""
    found = spatial(node.required(0))
    return f"its input has shape {shown(node.required(0))}" if max(found, default=0) > number(limits, "size") else None


def max_map_area(node: Node, limits: Limits) -> str | None:
    """The map must have at most {area} elements."""
    found = spatial(node.required(0))
    area = found[0] * found[1] if len(found) == 2 else 0
    return f"its map is {found[0]} x {found[1]}" if area > number(limits, "area") else None
