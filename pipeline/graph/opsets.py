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
    try:
        converted = version_converter.convert_version(model, NATIVE)
    except (RuntimeError, ValueError, version_converter.ConvertError) as error:
        cause = one_line(error)
        what = f"is of opset {given} and cannot be converted to {NATIVE}: {cause}"
        raise ModelError(what, where=where, fix=f"export it with opset {NATIVE} or newer") from error
    _without_constant_inputs(converted)
    return converted, (f"opset {given} was converted to {NATIVE} by onnx.version_converter",)


def _without_constant_inputs(model: onnx.ModelProto) -> None:
    """Constants that old files list as inputs too are constants."""
    constant = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constant]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, IR)
