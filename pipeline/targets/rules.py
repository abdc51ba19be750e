"""Rules: one thing a target demands of an operator, each a function whose docstring is the sentence the user reads.

A rule takes a node and the limits that the target's profile gives it, and returns the fact that violates it, or
``None``. ``{limit}`` in a docstring is filled from those limits. ``RULES`` is the table; a new rule is a function and
a line in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter

import numpy as np

from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Node, Tensor
from pipeline.targets.profile import RuleUse, Target

Limits = Mapping[str, int | float | tuple[int, ...]]
Rule = Callable[[Node, Limits], str | None]


@dataclass(frozen=True)
class Violation:
    """A rule that an operator breaks.

    Attributes:
        rule: its name in ``RULES``, or ``operator`` when the NPU does not have the operator at all.
        sentence: what the target demands.
        fact: what the operator has instead.
    """

    rule: str
    sentence: str
    fact: str

    def __str__(self) -> str:
        """The sentence and the fact, as reports print them."""
        return f"{self.sentence}; {self.fact}"


def violations(node: Node, target: Target) -> tuple[Violation, ...]:
    """Every rule of ``target`` that ``node`` breaks."""
    operator = target.operators.get(node.op) if node.domain in ("", "ai.onnx") else None
    if operator is None:
        domain = f"{node.domain}." if node.domain else ""
        return (Violation("operator", "The NPU must have the operator", f"it has no {domain}{node.op}"),)
    found = (_violation(use, node) for use in (*target.rules, *operator.rules))
    return tuple(v for v in found if v is not None)


def _violation(use: RuleUse, node: Node) -> Violation | None:
    rule = RULES[use.rule]
    fact = rule(node, use.limits)
    return None if fact is None else Violation(use.rule, sentence(use), fact)


def sentence(use: RuleUse) -> str:
    """What the rule demands, with the target's numbers."""
    return _first_line(use.rule).format(**{k: _plain(v) for k, v in use.limits.items()})


def _plain(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def static_shapes(node: Node, limits: Limits) -> str | None:
    """Tensor shapes must be known at compile time."""
    for tensor in _tensors(node):
        if tensor.shape is None or any(d is None for d in tensor.shape):
            return f"{tensor.name} has shape {tensor.shape}"
    return None


def max_rank(node: Node, limits: Limits) -> str | None:
    """Tensors have at most {rank} dimensions larger than 1."""
    for tensor in (*node.activations, *node.outputs):
        large = [d for d in tensor.shape or () if d is not None and d > 1]
        if len(large) > _number(limits, "rank"):
            return f"{tensor.name} has shape {list(tensor.shape or ())}"
    return None


def batch_one(node: Node, limits: Limits) -> str | None:
    """The batch size must be 1."""
    for tensor in (*node.activations, *node.outputs):
        if tensor.shape and len(tensor.shape) > 1 and tensor.shape[0] not in (1, None):
            return f"{tensor.name} has batch size {tensor.shape[0]}"
    return None


def int8_activations(node: Node, limits: Limits) -> str | None:
    """Activations must be real numbers that int8 with one scale per tensor can carry."""
    for tensor in (*node.activations, *node.outputs):
        if tensor.dtype != "float32":
            return f"{tensor.name} is {tensor.dtype}"
        if tensor.quantization is not None and (tensor.quantization.per_channel or tensor.quantization.dtype != "int8"):
            kind = "per channel" if tensor.quantization.per_channel else tensor.quantization.dtype
            return f"{tensor.name} is quantized as {kind}"
    return None


def constant_operands(node: Node, limits: Limits) -> str | None:
    """Every input but the first must be constant."""
    computed = [t.name for t in node.inputs[1:] if t is not None and t.constant is None]
    return f"{', '.join(computed)} is computed" if computed else None


def group_one_or_depthwise(node: Node, limits: Limits) -> str | None:
    """Groups must be 1 or one per input channel (depthwise)."""
    group = node.int("group", 1)
    channels = _channels(node)
    return None if group in (1, channels) else f"it has {group} groups and {channels} channels"


def square_dilation(node: Node, limits: Limits) -> str | None:
    """Dilation must be the same in both directions."""
    dilations = node.ints("dilations", (1, 1))
    return None if len(set(dilations)) == 1 else f"it has dilations {list(dilations)}"


def max_stride(node: Node, limits: Limits) -> str | None:
    """Strides must be at most {stride}."""
    strides = node.ints("strides", (1, 1))
    return None if max(strides) <= _number(limits, "stride") else f"it has strides {list(strides)}"


def max_kernel(node: Node, limits: Limits) -> str | None:
    """The kernel must be at most {height} high, and have at most {area} elements."""
    weight = node.input(1)
    fallback = () if weight is None or weight.shape is None else tuple(d or 0 for d in weight.shape[2:])
    kernel = node.ints("kernel_shape", fallback)
    tall = bool(kernel) and kernel[0] > _number(limits, "height")
    return f"it has kernel {list(kernel)}" if tall or int(np.prod(kernel)) > _number(limits, "area") else None


def two_spatial_dimensions(node: Node, limits: Limits) -> str | None:
    """There must be two spatial dimensions."""
    shape = node.required(0).shape
    return None if shape is not None and len(shape) == 4 else f"its input has shape {_shape(node)}"


def clip_limits(node: Node, limits: Limits) -> str | None:
    """Clip must be one of the activation functions ReLU6 (0 to 6), ReLU (0 and up) or ReLU-N1-to-1 (-1 to 1)."""
    computed = [t.name for t in node.inputs[1:] if t is not None and t.constant is None]
    if computed:
        return f"its limit {computed[0]} is computed"
    low, high = clip_range(node)
    known = (low, high) in ((0.0, 6.0), (-1.0, 1.0)) or (low == 0.0 and high is None)
    return None if known else f"it clips to {low}..{high}"


def softmax_size(node: Node, limits: Limits) -> str | None:
    """Softmax takes a 1-D input of at most {elements} elements."""
    shape = [d for d in node.required(0).shape or () if d != 1]
    fits = len(shape) <= 1 and int(np.prod([d or 0 for d in shape])) <= _number(limits, "elements")
    return None if fits else f"its input has shape {_shape(node)}"


def resize_nearest(node: Node, limits: Limits) -> str | None:
    """Resize must be nearest."""
    mode = node.text("mode", "nearest")
    return None if mode == "nearest" else f"its mode is {mode}"


def resize_factors(node: Node, limits: Limits) -> str | None:
    """Resize must scale height and width by the same factor, one of {factors}."""
    source, result = node.required(0).shape, node.outputs[0].shape
    if source is None or result is None or len(source) != 4 or any(d is None for d in (*source, *result)):
        return f"its input has shape {_shape(node)}"
    factors = {int(r or 0) / int(s or 1) for s, r in zip(source[2:], result[2:], strict=True)}
    allowed = limits["factors"]
    known = len(factors) == 1 and isinstance(allowed, tuple) and next(iter(factors)) in allowed
    return None if known else f"it scales {list(source[2:])} to {list(result[2:])}"


def equal_shapes(node: Node, limits: Limits) -> str | None:
    """All inputs must have the same shape."""
    shapes = [t.shape for t in node.inputs if t is not None]
    return None if len(set(shapes)) <= 1 else f"they have {' and '.join(str(list(s or ())) for s in shapes)}"


def concat_axis(node: Node, limits: Limits) -> str | None:
    """Concat must be along axis {axis}."""
    axis = node.int("axis", 0)
    rank = len(node.outputs[0].shape or ())
    return None if axis % max(rank, 1) == _number(limits, "axis") else f"it is along axis {axis}"


def reduce_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be reduced."""
    axes = _axes(node)
    if not axes:
        return None if node.int("noop_with_empty_axes", 0) else "it reduces every axis"
    return f"it reduces axes {list(axes)}" if 0 in axes else None


def reduce_depth_multiple(node: Node, limits: Limits) -> str | None:
    """A reduction over the channels needs a multiple of {multiple} of them."""
    shape = node.required(0).shape or ()
    depth = shape[1] if len(shape) > 1 else None
    bad = 1 in _axes(node) and (depth is None or depth % int(_number(limits, "multiple")) != 0)
    return f"it reduces {depth} channels" if bad else None


def prelu_innermost(node: Node, limits: Limits) -> str | None:
    """PRelu's slope must be a constant with one value per channel."""
    slope = node.required(1)
    if slope.constant is None:
        return f"its slope {slope.name} is computed"
    rank, shape = len(node.required(0).shape or ()), slope.constant.shape
    elsewhere = [i for i, size in enumerate(shape) if size != 1 and i + rank - len(shape) != 1]
    return f"its slope has shape {list(shape)}" if elsewhere else None


def concat_constant(node: Node, limits: Limits) -> str | None:
    """Concat with a constant takes exactly two inputs, and the constant must be all zeros."""
    constants = [t for t in node.inputs if t is not None and t.constant is not None]
    if not constants:
        return None
    if len(node.inputs) != 2:
        return f"it has {len(node.inputs)} inputs, of which {constants[0].name} is constant"
    nonzero = [t.name for t in constants if np.any(t.real != 0)]
    return f"{nonzero[0]} is not all zeros" if nonzero else None


def split_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be split."""
    rank = len(node.required(0).shape or ()) or 1
    return f"it splits axis {node.int('axis', 0)}" if node.int("axis", 0) % rank == 0 else None


def slice_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be sliced."""
    source, result = node.required(0).shape, node.outputs[0].shape
    cut = bool(source and result) and source[0] != result[0]  # type: ignore[index]
    return f"it cuts {_shape(node)} to {list(result or ())}" if cut else None


def slice_steps_one(node: Node, limits: Limits) -> str | None:
    """Slice must take every element, in steps of 1."""
    steps = node.input(4)
    if steps is None:
        return None
    if steps.constant is None:
        return f"its steps {steps.name} are computed"
    values = [int(v) for v in np.ravel(steps.constant)]
    return None if set(values) <= {1} else f"it has steps {values}"


def pad_keeps_batch(node: Node, limits: Limits) -> str | None:
    """The batch dimension must not be padded."""
    source, result = node.required(0).shape, node.outputs[0].shape
    padded = bool(source and result) and source[0] != result[0]  # type: ignore[index]
    return f"it pads {_shape(node)} to {list(result or ())}" if padded else None


def leading_ones(node: Node, limits: Limits) -> str | None:
    """Squeeze must remove leading dimensions of 1 only."""
    source, result = node.required(0).shape or (), node.outputs[0].shape or ()
    dropped = source[: len(source) - len(result)]
    kept = all(d == 1 for d in dropped) and source[len(dropped) :] == result
    return None if kept else f"it squeezes {list(source)} to {list(result)}"


def euclidean_norm(node: Node, limits: Limits) -> str | None:
    """The norm must be the Euclidean one."""
    order = node.int("p", 2)
    return None if order == 2 else f"its p is {order}"


def one_direction(node: Node, limits: Limits) -> str | None:
    """A recurrent layer must run forward only."""
    direction = node.text("direction", "forward")
    return None if direction == "forward" else f"its direction is {direction}"


def placeholders(rule: str) -> frozenset[str]:
    """The limits that the sentence of ``rule`` shows, all of which a profile must give."""
    names = (name for _, name, _, _ in Formatter().parse(_first_line(rule)) if name)
    return frozenset(names)


def _first_line(rule: str) -> str:
    return (RULES[rule].__doc__ or "").split("\n")[0].strip().rstrip(".")


def _axes(node: Node) -> tuple[int, ...]:
    given = node.input(1)
    rank = len(node.required(0).shape or ()) or 1
    if given is not None and given.constant is not None:
        return tuple(int(a) % rank for a in np.ravel(given.constant))
    return tuple(a % rank for a in node.ints("axes", ()))


def _channels(node: Node) -> int | None:
    shape = node.required(0).shape
    return shape[1] if shape is not None and len(shape) > 1 else None


def _shape(node: Node) -> list[int | None]:
    return list(node.required(0).shape or ())


def _number(limits: Limits, name: str) -> float:
    value = limits[name]
    return float(value) if not isinstance(value, tuple) else float(value[0])


def _tensors(node: Node) -> tuple[Tensor, ...]:
    return (*(t for t in node.inputs if t is not None), *node.outputs)


RULES: Mapping[str, Rule] = {
    "batch_one": batch_one,
    "clip_limits": clip_limits,
    "concat_axis": concat_axis,
    "concat_constant": concat_constant,
    "constant_operands": constant_operands,
    "equal_shapes": equal_shapes,
    "euclidean_norm": euclidean_norm,
    "group_one_or_depthwise": group_one_or_depthwise,
    "int8_activations": int8_activations,
    "leading_ones": leading_ones,
    "max_kernel": max_kernel,
    "max_rank": max_rank,
    "max_stride": max_stride,
    "one_direction": one_direction,
    "pad_keeps_batch": pad_keeps_batch,
    "prelu_innermost": prelu_innermost,
    "reduce_depth_multiple": reduce_depth_multiple,
    "reduce_keeps_batch": reduce_keeps_batch,
    "resize_factors": resize_factors,
    "resize_nearest": resize_nearest,
    "slice_keeps_batch": slice_keeps_batch,
    "slice_steps_one": slice_steps_one,
    "softmax_size": softmax_size,
    "split_keeps_batch": split_keeps_batch,
    "square_dilation": square_dilation,
    "static_shapes": static_shapes,
    "two_spatial_dimensions": two_spatial_dimensions,
}
"""Every rule by the name that profiles use."""
