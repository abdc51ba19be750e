"""Resize in the forms that NPUs take."""

import numpy as np
import onnx_ir as ir

from pipeline.rewrites.nouns import Kind
from pipeline.rewrites.patterns import Patterns, single
from pipeline.rewrites.reading import Array, Builder, constant, dims, floats, given, source
from pipeline.rewrites.rule import Rule


def _scales(node: ir.Node) -> Array | None:
    """Output over input size per dimension, if ONNX's ``floor(size * scale)`` gives the output's size back."""
    before, after = dims(source(node)), dims(node.outputs[0])
    scales: Array = np.asarray(after, np.float32) / np.asarray(before, np.float32)
    same = np.array_equal(np.floor(np.asarray(before, np.float32) * scales), after)
    return scales if same else None


def _has_sizes(node: ir.Node) -> bool:
    """Whether a Resize is told the output's size, of the whole image, as constants."""
    stretched = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    crops = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    stated = constant(given(node, 3)) is not None and given(node, 2) is None
    return stated and stretched and not crops and "axes" not in node.attributes and _scales(node) is not None


def _to_scales(op: Builder, node: ir.Node) -> ir.Value:
    kept = {n: a for n, a in node.attributes.items() if n != "keep_aspect_ratio_policy"}
    return op.op("Resize", source(node), None, floats(op, _scales(node), f"{node.name}.scales"), **kept)


def _interpolates(node: ir.Node) -> bool:
    """Whether a Resize of an image enlarges height and width by whole factors, and is not nearest."""
    before, after = dims(source(node)), dims(node.outputs[0])
    whole = len(before) == 4 and before[:2] == after[:2] and all(b % a == 0 for a, b in zip(before, after, strict=True))
    stated = constant(given(node, 2)) is not None or constant(given(node, 3)) is not None
    crops = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return whole and stated and not crops and node.attributes.get_string("mode", "nearest") != "nearest"


def _to_nearest(op: Builder, node: ir.Node) -> ir.Value:
    scales = [b // a for a, b in zip(dims(source(node)), dims(node.outputs[0]), strict=True)]
    return op.op(
        "Resize",
        source(node),
        None,
        floats(op, scales, f"{node.name}.scales"),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


SIZES_TO_SCALES = Rule(
    "resize-sizes-to-scales",
    Kind.EXACT,
    "Resize to a stated size becomes Resize by stated factors.",
    Patterns((single("Resize", _has_sizes, _to_scales),)),
)
TO_NEAREST = Rule(
    "resize-to-nearest",
    Kind.NEEDS_FINE_TUNING,
    "Linear or cubic Resize by whole factors becomes nearest, which NPUs do by copying.",
    Patterns((single("Resize", _interpolates, _to_nearest),)),
)
