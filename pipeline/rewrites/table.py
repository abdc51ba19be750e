"""Every rule, in the order in which all of them together make sense; and where they fit."""

import difflib

import onnx

from pipeline.errors import ModelError
from pipeline.rewrites import (
    activations,
    batch_norm,
    clamps,
    folding,
    gelu,
    linear,
    padding,
    pooling,
    resizing,
    shuffling,
    slicing,
)
from pipeline.rewrites.nouns import Candidate
from pipeline.rewrites.rule import Rule, lifted, prepared

RULES: tuple[Rule, ...] = (
    folding.FOLD_CONSTANTS,
    batch_norm.FOLD,
    batch_norm.TO_DEPTHWISE,
    padding.PAD_INTO_CONV,
    clamps.MIN_MAX_TO_CLIP,
    clamps.FUSE_CLAMPS,
    activations.FUSE_HARD_SWISH,
    linear.MATMUL_ADD_TO_GEMM,
    pooling.MEAN_TO_GLOBAL,
    pooling.AVERAGE_TO_GLOBAL,
    linear.GEMM_TO_CONV,
    linear.MATMUL_TO_CONV,
    activations.HARD_SWISH_TO_CLIP,
    activations.HARD_SWISH_BY_RELU6,
    activations.HARD_SIGMOID_TO_CLIP,
    activations.HARD_SIGMOID_BY_RELU6,
    activations.LEAKY_RELU_TO_MAX,
    pooling.GLOBAL_TO_MEAN,
    pooling.SPLIT_AVERAGE,
    pooling.GLOBAL_TO_AVERAGE,
    pooling.AVERAGE_TO_DEPTHWISE,
    pooling.CASCADE_MAX,
    slicing.SPLIT_TO_SLICE,
    slicing.GROUPED_TO_PARTS,
    slicing.GROUPED_TO_DENSE,
    resizing.SIZES_TO_SCALES,
    shuffling.TO_RESHAPE,
    shuffling.TO_CONV_TRANSPOSE,
    shuffling.TO_CONV,
    gelu.GELU_TO_TANH,
    activations.HARD_SWISH_TO_RELU6,
    activations.SILU_TO_HARD_SWISH,
    gelu.GELU_TO_SIGMOID,
    resizing.TO_NEAREST,
)
"""Exact rules first, then close ones, then those that need fine-tuning."""


def rule(name: str) -> Rule:
    """The rule called ``name``; raises ``ModelError`` with the nearest names when there is none."""
    names = {r.name: r for r in RULES}
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        fix = f"did you mean {' or '.join(near)}?" if near else f"the rules are {', '.join(names)}"
        raise ModelError("is not a rewrite rule", where=name, fix=fix)
    return names[name]


def candidates(model: onnx.ModelProto) -> tuple[Candidate, ...]:
    """Every place in a float ``model`` where a rule fits, in the order of ``RULES``, then of the model.

    Places may overlap, also those of one rule. The names are those of ``pipeline.graph.model.check``.

    Raises:
        ModelError: ``model`` is not valid, is quantized, or has an opset outside 13 to 23.
    """
    ready = lifted(prepared(model))
    return tuple(
        Candidate(r.name, tuple(str(n.name) for n in nodes)) for r in RULES for nodes in r.rewriter.find(ready)
    )
