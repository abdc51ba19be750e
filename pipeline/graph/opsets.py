"""Versions of the ONNX operator set: which are read, and how older ones are brought up."""

import onnx
from onnx import version_converter

from pipeline.errors import ModelError, one_line

OLDEST, NATIVE, NEWEST = 7, 13, 23
"""The oldest that is converted, the oldest that is read as it is, and the newest that is known."""

IR = 8
"""The oldest file format that models are brought to: constants need not be inputs."""


def upgrade(model: onnx.ModelProto, where: object) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """``model`` at least at opset ``NATIVE``, and what to tell of it.

    Raises:
        ModelError: its opset is not known, or it is older and cannot be converted.
    """
    given = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), NEWEST)
    if not OLDEST <= given <= NEWEST:
        fix = "export it with opset 18" if given < OLDEST else f"export it with opset {NEWEST} or older"
        raise ModelError(f"is of opset {given}; known are {OLDEST} to {NEWEST}", where=where, fix=fix)
    if given >= NATIVE:
        _without_constant_inputs(model)
        return model, ()
    converted = convert(model, NATIVE, where)
    _without_constant_inputs(converted)
    return converted, (f"opset {given} was converted to {NATIVE} by onnx.version_converter",)


def convert(model: onnx.ModelProto, opset: int, where: object) -> onnx.ModelProto:
    """``model`` at ``opset``, an other than its own; raises ``ModelError`` where onnx cannot convert it."""
    given = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), NEWEST)
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError, version_converter.ConvertError) as error:
        what = f"is of opset {given} and cannot be converted to {opset}: {one_line(error)}"
        raise ModelError(what, where=where, fix=f"export it with opset {opset} or newer") from error


def _without_constant_inputs(model: onnx.ModelProto) -> None:
    """Constants that old files list as inputs too are constants."""
    constant = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constant]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, IR)
