"""Rules about operators that move data: Concat, Split, Slice, Pad, Squeeze, Transpose, Gather."""

from collections.abc import Callable

import numpy as np

from pipeline.graph.view import Node
from pipeline.targets.profile import Limits
from pipeline.targets.rules.reading import axis, choices, number, shown, size


def concat_constant(node: Node, limits: Limits) -> str | None:
    """Concat with a constant takes exactly two inputs, and the constant must be all zeros."""
    constants = [t for t in node.inputs if t is not None and t.constant is not None]
    if not constants:
        return None
    if len(node.inputs) != 2:
        return f"it has {len(node.inputs)} inputs, of which {constants[0].name} is constant"
    nonzero = [t.name for t in constants if np.any(t.real != 0)]
    return f"{nonzero[0]} is not all zeros" if nonzero else None


def concat_aligned(node: Node, limits: Limits) -> str | None:
    """Unless every input has a multiple of {multiple} channels, there may be at most {channels} in all."""
    counts = [size(t, 1) for t in node.inputs if t is not None]
    aligned = all(c % int(number(limits, "multiple")) == 0 for c in counts)
    return None if aligned or sum(counts) <= number(limits, "channels") else f"it joins {sum(counts)} channels"


def split_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be split."""
    return f"it splits axis {node.int('axis', 0)}" if axis(node) == 0 else None


def slice_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be sliced."""
    cut = size(node.required(0), 0) != size(node.outputs[0], 0)
    return f"it cuts {shown(node.required(0))} to {shown(node.outputs[0])}" if cut else None


def slice_steps_one(node: Node, limits: Limits) -> str | None:
    """Slice must take every element, in steps of 1."""
    return _steps(node, lambda step: step == 1)


def slice_steps_forward(node: Node, limits: Limits) -> str | None:
    """Slice must take steps of 1 or more."""
    return _steps(node, lambda step: step >= 1)


def _steps(node: Node, fits: Callable[[int], bool]) -> str | None:
    steps = node.input(4)
    if steps is None:
        return None
    if steps.constant is None:
        return f"its steps {steps.name} are computed"
    values = [int(v) for v in np.ravel(steps.constant)]
    return None if all(map(fits, values)) else f"it has steps {values}"


def pad_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be padded."""
    padded = size(node.required(0), 0) != size(node.outputs[0], 0)
    return f"it pads {shown(node.required(0))} to {shown(node.outputs[0])}" if padded else None


def pad_modes(node: Node, limits: Limits) -> str | None:
    """The mode must be one of {modes}."""
    mode = node.text("mode", "constant")
    return None if mode in choices(limits, "modes") else f"its mode is {mode}"


def pad_zero(node: Node, limits: Limits) -> str | None:
    """The value that is padded with must be zero."""
    value = node.input(2)
    if node.text("mode", "constant") != "constant" or value is None:
        return None
    if value.constant is None:
        return f"its value {value.name} is computed"
    return f"it pads with {float(np.ravel(value.real)[0]):g}" if np.any(value.real != 0) else None


def pad_reflection(node: Node, limits: Limits) -> str | None:
    """Reflection takes at most {size} channels and rows, and a width of at most {width}."""
    source = node.required(0)
    large = max(size(source, 1), size(source, 2)) > number(limits, "size") or size(source, 3) > number(limits, "width")
    return f"its input has shape {shown(source)}" if large and node.text("mode", "constant") == "reflect" else None


def leading_ones(node: Node, limits: Limits) -> str | None:
    """Squeeze must remove leading dimensions of 1 only."""
    source, result = node.required(0).shape or (), node.outputs[0].shape or ()
    dropped = source[: len(source) - len(result)]
    kept = all(d == 1 for d in dropped) and source[len(dropped) :] == result
    return None if kept else f"it squeezes {list(source)} to {list(result)}"


def transpose_height_width(node: Node, limits: Limits) -> str | None:
    """Swapping height and width needs a height that {multiple} divides, and height x width below {area}."""
    height, width = size(node.required(0), 2), size(node.required(0), 3)
    bad = height % int(number(limits, "multiple")) != 0 or height * width >= number(limits, "area")
    return _permuted(node, (0, 1, 3, 2), bad)


def transpose_channels_last(node: Node, limits: Limits) -> str | None:
    """Moving the channels last needs fewer than {channels} of them, and height x width that {multiple} divides."""
    depth, height, width = (size(node.required(0), i) for i in (1, 2, 3))
    bad = depth >= number(limits, "channels") or height * width % int(number(limits, "multiple")) != 0
    return _permuted(node, (0, 2, 3, 1), bad)


def transpose_channels_first(node: Node, limits: Limits) -> str | None:
    """Moving the last axis before the channels needs it, height x it and height x channels all below {size}."""
    depth, height, width = (size(node.required(0), i) for i in (1, 2, 3))
    bad = max(width, height * width, height * depth) >= number(limits, "size")
    return _permuted(node, (0, 3, 1, 2), bad)


def _permuted(node: Node, order: tuple[int, ...], bad: bool) -> str | None:
    return f"its input has shape {shown(node.required(0))}" if bad and node.ints("perm", ()) == order else None


def gather_index_rank(node: Node, limits: Limits) -> str | None:
    """The index must have {rank} dimension."""
    found = len(node.required(1).shape or ())
    return None if found == number(limits, "rank") else f"it has {found}"
