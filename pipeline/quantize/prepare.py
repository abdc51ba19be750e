"""A float model of the user's own, made ready for quantization: checked, fixed in size, batch norms folded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.errors import ModelError
from pipeline.graph.model import check, load
from pipeline.rewrites import batch_norm, folding
from pipeline.rewrites.rule import OPSETS

NORM_FOLDS = (batch_norm.FOLD, batch_norm.TO_DEPTHWISE)
"""What is rewritten first, after constants are folded: exact, and with nothing left to quantize where it was."""

QUANTIZED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "QGemm", "QLinearAdd",
})  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A float model that can be quantized.

    Attributes:
        model: float32 inputs of fixed shapes, weights finite.
        inputs: their shapes, by name, in the model's order.
        notes: what was changed on the way, each a sentence.
    """

    model: onnx.ModelProto
    inputs: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]


def prepare(path: Path, size: tuple[int, int] | None = None) -> Prepared:
    """The float model in ``path``, ready.

    Args:
        path: an ONNX file.
        size: width and height for inputs whose own are not fixed.

    Raises:
        ModelError: it cannot be read, is quantized already, has another operator set, no input, one that is not
            float32 or that no operator reads, an open dimension beside the batch, no output, one that is a constant, or
            a weight that is not finite; the message names what it is.
    """
    model = load(path)
    _refuse_quantized(model, path)
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if version not in OPSETS:
        said = f"has opset {version}; {OPSETS[0]} to {OPSETS[-1]} can be quantized"
        raise ModelError(said, where=path, fix="convert it with onnx.version_converter, or export it again")
    refuse_broken(model)
    _drop_constant_inputs(model)
    inputs, notes = _fix_inputs(model, path, size)
    if notes:
        model = check(model, path)
    normalizes = any(node.op_type == "BatchNormalization" for node in model.graph.node)
    for fold in (folding.FOLD_CONSTANTS, *(NORM_FOLDS if normalizes else ())):
        applied = fold.apply(model)
        model = applied.model
        if applied.replacements:
            notes = (*notes, f"{fold.name}: {len(applied.replacements)} place{'s' * (len(applied.replacements) > 1)}")
    _require_outputs(model, path)
    return Prepared(model, inputs, notes)


def _refuse_quantized(model: onnx.ModelProto, path: Path) -> None:
    found = [n for n in model.graph.node if n.op_type in QUANTIZED]
    if found:
        what = f"is quantized already: {len(found)} of its operators, {found[0].name} ({found[0].op_type}) first"
        raise ModelError(what, where=path, fix="give the float model it was made from")


def _require_outputs(model: onnx.ModelProto, path: Path) -> None:
    """Raise ``ModelError`` where nothing comes out, or something that does not depend on an input."""
    if not model.graph.output:
        raise ModelError("has no output", where=path, fix="export it with what it is to compute as an output")
    varying = {i.name for i in model.graph.input}
    for node in model.graph.node:  # in topological order
        if not varying.isdisjoint(node.input):
            varying.update(node.output)
    for output in model.graph.output:
        if output.name not in varying:
            raise ModelError("this output is a constant", where=output.name, fix="export the model without it")


def _drop_constant_inputs(model: onnx.ModelProto) -> None:
    """Leave out of the inputs, in place, what has a value: old exporters list every weight among them."""
    constants = {i.name for i in model.graph.initializer}
    for value in [i for i in model.graph.input if i.name in constants]:
        model.graph.input.remove(value)


def refuse_broken(model: onnx.ModelProto) -> None:
    """Raise ``ModelError`` for the first float weight that holds NaN or Inf, with its name and first operator."""
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        bad = int((~np.isfinite(numpy_helper.to_array(tensor))).sum())
        if bad:
            user = next((n.name for n in model.graph.node if tensor.name in n.input), "no operator")
            what = f"the weight holds {bad} value{'s' * (bad > 1)} that {'are' if bad > 1 else 'is'} not finite"
            raise ModelError(what, where=f"{tensor.name} of {user}", fix="check the checkpoint it was exported from")


def _fix_inputs(
    model: onnx.ModelProto, path: Path, size: tuple[int, int] | None
) -> tuple[Mapping[str, tuple[int, ...]], tuple[str, ...]]:
    """Names and shapes of the inputs, made fixed in place, and what was changed."""
    given, read = list(model.graph.input), {name for n in model.graph.node for name in n.input}
    if not given:
        raise ModelError("has no input", where=path, fix="export it with the image as an input")
    shapes, notes = {}, []
    for value in given:
        if value.name not in read:
            raise ModelError("no operator reads this input", where=value.name, fix="export the model without it")
        wanted, changed = _fix_input(value, size)
        shapes[value.name] = tuple(wanted)
        notes += [f"input {value.name} was fixed to {wanted}"] if changed else []
    if notes:
        _forget_shapes(model)
    return shapes, tuple(notes)


def _fix_input(given: onnx.ValueInfoProto, size: tuple[int, int] | None) -> tuple[list[int], bool]:
    """The shape of one input, made fixed in place, and whether it was not."""
    kind = given.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        dtype = onnx.helper.tensor_dtype_to_string(kind.elem_type).removeprefix("TensorProto.").lower()
        raise ModelError(f"its input is {dtype}, not float32", where=given.name, fix="export the float32 model")
    sizes = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
    if not sizes:
        raise ModelError(
            "its input is one number, or of no known rank", where=given.name, fix="give it a batch: [1, ...]"
        )
    wanted = _filled(sizes, size)
    if not all(wanted):
        shown = [d.dim_value or d.dim_param or "?" for d in kind.shape.dim]
        raise ModelError(
            f"its input has open dimensions: {shown}", where=given.name, fix="fix them: --size WIDTHxHEIGHT"
        )
    for dimension, value in zip(kind.shape.dim, wanted, strict=True):
        dimension.dim_value = value
    return wanted, sizes != wanted


def _filled(sizes: Sequence[int], size: tuple[int, int] | None) -> list[int]:
    """``sizes`` with an open batch as 1, and the open height and width of an image from ``size``."""
    filled = [sizes[0] or 1, *sizes[1:]] if sizes else []
    if size is not None and len(filled) == 4:
        places = (2, 3) if filled[1] in (1, 3) or not filled[1] else (1, 2)
        for place, value in zip(places, reversed(size), strict=True):
            filled[place] = filled[place] or value
    return filled


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Drop what the model says of shapes behind its input, which may name the dimensions that were open."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim:
            dimension.Clear()
