"""A network as an int8 ``.tflite`` file, which Vela reads: every activation at scale 0.05, every weight at 0.01."""

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.cost.validation.network import SCALE, Layer, Network

if TYPE_CHECKING:
    import flatbuffers

OPERATORS = {
    "conv": ("CONV_2D", "Conv2DOptions"), "depthwise": ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"),
    "average": ("AVERAGE_POOL_2D", "Pool2DOptions"), "max": ("MAX_POOL_2D", "Pool2DOptions"),
    "add": ("ADD", "AddOptions"), "concat": ("CONCATENATION", "ConcatenationOptions"),
    "dense": ("FULLY_CONNECTED", "FullyConnectedOptions"), "flat": ("RESHAPE", "ReshapeOptions"),
}  # fmt: skip
"""TensorFlow Lite's operator and the name of its options, by kind of layer; ``resize`` is left out."""
ACTIVATION = 0.05
"""Scale of every activation."""


def tflite(net: Network) -> bytes:
    """``net`` as an int8 model; its tensor ``i`` is called ``t<i>``. Needs flatbuffers and ai-edge-litert."""
    import flatbuffers  # noqa: PLC0415  only who runs Vela needs these
    from ai_edge_litert import schema_py_generated  # noqa: PLC0415

    return _Flat(schema_py_generated, net).build(flatbuffers.Builder(1 << 20))


class _Flat:
    """The model as it grows; ``schema`` is the generated module, whose classes are not typed."""

    def __init__(self, schema: ModuleType, net: Network) -> None:
        self.schema, self.net, self.model = schema, net, schema.ModelT()
        self.graph = schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []
        self.index: dict[int, int] = {}

    def build(self, builder: "flatbuffers.Builder") -> bytes:
        """The bytes of the file."""
        for i, shape in enumerate(self.net.shapes):
            at = max(i, 1) - 1  # the input of a dense network is flat, too
            dense = self.net.layers[at].kind == "dense"
            self.index[i] = self.tensor(f"t{i}", (1, shape[2]) if dense else (1, *shape))
        for i, layer in enumerate(self.net.layers, 1):
            self.layer(i, layer)
        self.graph.inputs, self.graph.outputs = [self.index[0]], [self.index[i] for i in self.net.outputs]
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def tensor(
        self, name: str, shape: tuple[int, ...], data: NDArray[np.generic] | None = None,
        scales: tuple[float, ...] = (ACTIVATION,), axis: int = 0,
    ) -> int:  # fmt: skip
        """Add a tensor, constant where ``data`` is given, and return its number."""
        entry = self.schema.TensorT()
        entry.name, entry.shape, entry.buffer = name, list(shape), 0
        wide = data is not None and data.dtype == np.int32
        entry.type = self.schema.TensorType.INT32 if wide else self.schema.TensorType.INT8
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            entry.buffer = len(self.model.buffers) - 1
        if scales:
            entry.quantization = self.schema.QuantizationParametersT()
            entry.quantization.scale, entry.quantization.zeroPoint = list(scales), [0] * len(scales)
            entry.quantization.quantizedDimension = axis
        self.graph.tensors.append(entry)
        return len(self.graph.tensors) - 1

    def layer(self, i: int, layer: Layer) -> None:
        """Add layer ``i`` with its constants."""
        given = [self.index[t] for t in layer.inputs]
        if layer.kind == "dense" and len(self.graph.tensors[given[0]].shape) > 2:
            size = int(np.prod(self.graph.tensors[given[0]].shape))
            shape = self.tensor(f"t{i}_shape", (2,), np.array([1, size], np.int32), ())
            flat = self.tensor(f"t{i}_flat", (1, size))
            self.operator("flat", [given[0], shape], flat, {"newShape": [1, size]})
            given = [flat]
        if layer.weight:
            last = layer.kind == "depthwise"
            outputs = layer.weight[3] if last else layer.weight[0]
            scales = (SCALE,) if layer.kind == "dense" else (SCALE,) * outputs
            given.append(self.tensor(f"t{i}_w", layer.weight, self.net.weights[i], scales, 3 if last else 0))
            bias = tuple(SCALE * ACTIVATION for _ in range(outputs))
            given.append(self.tensor(f"t{i}_b", (outputs,), np.zeros(outputs, np.int32), bias))
        self.operator(layer.kind, given, self.index[i], _settings(layer))

    def operator(self, kind: str, inputs: list[int], output: int, settings: Mapping[str, object]) -> None:
        """Add an operator."""
        name, options = OPERATORS[kind]
        number = getattr(self.schema.BuiltinOperator, name)
        known = [c.builtinCode for c in self.model.operatorCodes]
        if number not in known:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            code.version = 1 if kind == "flat" else 3
            self.model.operatorCodes.append(code)
            known.append(number)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(number), inputs, [output]
        operator.builtinOptions = getattr(self.schema, options + "T")()
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        for key, value in settings.items():
            setattr(operator.builtinOptions, key, value)
        self.graph.operators.append(operator)


def _settings(layer: Layer) -> dict[str, object]:
    """The options of a layer's operator."""
    if layer.kind == "concat":
        return {"axis": 3}
    settings: dict[str, object] = {"fusedActivationFunction": 3 if layer.activation == "clamp" else 0}
    if layer.kind in ("conv", "depthwise", "average", "max"):
        settings |= {"padding": 0 if layer.same else 1, "strideH": layer.stride[0], "strideW": layer.stride[1]}
    if layer.kind in ("conv", "depthwise"):
        settings |= {"dilationHFactor": layer.dilation[0], "dilationWFactor": layer.dilation[1]}
    if layer.kind in ("average", "max"):
        settings |= {"filterHeight": layer.kernel[0], "filterWidth": layer.kernel[1]}
    if layer.kind == "depthwise":
        settings["depthMultiplier"] = 1
    return settings
