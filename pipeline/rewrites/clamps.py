"""ReLU6 and its kin, written with Min, Max and Relu, become one Clip."""

import math

import onnx_ir as ir
from onnxscript.rewriter.pattern import OpsetPatternBuilder, Var
from onnxscript.rewriter.rules.common import (
    successive_clip_relu_rule,
    successive_clip_rule,
    successive_relu_clip_rule,
    successive_relu_rule,
)

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, Rewriting, expression
from pipeline.rewrites.reading import Builder, constant, dims, floats, given, maker, scalar, source
from pipeline.rewrites.rule import Rule


def _min_of_max(op: OpsetPatternBuilder, x: Var, low: Var, high: Var) -> object:
    return op.Min(op.Max(x, low), high, _outputs=["out"])


def _max_of_min(op: OpsetPatternBuilder, x: Var, low: Var, high: Var) -> object:
    return op.Max(op.Min(x, high), low, _outputs=["out"])


def _min_of_relu(op: OpsetPatternBuilder, x: Var, high: Var) -> object:
    return op.Min(op.Relu(x), high, _outputs=["out"])


def _is_range(_: object, x: ir.Value, low: ir.Value, high: ir.Value, out: ir.Value) -> bool:
    """Whether ``low`` and ``high`` are numbers in this order, and neither widens ``x``."""
    bottom, top = scalar(low), scalar(high)
    ordered = bottom is not None and top is not None and bottom <= top
    return ordered and constant(x) is None and dims(x) == dims(out)


def _is_positive_range(_: object, x: ir.Value, high: ir.Value, out: ir.Value) -> bool:
    top = scalar(high)
    return top is not None and top >= 0 and dims(x) == dims(out)


def _clip(op: Builder, x: ir.Value, out: ir.Value, high: ir.Value, low: ir.Value | None = None) -> ir.Value:
    name = str(maker(out).name)
    bottom, top = 0.0 if low is None else scalar(low), scalar(high)
    return op.op("Clip", x, floats(op, bottom, f"{name}.min"), floats(op, top, f"{name}.max"))


def _limits(node: ir.Node | None) -> tuple[float, float] | None:
    """Lower and upper limit of a Relu or Clip; ``None`` for another operator or a computed limit."""
    if node is None or node.op_type not in ("Relu", "Clip"):
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    stated = [given(node, index) for index in (1, 2)]
    limits = [d if v is None else scalar(v) for v, d in zip(stated, (-math.inf, math.inf), strict=True)]
    return None if limits[0] is None or limits[1] is None else (limits[0], limits[1])


def _overlap(node: ir.Node) -> bool:
    """Whether a clamp and the one before it leave a range; where they do not, one Clip is another function."""
    first, second = _limits(source(node).producer()), _limits(node)
    if first is None or second is None:
        return False
    return max(first[0], second[0]) <= min(first[1], second[1])


MIN_MAX_TO_CLIP = Rule(
    "min-max-to-clip",
    Kind.EXACT,
    "Min and Max, or Min and Relu, with numbers become Clip, which NPUs fuse into the operator before it.",
    Patterns(
        (
            *expression("Min", _min_of_max, _is_range, _clip),
            *expression("Max", _max_of_min, _is_range, _clip),
            *expression("Min", _min_of_relu, _is_positive_range, _clip),
        )
    ),
)
FUSE_CLAMPS = Rule(
    "fuse-clamps",
    Kind.EXACT,
    "A Relu or Clip on a Relu or Clip becomes one.",
    Patterns(
        (
            Rewriting("Clip", successive_clip_relu_rule, _overlap),
            Rewriting("Clip", successive_clip_rule, _overlap),
            Rewriting("Relu", successive_relu_clip_rule, _overlap),
            Rewriting("Relu", successive_relu_rule, _overlap),
        )
    ),
)
