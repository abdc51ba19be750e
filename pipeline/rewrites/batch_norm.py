"""Batch normalization disappears into the operator before it, or becomes a depthwise convolution."""

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, Rewriting, single
from pipeline.rewrites.reading import Builder, constant, dims, floats, given, source
from pipeline.rewrites.rule import Rule

FOLDED_INTO = frozenset({"Conv", "ConvTranspose", "Gemm"})


def _is_inference(node: ir.Node) -> bool:
    """Whether a BatchNormalization has constant parameters and does not train."""
    fixed = all(constant(given(node, index)) is not None for index in range(1, 5))
    return fixed and len(node.outputs) == 1 and node.attributes.get_int("training_mode", 0) == 0


def _follows_constant_weights(node: ir.Node) -> bool:
    """Whether the parameters of a BatchNormalization and of the operator before it are all constant."""
    before = source(node).producer()
    return (
        _is_inference(node)
        and before is not None
        and constant(given(before, 1)) is not None
        and (len(before.inputs) < 3 or constant(before.inputs[2]) is not None)
    )


def _stands_alone(node: ir.Node) -> bool:
    """Whether a BatchNormalization of an image has nothing before it to disappear into."""
    before = source(node).producer()
    return (
        _is_inference(node) and len(dims(source(node))) == 4 and (before is None or before.op_type not in FOLDED_INTO)
    )


def _depthwise(op: Builder, node: ir.Node) -> ir.Value:
    scale, shift, mean, variance = (np.asarray(constant(v), np.float64) for v in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    weight = floats(op, factor.reshape(-1, 1, 1, 1), f"{node.name}.weight")
    bias = floats(op, shift - mean * factor, f"{node.name}.bias")
    return op.op("Conv", source(node), weight, bias, group=factor.size, kernel_shape=[1, 1])


FOLD = Rule(
    "fold-batch-norm",
    Kind.EXACT,
    "BatchNormalization after Conv, ConvTranspose or Gemm is folded into their weights and costs nothing.",
    Patterns(
        tuple(
            Rewriting("BatchNormalization", rule, _follows_constant_weights)
            for rule in (
                fuse_batchnorm_into_conv_rule,
                fuse_batchnorm_into_conv_transpose_rule,
                fuse_batchnorm_into_gemm_rule,
            )
        )
    ),
)

TO_DEPTHWISE = Rule(
    "batch-norm-to-depthwise-conv",
    Kind.EXACT,
    "BatchNormalization with no convolution before it becomes a depthwise 1x1 Conv, which every NPU with Conv takes.",
    Patterns((single("BatchNormalization", _stands_alone, _depthwise),)),
)
