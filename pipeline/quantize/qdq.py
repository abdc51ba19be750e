"""Writing quantize/dequantize pairs: from a float ONNX model and encodings to the quantized model.

The quantized file carries parameters; what its integers mean is the target's contract (``runtime.npu.contracts``).
A tensor ``t`` becomes ``t`` -> QuantizeLinear -> ``t_quantized`` -> DequantizeLinear -> ``t_dequantized`` -> readers.
Operators that compute in another type read it behind a second pair of that type, ``t_int16``.
"""

from collections.abc import Mapping
from itertools import chain, count

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pipeline.errors import ModelError
from pipeline.graph.model import complete_names
from pipeline.graph.opsets import convert
from pipeline.graph.view import Node, view
from pipeline.quantize.encodings import ActivationEncoding, Encodings, WeightEncoding, computed_in
from pipeline.quantize.weights import channel_bias, has_weight, source_encoding


def insert(model: onnx.ModelProto, encodings: Encodings) -> onnx.ModelProto:
    """``model`` with int8 weights, int32 biases and a pair on every activation that ``encodings`` names.

    The model's input and output names and shapes stay. With int16 activations it is of opset 21 or newer.

    Raises:
        ModelError: an encoding names no tensor, or the model's operator set is too old for per-channel pairs, or cannot
            be converted to the one that int16 needs.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < OPSET:
        raise ModelError(f"has opset {opset}, quantize/dequantize pairs need {OPSET}", fix="export it with a newer one")
    if opset < WIDE_OPSET and any(e.dtype == "int16" for e in encodings.activations.values()):
        model = convert(model, WIDE_OPSET, "int16 activations")
    return _Writer(model, encodings).write()


OPSET = 13  # the first whose DequantizeLinear has an axis
WIDE_OPSET = 21  # the first whose pairs take int16


class _Writer:
    """Rebuilds the graph's node list once, front to back."""

    def __init__(self, model: onnx.ModelProto, encodings: Encodings) -> None:
        self.encodings = encodings
        self.result = onnx.ModelProto()
        self.result.CopyFrom(model)
        complete_names(self.result)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {i.name: i for i in model.graph.initializer}
        self.renamed: dict[str, str] = {}
        self.written: set[str] = set()
        self.outputs = {o.name for o in model.graph.output}
        self.graph = view(self.result)
        self.views: Mapping[str, Node] = {n.name: n for n in self.graph.nodes}
        activations = {v for n in model.graph.node for v in n.output} | {i.name for i in model.graph.input}
        self.taken = activations | set(self.constants)
        unknown = sorted(set(encodings.activations) - activations)
        if unknown:
            raise ModelError(f"the encodings name tensors that the model does not have: {', '.join(unknown[:3])}")

    def write(self) -> onnx.ModelProto:
        graph = self.result.graph
        for value in graph.input:
            if value.name not in self.outputs:
                self._pair(value.name)
        for node in graph.node:
            self._node(node)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        graph.initializer.extend(c for name, c in self.constants.items() if name in used)
        return onnx.shape_inference.infer_shapes(self.result, strict_mode=True, data_prop=True)

    def _node(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        seen = self.views.get(node.name)  # a node that reaches no output has no view
        encoded = len(node.input) > 1 and node.input[1] in self.encodings.weights
        if seen is not None and encoded and has_weight(seen, self.encodings.activations):
            self._weights(copy, seen)
        kind = None if seen is None else computed_in(self.graph, seen, self.encodings.activations)
        for index, name in enumerate(copy.input):
            copy.input[index] = self._read(name, kind)
        outputs = list(node.output)
        for index, name in enumerate(outputs):
            if name in self.outputs and name in self.encodings.activations:
                copy.output[index] = self._free(f"{name}_real")
        self.nodes.append(copy)
        for name in outputs:
            self._pair(name)

    def _pair(self, name: str) -> None:
        encoding = self.encodings.activations.get(name)
        if encoding is None:
            return
        is_output = name in self.outputs
        source = self._free(f"{name}_real") if is_output else name
        result = name if is_output else self._free(f"{name}_dequantized")
        parameters = self._activation_parameters(name, encoding)
        quantized = self._free(f"{name}_quantized")
        self._add("QuantizeLinear", [source, *parameters], quantized)
        self._add("DequantizeLinear", [quantized, *parameters], result)
        self.renamed[name] = result

    def _read(self, name: str, kind: str | None) -> str:
        """What an operator that computes in ``kind`` reads as ``name``."""
        own, wanted = self.encodings.activations.get(name), self.encodings.read(name, kind)
        result = self.renamed.get(name, name)
        if own is None or wanted is None or wanted.dtype == own.dtype:
            return result
        converted = self._free(f"{name}_{wanted.dtype}")
        if converted not in self.written:
            self.written.add(converted)
            parameters = self._activation_parameters(converted, wanted)
            quantized = self._free(f"{converted}_quantized")
            self._add("QuantizeLinear", [result, *parameters], quantized)
            self._add("DequantizeLinear", [quantized, *parameters], converted)
        return converted

    def _activation_parameters(self, name: str, encoding: ActivationEncoding) -> list[str]:
        scale = self._constant(f"{name}_scale", np.float32(encoding.scale))
        return [scale, self._constant(f"{name}_zero_point", np.array(encoding.zero_point, encoding.dtype))]

    def _weights(self, copy: onnx.NodeProto, node: Node) -> None:
        weight = node.required(1)
        encoding = self.encodings.weights[weight.name]
        scales = np.array(encoding.scales, np.float32)
        integers = round_weight(weight.real, encoding)
        copy.input[1] = self._dequantized(weight.name, integers, scales, encoding.axis)
        bias, values = node.input(2), channel_bias(node)
        if bias is None or values is None:
            return
        activation = source_encoding(self.graph, node, self.encodings)
        products = np.float32(activation.scale) * scales
        rounded = np.rint(values / products.astype(np.float64)).astype(np.int32)
        axis = None if encoding.axis is None else 0
        name = f"{bias.name}@{node.name}"  # a bias may serve several operators, each with its own scale
        copy.input[2] = self._dequantized(name, rounded, products, axis)

    def _dequantized(
        self, name: str, integers: NDArray[np.generic], scales: NDArray[np.float32], axis: int | None
    ) -> str:
        result = self._free(f"{name}_dequantized")
        if result not in self.written:
            self.written.add(result)
            scale = scales.reshape(()) if axis is None else scales
            inputs = [
                self._constant(f"{name}_quantized", integers),
                self._constant(f"{name}_scale", scale),
                self._constant(f"{name}_zero_point", np.zeros(scale.shape, integers.dtype)),
            ]
            self._add("DequantizeLinear", inputs, result, axis)
        return result

    def _free(self, name: str) -> str:
        """``name``, with a number behind it when the user's model has a value of that name."""
        return next(n for n in chain([name], (f"{name}#{i}" for i in count(2))) if n not in self.taken)

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        name = self._free(name)
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _add(self, op: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        node = helper.make_node(op, inputs, [output], name=f"{output}:{op}")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)


def round_weight(values: NDArray[np.generic], encoding: WeightEncoding) -> NDArray[np.int8]:
    """``values`` as symmetric int8 in [-127, 127], rounded to the nearest, ties to even."""
    scales = np.array(encoding.scales, np.float64)
    if encoding.axis is not None:
        along = [1] * values.ndim
        along[encoding.axis] = -1
        scales = scales.reshape(along)
    return np.clip(np.rint(values.astype(np.float64) / scales), -127, 127).astype(np.int8)
