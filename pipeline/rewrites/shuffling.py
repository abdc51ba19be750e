"""DepthToSpace and SpaceToDepth as convolutions, or as Reshape and Transpose."""

import numpy as np
import onnx_ir as ir

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, single
from pipeline.rewrites.reading import Builder, dims, floats, integers, source
from pipeline.rewrites.rule import Rule


def _is_image(node: ir.Node) -> bool:
    return len(dims(source(node))) == 4


def _block(node: ir.Node) -> int:
    return node.attributes.get_int("blocksize", 1)


def _is_column_row_depth(node: ir.Node) -> bool:
    """Whether the channels of a DepthToSpace count the place in the block last (CRD, torch's pixel shuffle)."""
    return node.attributes.get_string("mode", "DCR") == "CRD"


def _unshuffled(op: Builder, node: ir.Node) -> ir.Value:
    """As ONNX defines DepthToSpace: Reshape to six dimensions, Transpose, Reshape."""
    batch, channels, height, width = dims(source(node))
    block = _block(node)
    depth = channels // block**2
    last = _is_column_row_depth(node)
    shape = [batch, depth, block, block, height, width] if last else [batch, block, block, depth, height, width]
    order = [0, 1, 4, 2, 5, 3] if last else [0, 3, 4, 1, 5, 2]
    blocks = op.op("Reshape", source(node), integers(op, shape, f"{node.name}.blocks"))
    image = integers(op, [batch, depth, height * block, width * block], f"{node.name}.image")
    return op.op("Reshape", op.op("Transpose", blocks, perm=order), image)


def _scattered(op: Builder, node: ir.Node) -> ir.Value:
    """A ConvTranspose whose weights are ones and zeros: channel in to channel out and place in the block."""
    channels, block = dims(source(node))[1], _block(node)
    depth = channels // block**2
    places = np.eye(channels, dtype=np.float32)
    if _is_column_row_depth(node):
        weight = places.reshape(channels, depth, block, block)
    else:
        weight = places.reshape(channels, block, block, depth).transpose(0, 3, 1, 2)
    kernel = floats(op, weight, f"{node.name}.weight")
    return op.op("ConvTranspose", source(node), kernel, kernel_shape=[block, block], strides=[block, block])


def _gathered(op: Builder, node: ir.Node) -> ir.Value:
    """A Conv whose weights are ones and zeros, one output channel for each place in the block of each input channel."""
    depth, block = dims(source(node))[1], _block(node)
    channels = depth * block**2
    weight = np.eye(channels, dtype=np.float32).reshape(channels, block, block, depth).transpose(0, 3, 1, 2)
    kernel = floats(op, weight, f"{node.name}.weight")
    return op.op("Conv", source(node), kernel, kernel_shape=[block, block], strides=[block, block])


TO_RESHAPE = Rule(
    "depth-to-space-to-reshape",
    Kind.EXACT,
    "DepthToSpace becomes Reshape, Transpose, Reshape.",
    Patterns((single("DepthToSpace", _is_image, _unshuffled),)),
)
TO_CONV_TRANSPOSE = Rule(
    "depth-to-space-to-conv-transpose",
    Kind.EXACT,
    "DepthToSpace becomes a ConvTranspose whose weights are ones and zeros.",
    Patterns((single("DepthToSpace", _is_image, _scattered),)),
)
TO_CONV = Rule(
    "space-to-depth-to-conv",
    Kind.EXACT,
    "SpaceToDepth becomes a Conv with stride whose weights are ones and zeros.",
    Patterns((single("SpaceToDepth", _is_image, _gathered),)),
)
