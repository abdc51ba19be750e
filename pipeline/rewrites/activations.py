"""Activation functions in operators that more NPUs have."""

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import OpsetPatternBuilder, Var
from onnxscript.rewriter.rules.common import fuse_hardswish_rules

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, Rewriting, expression, single
from pipeline.rewrites.reading import Array, Builder, constant, dims, floats, given, opset, source
from pipeline.rewrites.rule import Rule

HARD_SWISH_OPSET = 14
"""The standard operator set in which HardSwish begins."""


def _any(_: ir.Node) -> bool:
    return True


def _hard_sigmoid(op: Builder, value: ir.Value, alpha: float, beta: float, name: str) -> ir.Value:
    """``clip(alpha * value + beta, 0, 1)``."""
    scaled = op.op("Mul", value, floats(op, alpha, f"{name}.alpha"))
    shifted = op.op("Add", scaled, floats(op, beta, f"{name}.beta"))
    return op.op("Clip", shifted, floats(op, 0.0, f"{name}.min"), floats(op, 1.0, f"{name}.max"))


def _hard_swish_to_clip(op: Builder, node: ir.Node) -> ir.Value:
    return op.op("Mul", source(node), _hard_sigmoid(op, source(node), 1 / 6, 0.5, str(node.name)))


def _hard_sigmoid_to_clip(op: Builder, node: ir.Node) -> ir.Value:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return _hard_sigmoid(op, source(node), alpha, beta, str(node.name))


def _relu6(op: Builder, value: ir.Value, name: str) -> ir.Value:
    return op.op("Clip", value, floats(op, 0.0, f"{name}.min"), floats(op, 6.0, f"{name}.max"))


def _hard_sigmoid_by_relu6(op: Builder, node: ir.Node) -> ir.Value:
    """``relu6(6 * alpha * x + 6 * beta) / 6``."""
    slope, name = 6 * node.attributes.get_float("alpha", 0.2), str(node.name)
    scaled = source(node) if np.float32(slope) == 1 else op.op("Mul", source(node), floats(op, slope, f"{name}.alpha"))
    shift = floats(op, 6 * node.attributes.get_float("beta", 0.5), f"{name}.beta")
    return op.op("Mul", _relu6(op, op.op("Add", scaled, shift), name), floats(op, 1 / 6, f"{name}.scale"))


def _hard_swish_by_relu6(op: Builder, node: ir.Node) -> ir.Value:
    value, name = source(node), str(node.name)
    gate = _relu6(op, op.op("Add", value, floats(op, 3.0, f"{name}.shift")), name)
    return op.op("Mul", op.op("Mul", value, gate), floats(op, 1 / 6, f"{name}.scale"))


def _to_relu6(op: Builder, node: ir.Node) -> ir.Value:
    return _relu6(op, source(node), str(node.name))


def _silu(op: OpsetPatternBuilder, x: Var) -> object:
    return op.Mul(x, op.Sigmoid(x, _outputs=["gate"]))


def _has_hard_swish(_: object, x: ir.Value, gate: ir.Value) -> bool:
    node = gate.producer()
    return node is not None and opset(node) >= HARD_SWISH_OPSET


def _to_hard_swish(op: Builder, x: ir.Value, gate: ir.Value) -> ir.Value:
    return op.op("HardSwish", x)


def _is_new_enough(node: ir.Node) -> bool:
    return opset(node) >= HARD_SWISH_OPSET


def _slope(node: ir.Node) -> Array | None:
    """The slope of a LeakyRelu or PRelu below zero, if it is constant."""
    if node.op_type == "LeakyRelu":
        return np.asarray(node.attributes.get_float("alpha", 0.01), np.float32)
    return constant(given(node, 1))


def _is_maximum(node: ir.Node) -> bool:
    """Whether the slope lies in 0 to 1, where the line below zero is the lower one, and spreads over the input."""
    slope = _slope(node)
    rank = len(dims(source(node)))
    return slope is not None and slope.ndim <= rank and bool(np.all((slope >= 0) & (slope <= 1)))


def _maximum(op: Builder, node: ir.Node) -> ir.Value:
    lower = op.op("Mul", source(node), floats(op, _slope(node), f"{node.name}.slope"))
    return op.op("Max", source(node), lower)


FUSE_HARD_SWISH = Rule(
    "fuse-hard-swish",
    Kind.EXACT,
    "HardSwish and HardSigmoid that are written out with Add, Clip, Mul and Div become the operators themselves.",
    Patterns(
        tuple(Rewriting(root, rule, _is_new_enough) for root in ("Mul", "Div") for rule in fuse_hardswish_rules().rules)
    ),
)
HARD_SWISH_TO_CLIP = Rule(
    "hard-swish-to-clip",
    Kind.EXACT,
    "HardSwish is written out as x * clip(x/6 + 1/2, 0, 1), for NPUs with Mul, Add and Clip.",
    Patterns((single("HardSwish", _any, _hard_swish_to_clip),)),
)
HARD_SWISH_BY_RELU6 = Rule(
    "hard-swish-by-relu6",
    Kind.EXACT,
    "HardSwish is written out as x * relu6(x + 3) / 6, for NPUs whose only clamp is ReLU6.",
    Patterns((single("HardSwish", _any, _hard_swish_by_relu6),)),
)
HARD_SIGMOID_TO_CLIP = Rule(
    "hard-sigmoid-to-clip",
    Kind.EXACT,
    "HardSigmoid is written out as clip(alpha * x + beta, 0, 1).",
    Patterns((single("HardSigmoid", _any, _hard_sigmoid_to_clip),)),
)
HARD_SIGMOID_BY_RELU6 = Rule(
    "hard-sigmoid-by-relu6",
    Kind.EXACT,
    "HardSigmoid is written out as relu6(6 * (alpha * x + beta)) / 6, for NPUs whose only clamp is ReLU6.",
    Patterns((single("HardSigmoid", _any, _hard_sigmoid_by_relu6),)),
)
LEAKY_RELU_TO_MAX = Rule(
    "leaky-relu-to-max",
    Kind.EXACT,
    "LeakyRelu and PRelu with slopes from 0 to 1 become max(x, slope * x).",
    Patterns(tuple(single(operator, _is_maximum, _maximum) for operator in ("LeakyRelu", "PRelu"))),
)
HARD_SWISH_TO_RELU6 = Rule(
    "hard-swish-to-relu6",
    Kind.NEEDS_FINE_TUNING,
    "HardSwish becomes ReLU6, which every NPU fuses into the convolution before it.",
    Patterns((single("HardSwish", _any, _to_relu6),)),
)
SILU_TO_HARD_SWISH = Rule(
    "silu-to-hard-swish",
    Kind.NEEDS_FINE_TUNING,
    "SiLU, x * sigmoid(x), becomes HardSwish, which needs no table of the exponential.",
    Patterns(expression("Mul", _silu, _has_hard_swish, _to_hard_swish)),
)
