"""Write ``.tflite`` files from operators and tensors. Needs flatbuffers and ai-edge-litert's schema; no TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING: Mapping[str, int] = MappingProxyType({"SAME": 0, "VALID": 1})
"""The schema's ``Padding``."""

RELU, RELU6 = 1, 3
"""The schema's ``ActivationFunctionType`` of clamps; 0 is none."""

VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "RESHAPE": 1,
        "HARD_SWISH": 1,
        "PRELU": 1,
        "PAD": 1,
        "SUM": 1,
        "REDUCE_MAX": 1,
        "DEPTH_TO_SPACE": 1,
        "SPACE_TO_DEPTH": 1,
        "LEAKY_RELU": 2,
    }
)
"""Operator versions that LiteRT's resolver demands; all others have 3."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model, quantized per tensor (one scale) or per channel along ``axis``.

    Attributes:
        shape: TensorFlow's order, channels last.
        scales: none: it is not quantized.
        zero_point: of all its channels.
        data: its value where it is constant.
        axis: along which it is quantized per channel.
        dtype: ``int8`` or another name of numpy.
        name: what the file calls it; ``t<index>`` where it is empty.
    """

    shape: tuple[int, ...]
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    data: NDArray[Any] | None = None
    axis: int = 0
    dtype: str = "int8"
    name: str = ""


@dataclass(frozen=True)
class Options:
    """An operator's options: their table in the schema, such as ``Conv2DOptions``, and the fields that are set."""

    table: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class Op:
    """An operator: its name in the schema's ``BuiltinOperator``, its tensors by index, its options."""

    name: str
    inputs: Sequence[int]
    output: int
    options: Options | None = None


def network(operators: Sequence[Op], tensors: Sequence[Tensor], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """The file of a network whose inputs and outputs are the tensors of these indices.

    Raises:
        ModuleNotFoundError: flatbuffers or ai-edge-litert is not installed.
        AttributeError: the schema has no such operator, table or field.
    """
    schema = import_module("ai_edge_litert.schema_py_generated")
    buffers = [schema.BufferT()]
    entries = [_entry(schema, tensor, tensor.name or f"t{i}") for i, tensor in enumerate(tensors)]
    for tensor, entry in zip(tensors, entries, strict=True):
        if tensor.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            buffers.append(buffer)
            entry.buffer = len(buffers) - 1
    names = list(dict.fromkeys(each.name for each in operators))
    graph, root = schema.SubGraphT(), schema.ModelT()
    graph.tensors, graph.inputs, graph.outputs = entries, list(inputs), list(outputs)
    graph.operators = [_operator(schema, each, names) for each in operators]
    root.version, root.operatorCodes, root.subgraphs = 3, [_code(schema, name) for name in names], [graph]
    root.buffers = buffers
    builder = import_module("flatbuffers").Builder(1 << 20)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _entry(schema: ModuleType, tensor: Tensor, name: str) -> Any:  # noqa: ANN401 - the schema's classes have no types
    entry = schema.TensorT()
    entry.name, entry.shape = name, list(tensor.shape)
    entry.type, entry.buffer = getattr(schema.TensorType, tensor.dtype.upper()), 0
    if tensor.scales:
        quantization = schema.QuantizationParametersT()
        quantization.scale = [float(scale) for scale in tensor.scales]
        quantization.zeroPoint = [tensor.zero_point] * len(tensor.scales)
        quantization.quantizedDimension = tensor.axis
        entry.quantization = quantization
    return entry


def _code(schema: ModuleType, name: str) -> Any:  # noqa: ANN401
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = VERSIONS.get(name, 3)
    return code


def _operator(schema: ModuleType, each: Op, names: Sequence[str]) -> Any:  # noqa: ANN401
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = names.index(each.name), list(each.inputs), [each.output]
    if each.options is not None:
        table = getattr(schema, each.options.table + "T")()
        for key, value in each.options.fields.items():
            if not hasattr(table, key):
                raise AttributeError(f"{each.options.table} has no field {key}")
            setattr(table, key, value)
        op.builtinOptions, op.builtinOptionsType = table, getattr(schema.BuiltinOptions, each.options.table)
    return op
