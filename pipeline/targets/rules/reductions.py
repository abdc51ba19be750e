"""Rules about reductions and ArgMax."""

from pipeline.graph.view import Node
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import axis, channels, elements, number, reduced, shown, size


def reduce_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be reduced."""
    axes = reduced(node)
    return f"it reduces axes {list(axes)}" if 0 in axes else None


def reduce_depth_multiple(node: Node, limits: Limits) -> str | None:
    """A reduction over the channels needs a multiple of {multiple} of them."""
    bad = 1 in reduced(node) and (channels(node) == 0 or channels(node) % int(number(limits, "multiple")) != 0)
    return f"it reduces {channels(node)} channels" if bad else None


def reduced_axis_size(node: Node, limits: Limits) -> str | None:
    """Each axis that is reduced must be shorter than {size}."""
    sizes = [size(node.required(0), a) for a in reduced(node)]
    return f"it reduces sizes {sizes}" if max(sizes, default=0) >= number(limits, "size") else None


def reduced_elements(node: Node, limits: Limits) -> str | None:
    """At most {int8} elements may be averaged as int8, {uint8} as uint8, {int16} as int16."""
    source = node.required(0)
    kind = "int8" if source.quantization is None else source.quantization.dtype
    count = elements(tuple(size(source, a) for a in reduced(node)))
    large = kind in limits and count > number(limits, kind)
    return f"it averages {count} as {kind}" if large else None


def reduced_depth(node: Node, limits: Limits) -> str | None:
    """The channels may only be reduced where height, width or channels are 1."""
    source = node.required(0)
    bad = 1 in reduced(node) and len(source.shape or ()) == 4 and 1 not in (source.shape or ())[1:]
    return f"its input has shape {shown(source)}" if bad else None


def argmax_depth(node: Node, limits: Limits) -> str | None:
    """It must be over the channels, of which there are at most {depth}."""
    rank = len(node.required(0).shape or ())
    depth_axis = 1 if rank in (2, 4) else rank - 1
    if axis(node) != depth_axis:
        return f"it is along axis {axis(node)}"
    depth = size(node.required(0), depth_axis)
    return None if depth <= number(limits, "depth") else f"it is over {depth}"
