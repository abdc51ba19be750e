"""Fully connected layers: MatMul + Add to Gemm, and Gemm or MatMul with constant weights to convolutions."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import OpsetPatternBuilder, OrValue, Var

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, Rewriting, expression, single
from pipeline.rewrites.reading import Array, Builder, constant, dims, floats, given, integers, maker, source
from pipeline.rewrites.rule import Rule

ELEMENTWISE = ("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LeakyRelu", "Elu")
"""Activation functions that a flattened and an unflattened tensor pass alike."""


def weights(node: ir.Node) -> tuple[Array, Array] | None:
    """Weights [inputs, outputs] and bias [outputs] of a Gemm or MatMul that is a fully connected layer, else ``None``.

    Alpha and beta are multiplied in; the bias is 0 where there is none.
    """
    matrix = constant(given(node, 1))
    if matrix is None or matrix.ndim != 2 or constant(source(node)) is not None:
        return None
    if node.op_type == "MatMul":
        return matrix, np.zeros(matrix.shape[1], matrix.dtype)
    if node.attributes.get_int("transB", 0):
        matrix = matrix.T
    matrix = matrix * np.float32(node.attributes.get_float("alpha", 1.0))
    if given(node, 2) is None:
        bias: Array | None = np.zeros(1, matrix.dtype)
    else:
        bias = constant(node.inputs[2])
    if node.attributes.get_int("transA", 0) or bias is None or bias.size not in (1, bias.shape[-1] if bias.ndim else 1):
        return None
    scaled = bias.reshape(-1) * np.float32(node.attributes.get_float("beta", 1.0))
    return matrix, np.broadcast_to(scaled, matrix.shape[1:])


def _convolve(op: Builder, node: ir.Node, image: ir.Value, height: int, width: int) -> ir.Value:
    """A ``height`` x ``width`` Conv without padding with the weights of ``node``."""
    found = weights(node)
    assert found is not None
    matrix, bias = found
    kernel = matrix.T.reshape(matrix.shape[1], -1, height, width)
    name = str(node.name)
    inputs = [image, floats(op, kernel, f"{name}.weight")]
    if np.any(bias):
        inputs.append(floats(op, bias, f"{name}.bias"))
    return op.op("Conv", *inputs, kernel_shape=[height, width])


def _flat(op: OpsetPatternBuilder, image: Var) -> object:
    """Any operator that may flatten ``image``; the shapes decide."""
    reshape = op.Reshape(image, _allow_other_inputs=True, _allow_other_attributes=True)
    squeeze = op.Squeeze(image, _allow_other_inputs=True, _allow_other_attributes=True)
    return OrValue([op.Flatten(image, _allow_other_attributes=True), reshape, squeeze])


def _is_flattened(node: ir.Node, image: ir.Value, flat: ir.Value | None) -> bool:
    """Whether ``node`` is a fully connected layer on ``flat``, which is ``image`` [N,C,H,W] as [N,C*H*W]."""
    shape = dims(image)
    return len(shape) == 4 and dims(flat) == (shape[0], int(np.prod(shape[1:]))) and weights(node) is not None


def _flattened(operator: str) -> Rewriting:
    """``operator`` of a flattened image becomes a Conv that covers the image."""

    def pattern(op: OpsetPatternBuilder, image: Var) -> object:
        return getattr(op, operator)(
            _flat(op, image), _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["out"]
        )

    def check(_: object, image: ir.Value, out: ir.Value) -> bool:
        return _is_flattened(maker(out), image, maker(out).inputs[0])

    def rewrite(op: Builder, image: ir.Value, out: ir.Value) -> ir.Value:
        return op.op("Flatten", _convolve(op, maker(out), image, *dims(image)[2:]), axis=1)

    return expression(operator, pattern, check, rewrite, commute=False)[0]


def _flattened_then_activated(operator: str, activation: str) -> Rewriting:
    """The same with an activation function between, which moves before the Flatten."""

    def pattern(op: OpsetPatternBuilder, image: Var) -> object:
        active = getattr(op, activation)(
            _flat(op, image), _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["active"]
        )
        return getattr(op, operator)(
            active, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["out"]
        )  # fmt: skip

    def check(_: object, image: ir.Value, active: ir.Value, out: ir.Value) -> bool:
        limits = maker(active).inputs[1:]
        plain = all(v is None or constant(v) is not None for v in limits)
        return plain and _is_flattened(maker(out), image, maker(active).inputs[0])

    def rewrite(op: Builder, image: ir.Value, active: ir.Value, out: ir.Value) -> ir.Value:
        function = maker(active)
        moved = op.op(activation, image, *function.inputs[1:], **function.attributes)
        return op.op("Flatten", _convolve(op, maker(out), moved, *dims(image)[2:]), axis=1)

    return expression(operator, pattern, check, rewrite, commute=False)[0]


def _all_flattened() -> Iterator[Rewriting]:
    for operator in ("Gemm", "MatMul"):
        yield _flattened(operator)
        for activation in ELEMENTWISE:
            yield _flattened_then_activated(operator, activation)


_FLATTENED = tuple(_all_flattened())


def _is_matrix_product(node: ir.Node) -> bool:
    return len(dims(source(node))) in (2, 3, 4) and weights(node) is not None


def _wrapped(op: Builder, node: ir.Node) -> ir.Value:
    """A 1x1 Conv over the rows of the matrix, laid out as an image with the columns as channels."""
    rows, name = source(node), str(node.name)
    shape = dims(rows)
    result = (*shape[:-1], dims(node.outputs[0])[-1])
    if len(shape) == 4:
        image = op.op("Transpose", rows, perm=[0, 3, 1, 2])
        return op.op("Transpose", _convolve(op, node, image, 1, 1), perm=[0, 2, 3, 1])
    if len(shape) == 3:
        columns = op.op("Transpose", rows, perm=[0, 2, 1])
        image = op.op("Reshape", columns, integers(op, [shape[0], shape[2], shape[1], 1], f"{name}.image"))
        flat = op.op("Reshape", _convolve(op, node, image, 1, 1), integers(op, [0, 0, -1], f"{name}.rows"))
        return op.op("Transpose", flat, perm=[0, 2, 1])
    image = op.op("Reshape", rows, integers(op, [*shape, 1, 1], f"{name}.image"))
    return op.op("Reshape", _convolve(op, node, image, 1, 1), integers(op, result, f"{name}.rows"))


def _is_sum_of_matrices(_: object, a: ir.Value, b: ir.Value, c: ir.Value, product: ir.Value) -> bool:
    """Whether ``a`` and ``b`` are matrices and ``c`` spreads over their product without widening it."""
    rows, addend = dims(product), dims(c)
    if len(dims(a)) != 2 or len(dims(b)) != 2 or c is product or len(addend) > 2:
        return False
    return all(d in (1, r) for d, r in zip(reversed(addend), reversed(rows), strict=False))


MATMUL_ADD_TO_GEMM = Rule(
    "matmul-add-to-gemm",
    Kind.EXACT,
    "MatMul of two matrices followed by Add becomes one Gemm, which NPUs run as one fully connected layer.",
    Patterns(
        expression(
            "Add",
            lambda op, a, b, c: op.Add(op.MatMul(a, b, _outputs=["product"]), c),
            _is_sum_of_matrices,
            lambda op, a, b, c, product: op.op("Gemm", a, b, c),
        )
    ),
)

GEMM_TO_CONV = Rule(
    "gemm-to-conv",
    Kind.EXACT,
    "A fully connected layer on a flattened CxHxW image becomes an HxW Conv without padding, then Flatten: "
    "after global pooling a 1x1 Conv. For NPUs that convolve but have no fully connected layer.",
    Patterns(_FLATTENED),
)

MATMUL_TO_CONV = Rule(
    "matmul-to-conv",
    Kind.EXACT,
    "Gemm or MatMul with constant weights becomes a 1x1 Conv between the Reshape and Transpose that lay it out.",
    Patterns(tuple(single(operator, _is_matrix_product, _wrapped) for operator in ("Gemm", "MatMul"))),
)
