"""Quantized ``.tflite`` models in memory, and the two peers that run them. No TensorFlow needed."""

from dataclasses import dataclass

import numpy as np
import pytest

flatbuffers = pytest.importorskip("flatbuffers", reason="the TFLite peers are installed with the extra dev on Linux")
schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="building .tflite models needs ai-edge-litert (extra dev, Linux)"
)

ARENA = 1 << 24
"""Bytes that tflite-micro may use."""

PADDING = {"SAME": 0, "VALID": 1}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model: int8 or int32, quantized per tensor (one scale) or per channel along ``axis``."""

    shape: tuple
    scales: tuple = ()
    zero_point: int = 0
    data: np.ndarray | None = None
    axis: int = 0
    dtype: str = "int8"


VERSIONS = {
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
"""Operator versions that LiteRT's resolver demands; all others have 3."""


@dataclass(frozen=True)
class Op:
    """An operator of a network: its name in ``BuiltinOperator``, its tensors by index, its options."""

    name: str
    inputs: list
    output: int
    options: object = None


def model(operator, tensors, inputs, output, options=None):
    """A ``.tflite`` file with one ``operator`` that reads all tensors but the last, which it writes."""
    return network([Op(operator, list(range(len(tensors) - 1)), output, options)], tensors, inputs, [output])


def network(operators, tensors, inputs, outputs):
    """A ``.tflite`` file of several operators."""
    buffers, entries = [schema.BufferT()], [_entry(i, tensor) for i, tensor in enumerate(tensors)]
    for tensor, entry in zip(tensors, entries, strict=True):
        if tensor.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            buffers.append(buffer)
            entry.buffer = len(buffers) - 1
    names = list(dict.fromkeys(each.name for each in operators))
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = entries, list(inputs), list(outputs)
    graph.operators = [_operator(each, names) for each in operators]
    root = schema.ModelT()
    root.version, root.operatorCodes, root.subgraphs = 3, [_code(name) for name in names], [graph]
    root.buffers = buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _entry(index, tensor):
    entry = schema.TensorT()
    entry.name, entry.shape = f"t{index}", list(tensor.shape)
    entry.type, entry.buffer = getattr(schema.TensorType, tensor.dtype.upper()), 0
    if tensor.scales:
        quantization = schema.QuantizationParametersT()
        quantization.scale = [float(scale) for scale in tensor.scales]
        quantization.zeroPoint = [tensor.zero_point] * len(tensor.scales)
        quantization.quantizedDimension = tensor.axis
        entry.quantization = quantization
    return entry


def _code(name):
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = VERSIONS.get(name, 3)
    return code


def _operator(each, names):
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = names.index(each.name), list(each.inputs), [each.output]
    if each.options is not None:
        op.builtinOptions = each.options
        op.builtinOptionsType = getattr(schema.BuiltinOptions, type(each.options).__name__.removesuffix("T"))
    return op


def options(name, **fields):
    """The builtin options ``name`` (without the T) with these fields."""
    value = getattr(schema, name + "T")()
    for key, content in fields.items():
        assert hasattr(value, key), key
        setattr(value, key, content)
    return value


def run_micro(content, feeds, outputs=1):
    """Output of tflite-micro; a list of several."""
    micro = pytest.importorskip("tflite_micro", reason="the reference is tflite-micro (extra dev, Linux x86-64)")
    interpreter = micro.runtime.Interpreter.from_bytes(content, arena_size=ARENA)
    for index, feed in enumerate(feeds):
        interpreter.set_input(feed, index)
    interpreter.invoke()
    found = [np.array(interpreter.get_output(index)) for index in range(outputs)]
    return found[0] if outputs == 1 else found


def run_litert(content, feeds, outputs=1):
    """Output of LiteRT's reference kernels; a list of several."""
    interpreter = open_litert(content)
    for detail, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    interpreter.invoke()
    found = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return found[0] if outputs == 1 else found


def open_litert(content, threads=1):
    """LiteRT's interpreter with its reference kernels, ready to invoke."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert (extra dev, Linux)")
    interpreter = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        num_threads=threads,
    )
    interpreter.allocate_tensors()
    return interpreter
