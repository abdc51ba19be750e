"""One-operator int8 ``.tflite`` models in memory, and the two peers that run them. No TensorFlow needed."""

from dataclasses import dataclass

import numpy as np
import pytest

flatbuffers = pytest.importorskip("flatbuffers", reason="the TFLite peers are installed with the extra dev on Linux")
schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="building .tflite models needs ai-edge-litert (extra dev, Linux)"
)

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


def model(operator, tensors, inputs, output, options=None):
    """A ``.tflite`` file with one ``operator`` (its name in ``BuiltinOperator``)."""
    buffers, entries = [schema.BufferT()], []
    for index, tensor in enumerate(tensors):
        entry = schema.TensorT()
        entry.name, entry.shape = f"t{index}", list(tensor.shape)
        entry.type = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}[tensor.dtype]
        entry.buffer = 0
        if tensor.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            buffers.append(buffer)
            entry.buffer = len(buffers) - 1
        if tensor.scales:
            quantization = schema.QuantizationParametersT()
            quantization.scale = [float(scale) for scale in tensor.scales]
            quantization.zeroPoint = [tensor.zero_point] * len(tensor.scales)
            quantization.quantizedDimension = tensor.axis
            entry.quantization = quantization
        entries.append(entry)
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1 if operator == "RESHAPE" else 3
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, list(range(len(tensors) - 1)), [output]
    if options is not None:
        op.builtinOptions = options
        op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = entries, list(inputs), [output], [op]
    root = schema.ModelT()
    root.version, root.operatorCodes, root.subgraphs, root.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def options(name, **fields):
    """The builtin options ``name`` (without the T) with these fields."""
    value = getattr(schema, name + "T")()
    for key, content in fields.items():
        assert hasattr(value, key), key
        setattr(value, key, content)
    return value


def run_micro(content, feeds):
    """Output of tflite-micro."""
    micro = pytest.importorskip("tflite_micro", reason="the reference is tflite-micro (extra dev, Linux x86-64)")
    interpreter = micro.runtime.Interpreter.from_bytes(content)
    for index, feed in enumerate(feeds):
        interpreter.set_input(feed, index)
    interpreter.invoke()
    return np.array(interpreter.get_output(0))


def run_litert(content, feeds):
    """Output of LiteRT's reference kernels."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert (extra dev, Linux)")
    interpreter = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    for detail, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
