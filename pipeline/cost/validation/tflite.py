"""A network as an int8 ``.tflite`` file, which Vela reads: every activation at scale 0.05, every weight at 0.01."""

from collections.abc import Mapping

import numpy as np

from pipeline.cost.validation.network import SCALE, Layer, Network
from pipeline.graph.tflite_writer import PADDING, RELU6, Op, Options, Tensor, network

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
    flat = _Flat(net)
    for i, layer in enumerate(net.layers, 1):
        flat.layer(i, layer)
    return network(flat.operators, flat.tensors, [flat.index[0]], [flat.index[i] for i in net.outputs])


class _Flat:
    """The model as it grows."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.tensors: list[Tensor] = []
        self.operators: list[Op] = []
        self.index: dict[int, int] = {}
        for i, shape in enumerate(net.shapes):
            at = max(i, 1) - 1  # the input of a dense network is flat, too
            dense = net.layers[at].kind == "dense"
            self.index[i] = self.tensor(Tensor((1, shape[2]) if dense else (1, *shape), (ACTIVATION,), name=f"t{i}"))

    def tensor(self, tensor: Tensor) -> int:
        """Add a tensor; its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def layer(self, i: int, layer: Layer) -> None:
        """Add layer ``i`` with its constants."""
        given = [self.index[t] for t in layer.inputs]
        if layer.kind == "dense" and len(self.tensors[given[0]].shape) > 2:
            size = int(np.prod(self.tensors[given[0]].shape))
            wanted = Tensor((2,), data=np.array([1, size], np.int32), dtype="int32", name=f"t{i}_shape")
            shape = self.tensor(wanted)
            flat = self.tensor(Tensor((1, size), (ACTIVATION,), name=f"t{i}_flat"))
            self.operator("flat", [given[0], shape], flat, {"newShape": [1, size]})
            given = [flat]
        if layer.weight:
            last = layer.kind == "depthwise"
            outputs = layer.weight[3] if last else layer.weight[0]
            scales = (SCALE,) if layer.kind == "dense" else (SCALE,) * outputs
            axis, zeros = 3 if last else 0, np.zeros(outputs, np.int32)
            given.append(self.tensor(Tensor(layer.weight, scales, 0, self.net.weights[i], axis, name=f"t{i}_w")))
            both = (SCALE * ACTIVATION,) * outputs
            given.append(self.tensor(Tensor((outputs,), both, 0, zeros, dtype="int32", name=f"t{i}_b")))
        self.operator(layer.kind, given, self.index[i], _settings(layer))

    def operator(self, kind: str, inputs: list[int], output: int, settings: Mapping[str, object]) -> None:
        """Add an operator."""
        name, table = OPERATORS[kind]
        self.operators.append(Op(name, inputs, output, Options(table, settings)))


def _settings(layer: Layer) -> dict[str, object]:
    """The options of a layer's operator."""
    if layer.kind == "concat":
        return {"axis": 3}
    settings: dict[str, object] = {"fusedActivationFunction": RELU6 if layer.activation == "clamp" else 0}
    if layer.kind in ("conv", "depthwise", "average", "max"):
        settings |= {"padding": PADDING["SAME" if layer.same else "VALID"]}
        settings |= {"strideH": layer.stride[0], "strideW": layer.stride[1]}
    if layer.kind in ("conv", "depthwise"):
        settings |= {"dilationHFactor": layer.dilation[0], "dilationWFactor": layer.dilation[1]}
    if layer.kind in ("average", "max"):
        settings |= {"filterHeight": layer.kernel[0], "filterWidth": layer.kernel[1]}
    if layer.kind == "depthwise":
        settings["depthMultiplier"] = 1
    return settings
