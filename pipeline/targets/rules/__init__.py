"""Rules: one thing a target demands of an operator, each a function whose docstring is the sentence the user reads.

A rule takes a node and the limits that the target's profile gives it, and returns the fact that violates it, or
``None``. ``{limit}`` in a docstring is filled from those limits. ``RULES`` is the table; a new rule is a function in
the module of its family and a line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter
from types import MappingProxyType

from pipeline.graph.view import Node
from pipeline.targets.profile import RuleUse, Target, When
from pipeline.targets.rules import convolution, elementwise, pooling, reductions, resizing, shaping, tensors
from pipeline.targets.rules.reading import Rule, depthwise

__all__ = ["RULES", "Violation", "placeholders", "sentence", "violations"]


CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators that hold graphs; no NPU's toolchain takes them."""


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
    if target.takes_everything is not None:
        return ()
    operator = target.operators.get(node.op) if node.standard else None
    if operator is None:
        return (Violation("operator", "The NPU must have the operator", _missing(node, target)),)
    found = (_violation(use, node) for use in (*target.rules, *operator.rules) if _applies(use, node))
    return tuple(v for v in found if v is not None)


def _missing(node: Node, target: Target) -> str:
    """The fact about an operator that ``target`` does not list."""
    domain = f"{node.domain}." if node.domain else ""
    if node.standard and node.op in CONTROL_FLOW:
        return f"it has no {node.op}: control flow runs on the CPU, whatever its branches hold"
    if node.standard and node.op in target.absent:
        return f"it has no {node.op}: {target.absent[node.op]}"
    if target.operators_unknown is not None:
        return f"whether it has {domain}{node.op} is unknown: {target.operators_unknown}"
    return f"it has no {domain}{node.op}"


def _violation(use: RuleUse, node: Node) -> Violation | None:
    fact = RULES[use.rule](node, use.limits)
    return None if fact is None else Violation(use.rule, sentence(use), fact)


def _applies(use: RuleUse, node: Node) -> bool:
    return use.when is None or FORMS[use.when].holds(node)


def sentence(use: RuleUse) -> str:
    """What the rule demands, with the target's numbers."""
    text = _first_line(use.rule).format(**{k: _plain(v) for k, v in use.limits.items()})
    return text if use.when is None else f"{FORMS[use.when].opening}: {text[0].lower()}{text[1:]}"


def placeholders(rule: str) -> frozenset[str]:
    """The limits that the sentence of ``rule`` shows, all of which a profile must give."""
    names = (name for _, name, _, _ in Formatter().parse(_first_line(rule)) if name)
    return frozenset(names)


def _first_line(rule: str) -> str:
    return (RULES[rule].__doc__ or "").split("\n")[0].strip().rstrip(".")


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_plain(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _grouped(node: Node) -> bool:
    return node.int("group", 1) > 1 and not depthwise(node)


def _computed(node: Node) -> bool:
    second = node.input(1)
    return second is not None and second.constant is None


@dataclass(frozen=True)
class Form:
    """A form of an operator that a rule can be about: how its sentence opens, and which nodes have it."""

    opening: str
    holds: Callable[[Node], bool]


FORMS: Mapping[When, Form] = MappingProxyType(
    {
        "dense": Form("With one group", lambda node: node.int("group", 1) == 1),
        "depthwise": Form("With one group per channel (depthwise)", depthwise),
        "grouped": Form("With other groups", _grouped),
        "constant": Form("With a constant second operand", lambda node: not _computed(node)),
        "computed": Form("With two computed operands", _computed),
    }
)
"""What a rule's ``when`` can be."""

_FUNCTIONS: tuple[Rule, ...] = (
    tensors.activation_types,
    tensors.batch_one,
    tensors.bias_types,
    tensors.broadcast_per_channel,
    tensors.constant_operands,
    tensors.equal_shapes,
    tensors.exact_dimensions,
    tensors.int8_activations,
    tensors.max_batch,
    tensors.max_dimension,
    tensors.max_dimensions,
    tensors.max_rank,
    tensors.max_tensor_bytes,
    tensors.min_inputs,
    tensors.per_tensor_weights,
    tensors.requantizes,
    tensors.shared_input_scale,
    tensors.shared_scale,
    tensors.static_but_batch,
    tensors.static_shapes,
    tensors.symmetric_activations,
    tensors.weight_types,
    convolution.depth_multiplier,
    convolution.dilation_needs_kernel_one,
    convolution.dilation_needs_stride_one,
    convolution.group_one,
    convolution.group_one_or_depthwise,
    convolution.kernel_width,
    convolution.large_stride,
    convolution.max_columns,
    convolution.max_dilated_kernel,
    convolution.max_dilation,
    convolution.max_groups,
    convolution.max_inner_size,
    convolution.max_input_width,
    convolution.max_kernel,
    convolution.max_kernel_size,
    convolution.max_output_channels,
    convolution.max_padding,
    convolution.max_stride,
    convolution.padding_below_kernel,
    convolution.small_or_long,
    convolution.square_dilation,
    convolution.stride_one_of,
    convolution.transposed_output,
    convolution.transposed_strides,
    convolution.two_spatial_dimensions,
    convolution.vector_output,
    convolution.weight_sum,
    convolution.width_under_tall_kernel,
    pooling.average_buffer,
    pooling.average_counts_padding,
    pooling.explicit_padding,
    pooling.max_map,
    pooling.max_map_area,
    pooling.no_ceil_mode,
    pooling.padded_kernel,
    pooling.pool_buffer,
    pooling.stride_within_kernels,
    elementwise.axis_one_of,
    elementwise.clip_limits,
    elementwise.elu_alpha_one,
    elementwise.euclidean_norm,
    elementwise.lrn_window,
    elementwise.no_peepholes,
    elementwise.one_direction,
    elementwise.pow_exponent,
    elementwise.prelu_innermost,
    elementwise.softmax_rows,
    elementwise.softmax_size,
    elementwise.standard_hard_sigmoid,
    reductions.argmax_depth,
    reductions.reduce_depth_multiple,
    reductions.reduce_keeps_batch,
    reductions.reduced_axis_size,
    reductions.reduced_depth,
    reductions.reduced_elements,
    resizing.half_pixel_factor,
    resizing.linear_resize_size,
    resizing.resize_by_scales,
    resizing.resize_factors,
    resizing.resize_factors_or_point,
    resizing.resize_modes,
    resizing.resize_nearest,
    resizing.resize_spatial_only,
    resizing.resize_whole_factor,
    resizing.resize_whole_factor_or_point,
    shaping.concat_aligned,
    shaping.concat_constant,
    shaping.gather_index_rank,
    shaping.leading_ones,
    shaping.pad_keeps_batch,
    shaping.pad_modes,
    shaping.pad_reflection,
    shaping.pad_zero,
    shaping.slice_keeps_batch,
    shaping.slice_steps_forward,
    shaping.slice_steps_one,
    shaping.split_keeps_batch,
    shaping.transpose_channels_first,
    shaping.transpose_channels_last,
    shaping.transpose_height_width,
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.__name__: rule for rule in _FUNCTIONS})
"""Every rule by the name that profiles use."""
