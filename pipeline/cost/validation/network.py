"""A network given layer by layer, as float ONNX for this project and as the layers that other forms are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.model import check

SCALE = 0.01
"""Of every weight: the int8 form of a float weight is the weight over this."""
PERIOD = 99_991
"""Random weights repeat after this many, a prime; what encodes weights one by one cannot tell."""

Size = int | tuple[int, int]
Activation = Literal["none", "clamp", "swish"]
"""What follows a layer: nothing, a Clip to 0 and 6, or a Sigmoid that the layer's output is multiplied with."""


@dataclass(frozen=True)
class Layer:
    """One layer: ``conv``, ``depthwise``, ``average``, ``max``, ``add``, ``concat``, ``dense`` or ``resize``.

    Attributes:
        inputs: indices of the tensors that it reads; 0 is the network's input, layer ``i`` writes tensor ``i + 1``.
        kernel, stride, dilation: vertical and horizontal.
        activation: what follows it.
        weight: shape of its int8 weights in TensorFlow's order (output first, depthwise last), else ``()``.
        same: whether the input is padded as TensorFlow does for SAME.
    """

    kind: str
    inputs: tuple[int, ...]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    activation: Activation = "none"
    weight: tuple[int, ...] = ()
    same: bool = True


class Network:
    """Layers added one after another; ``last`` is the tensor added last, which a layer without ``source`` reads.

    Shapes are height, width and channels. Weights are random, the same ones every time.
    """

    def __init__(self, height: int, width: int, channels: int, activation: Activation = "clamp") -> None:
        """Start with an input of this shape; ``activation`` follows convolutions."""
        self.activation = activation
        self.shapes = [(height, width, channels)]
        self.layers: list[Layer] = []

    @property
    def last(self) -> int:
        """The tensor that the latest layer writes."""
        return len(self.shapes) - 1

    def add(self, layer: Layer, shape: tuple[int, int, int]) -> int:
        """Add ``layer``, whose output has ``shape``."""
        self.layers.append(layer)
        self.shapes.append(shape)
        return self.last

    def conv(
        self, channels: int, kernel: Size, stride: int = 1, clamp: bool = True, source: int | None = None,
        same: bool = True,
    ) -> int:  # fmt: skip
        """A convolution, followed by the network's activation if ``clamp``."""
        source = self.last if source is None else source
        size = _pair(kernel)
        weight = (channels, *size, self.shapes[source][2])
        kind: Activation = self.activation if clamp else "none"
        layer = Layer("conv", (source,), size, (stride, stride), activation=kind, weight=weight, same=same)
        return self.add(layer, (*self._after(source, size, stride, same), channels))

    def depthwise(self, stride: int = 1, kernel: int = 3, dilation: int = 1) -> int:
        """A depthwise convolution with a clamp."""
        channels, size = self.shapes[self.last][2], (kernel, kernel)
        layer = Layer(
            "depthwise",
            (self.last,),
            size,
            (stride, stride),
            (dilation, dilation),
            self.activation,
            (1, *size, channels),
        )
        return self.add(layer, (*self._after(self.last, size, stride, True), channels))

    def sum(self, a: int, b: int) -> int:
        """The sum of two tensors."""
        return self.add(Layer("add", (a, b)), self.shapes[a])

    def pool(
        self, kernel: int, stride: int, kind: str = "average", same: bool = False, source: int | None = None
    ) -> int:
        """A pool, ``average`` or ``max``."""
        source, size = self.last if source is None else source, (kernel, kernel)
        layer = Layer(kind, (source,), size, (stride, stride), same=same)
        return self.add(layer, (*self._after(source, size, stride, same), self.shapes[source][2]))

    def concat(self, *parts: int) -> int:
        """Channels of ``parts`` one after another."""
        height, width, _ = self.shapes[parts[0]]
        return self.add(Layer("concat", parts), (height, width, sum(self.shapes[p][2] for p in parts)))

    def dense(self, outputs: int, clamp: bool = False) -> int:
        """A fully connected layer over everything."""
        size = int(np.prod(self.shapes[self.last]))
        return self.add(
            Layer("dense", (self.last,), activation="clamp" if clamp else "none", weight=(outputs, size)),
            (1, 1, outputs),
        )

    def resize(self, height: int, width: int, source: int | None = None) -> int:
        """The nearest neighbours at another size."""
        source = self.last if source is None else source
        return self.add(Layer("resize", (source,)), (height, width, self.shapes[source][2]))

    def _after(self, source: int, kernel: tuple[int, int], stride: int, same: bool) -> tuple[int, int]:
        height, width, _ = self.shapes[source]
        if same:
            return -(-height // stride), -(-width // stride)
        return (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1

    @cached_property
    def weights(self) -> dict[int, NDArray[np.int8]]:
        """Random int8 weights by tensor: each output channel reaches 127, a dense layer as a whole."""
        random, result = np.random.default_rng(0), {}
        for index, layer in enumerate(self.layers, 1):
            if layer.weight:
                count = int(np.prod(layer.weight))
                values = np.resize(random.normal(0, 1, min(count, PERIOD)).astype(np.float32), layer.weight)
                axes = None if layer.kind == "dense" else (0, 1, 2) if layer.kind == "depthwise" else (1, 2, 3)
                peak = np.abs(values).max(axis=axes, keepdims=True)
                result[index] = np.rint(values / peak * 127).astype(np.int8)
        return result

    def model(self) -> onnx.ModelProto:
        """The float model; clamps are Clip nodes behind their operator. Tensor ``i`` is called ``t<i>``."""
        limits = [numpy_helper.from_array(np.array(v, np.float32), n) for v, n in ((0, "zero"), (6, "six"))]
        nodes: list[onnx.NodeProto] = []
        constants: list[onnx.TensorProto] = limits
        for index, layer in enumerate(self.layers, 1):
            more, held = self._nodes(index, layer)
            nodes += more
            constants += held
        given, made = [self._info(0)], [self._info(i) for i in self.outputs]
        graph = helper.make_graph(nodes, "net", given, made, constants)
        return check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net")

    @property
    def outputs(self) -> tuple[int, ...]:
        """The tensors that no layer reads."""
        read = {i for layer in self.layers for i in layer.inputs}
        return tuple(i for i in range(1, len(self.shapes)) if i not in read)

    def _info(self, index: int) -> onnx.ValueInfoProto:
        rows, columns, depth = self.shapes[index]
        flat = index and self.layers[index - 1].kind == "dense"
        shape = [1, depth] if flat else [1, depth, rows, columns]
        return helper.make_tensor_value_info(f"t{index}", TensorProto.FLOAT, shape)

    def _nodes(self, index: int, layer: Layer) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """The nodes of one layer, and their constants."""
        out = f"t{index}"
        made, given = out if layer.activation == "none" else f"{out}_raw", [f"t{i}" for i in layer.inputs]
        before: list[onnx.NodeProto] = []
        held: list[onnx.TensorProto] = []
        settings: dict[str, int | list[int]] = {}
        if layer.weight:
            form = self.weights[index].astype(np.float32) * SCALE
            order = {"dense": (0, 1), "depthwise": (3, 0, 1, 2), "conv": (0, 3, 1, 2)}[layer.kind]
            form = np.ascontiguousarray(form.transpose(order))
            held = [
                numpy_helper.from_array(form, f"w{index}"),
                numpy_helper.from_array(np.zeros(form.shape[0], np.float32), f"b{index}"),
            ]
            settings = {"group": form.shape[0]} if layer.kind == "depthwise" else {}
        if layer.kind == "dense" and (layer.inputs[0] == 0 or self.layers[layer.inputs[0] - 1].kind != "dense"):
            before, given = [helper.make_node("Flatten", given, [f"{out}_flat"], f"{out}_flat")], [f"{out}_flat"]
        if layer.kind == "dense":
            settings = {"transB": 1}
        elif layer.kind in ("conv", "depthwise"):
            settings |= {**self._window(layer), "dilations": list(layer.dilation)}
        elif layer.kind in ("average", "max"):
            settings = {**self._window(layer), "kernel_shape": list(layer.kernel)}
        elif layer.kind == "concat":
            settings = {"axis": 1}
        elif layer.kind == "resize":
            shape = self.shapes[index]
            sizes = np.array([1, shape[2], *shape[:2]], np.int64)
            held, given = [numpy_helper.from_array(sizes, f"s{index}")], [*given, "", "", f"s{index}"]
        names = [f"{letter}{index}" for letter in "wb"] if layer.weight else []
        node = helper.make_node(ONNX[layer.kind], [*given, *names], [made], made)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
        nodes = [*before, node]
        if layer.activation == "clamp":
            nodes.append(helper.make_node("Clip", [made, "zero", "six"], [out], f"{out}_clip"))
        if layer.activation == "swish":
            nodes.append(helper.make_node("Sigmoid", [made], [f"{out}_s"], f"{out}_sigmoid"))
            nodes.append(helper.make_node("Mul", [made, f"{out}_s"], [out], f"{out}_mul"))
        return nodes, held

    def _window(self, layer: Layer) -> dict[str, int | list[int]]:
        """Strides and padding as ONNX writes them."""
        pads = [0, 0]
        if layer.same:
            sides = zip(self.shapes[layer.inputs[0]][:2], layer.kernel, layer.stride, layer.dilation, strict=True)
            pads = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sides]
        before = [p // 2 for p in pads]
        return {"strides": list(layer.stride), "pads": [*before, *(p - b for p, b in zip(pads, before, strict=True))]}


ONNX = {
    "conv": "Conv", "depthwise": "Conv", "average": "AveragePool", "max": "MaxPool", "add": "Add", "concat": "Concat",
    "dense": "Gemm", "resize": "Resize",
}  # fmt: skip
"""The ONNX operator of each kind of layer."""


def _pair(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def parallel(net: Network, source: int, branches: Sequence[Sequence[tuple[int, Size]]]) -> list[int]:
    """Chains of convolutions (channels, kernel) that all start at ``source``; the ends of each."""
    ends = []
    for branch in branches:
        end = source
        for channels, kernel in branch:
            end = net.conv(channels, kernel, source=end)
        ends.append(end)
    return ends
