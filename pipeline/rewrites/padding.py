"""Padding in front of a convolution becomes part of it."""

import onnx_ir as ir
from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, Rewriting
from pipeline.rewrites.reading import constant, given, source
from pipeline.rewrites.rule import Rule


def _has_constant_pads(node: ir.Node) -> bool:
    """Whether the Pad before a Conv has constant parameters."""
    before = source(node).producer()
    if before is None or before.op_type != "Pad" or constant(given(before, 1)) is None:
        return False
    return all(v is None or constant(v) is not None for v in before.inputs[2:])


PAD_INTO_CONV = Rule(
    "pad-into-conv",
    Kind.EXACT,
    "Pad with zeros on height and width becomes the padding of the Conv after it.",
    Patterns((Rewriting("Conv", fuse_pad_into_conv_rule, _has_constant_pads),)),
)
