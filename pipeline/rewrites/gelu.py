"""GELU with the error function becomes GELU with the hyperbolic tangent, or with a sigmoid."""

import math

import onnx_ir as ir
from onnxscript.rewriter.pattern import OpsetPatternBuilder, Var

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, Rewriting, expression, single
from pipeline.rewrites.reading import Builder, floats, is_close, maker, source
from pipeline.rewrites.rule import Rule


def _half_inside(op: OpsetPatternBuilder, x: Var, half: Var, one: Var, root: Var) -> object:
    """As torch exports it: x * (1/2 * (1 + erf(x / root 2)))."""
    return op.Mul(x, op.Mul(half, op.Add(op.Erf(op.Div(x, root)), one)), _outputs=["out"])


def _half_first(op: OpsetPatternBuilder, x: Var, half: Var, one: Var, root: Var) -> object:
    """(1/2 * x) * (1 + erf(x / root 2))."""
    return op.Mul(op.Mul(x, half), op.Add(op.Erf(op.Div(x, root)), one), _outputs=["out"])


def _half_last(op: OpsetPatternBuilder, x: Var, half: Var, one: Var, root: Var) -> object:
    """As older exporters write it: (x * (1 + erf(x / root 2))) * 1/2."""
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half, _outputs=["out"])


def _is_gelu(_: object, x: ir.Value, half: ir.Value, one: ir.Value, root: ir.Value, out: ir.Value) -> bool:
    return is_close(half, 0.5) and is_close(one, 1.0) and is_close(root, math.sqrt(2))


def _tanh(op: Builder, x: ir.Value, name: str) -> ir.Value:
    """x/2 * (1 + tanh(root(2/pi) * (x + 0.044715 x**3))), Hendrycks and Gimpel, arXiv:1606.08415."""
    root = math.sqrt(2 / math.pi)
    square = op.op("Mul", x, x)
    inner = op.op("Mul", square, floats(op, root * 0.044715, f"{name}.cubic"))
    slope = op.op("Add", inner, floats(op, root, f"{name}.linear"))
    gate = op.op("Add", op.op("Tanh", op.op("Mul", x, slope)), floats(op, 1.0, f"{name}.one"))
    return op.op("Mul", op.op("Mul", x, floats(op, 0.5, f"{name}.half")), gate)


def _sigmoid(op: Builder, x: ir.Value, name: str) -> ir.Value:
    """x * sigmoid(1.702 x), from the same paper."""
    return op.op("Mul", x, op.op("Sigmoid", op.op("Mul", x, floats(op, 1.702, f"{name}.slope"))))


def _is_erf(node: ir.Node) -> bool:
    return node.attributes.get_string("approximate", "none") == "none"


def _node_to_tanh(op: Builder, node: ir.Node) -> ir.Value:
    return op.op("Gelu", source(node), approximate="tanh")


def _node_to_sigmoid(op: Builder, node: ir.Node) -> ir.Value:
    return _sigmoid(op, source(node), str(node.name))


def _to_tanh(op: Builder, x: ir.Value, half: ir.Value, one: ir.Value, root: ir.Value, out: ir.Value) -> ir.Value:
    return _tanh(op, x, str(maker(out).name))


def _to_sigmoid(op: Builder, x: ir.Value, half: ir.Value, one: ir.Value, root: ir.Value, out: ir.Value) -> ir.Value:
    return _sigmoid(op, x, str(maker(out).name))


_FORMS = (_half_inside, _half_first, _half_last)
_TO_TANH: tuple[Rewriting, ...] = tuple(r for form in _FORMS for r in expression("Mul", form, _is_gelu, _to_tanh))
_TO_SIGMOID: tuple[Rewriting, ...] = tuple(r for form in _FORMS for r in expression("Mul", form, _is_gelu, _to_sigmoid))

GELU_TO_TANH = Rule(
    "gelu-to-tanh",
    Kind.CLOSE,
    "GELU with the error function becomes its tanh form, for NPUs with a table for Tanh and none for Erf.",
    Patterns((single("Gelu", _is_erf, _node_to_tanh), *_TO_TANH)),
    close_bound=1e-3,
)
GELU_TO_SIGMOID = Rule(
    "gelu-to-sigmoid",
    Kind.NEEDS_FINE_TUNING,
    "GELU with the error function becomes x * sigmoid(1.702 x), up to 0.02 away, for NPUs with Sigmoid.",
    Patterns((single("Gelu", _is_erf, _node_to_sigmoid), *_TO_SIGMOID)),
)
