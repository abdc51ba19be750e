"""Networks in two forms: an int8 ``.tflite`` for Vela, and float ONNX for this project."""

import functools
from types import MappingProxyType

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.model import check
from pipeline.graph.view import view


class Network:
    """Layers added one after another, with TensorFlow's SAME padding; ``last`` is the tensor added last."""

    def __init__(self, height, width, channels, seed=0):
        self.random = np.random.default_rng(seed)
        self.shapes = [(height, width, channels)]
        self.layers = []  # (name, kind, inputs, kernel, stride, activation, weights)
        self.last = 0

    def add(self, kind, shape, inputs, kernel=1, stride=1, clamp=False, weight=None, same=True):
        weights = None if weight is None else self._weights(weight)
        self.shapes.append(shape)
        self.layers.append((kind, tuple(inputs), kernel, stride, clamp, weights, same))
        self.last = len(self.shapes) - 1
        return self.last

    def _weights(self, shape):
        """Random weights whose symmetric scales are 0.01: one per output channel, one for all of a dense layer."""
        values = self.random.normal(0, 1, shape)
        axes = None if len(shape) == 2 else (0, 1, 2) if shape[0] == 1 else (1, 2, 3)
        return np.rint(values / np.abs(values).max(axis=axes, keepdims=True) * 127).astype(np.int8)

    def conv(self, channels, kernel, stride=1, clamp=True, source=None):
        source = self.last if source is None else source
        h, w, c = self.shapes[source]
        shape = (-(-h // stride), -(-w // stride), channels)
        return self.add("conv", shape, [source], kernel, stride, clamp, (channels, kernel, kernel, c))

    def depthwise(self, stride=1, kernel=3):
        h, w, c = self.shapes[self.last]
        shape = (-(-h // stride), -(-w // stride), c)
        return self.add("depthwise", shape, [self.last], kernel, stride, True, (1, kernel, kernel, c))

    def sum(self, a, b):
        return self.add("add", self.shapes[a], [a, b])

    def pool(self, kernel, stride, kind="average", same=False):
        h, w, c = self.shapes[self.last]
        size = [-(-s // stride) if same else (s - kernel) // stride + 1 for s in (h, w)]
        return self.add(kind, (*size, c), [self.last], kernel, stride, same=same)

    def concat(self, a, b):
        h, w, c = self.shapes[a]
        return self.add("concat", (h, w, c + self.shapes[b][2]), [a, b])

    def dense(self, outputs, clamp=False):
        size = int(np.prod(self.shapes[self.last]))
        return self.add("dense", (1, 1, outputs), [self.last], clamp=clamp, weight=(outputs, size))


def mobilenet_v1(alpha=1.0, size=224, classes=1001):
    net = Network(size, size, 3)

    def width(channels):
        return max(8, int(channels * alpha))

    net.conv(width(32), 3, 2)
    for channels, stride in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]:
        net.depthwise(stride)
        net.conv(width(channels), 1)
    net.pool(net.shapes[net.last][0], 1)
    net.conv(classes, 1, clamp=False)
    return net


def mobilenet_v2(size=224, classes=1000):
    net = Network(size, size, 3)
    net.conv(32, 3, 2)
    before = 32
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, channels, count, first in blocks:
        for index in range(count):
            source, stride = net.last, first if index == 0 else 1
            if factor > 1:
                net.conv(before * factor, 1)
            net.depthwise(stride)
            out = net.conv(channels, 1, clamp=False)
            if stride == 1 and before == channels:
                net.sum(source, out)
            before = channels
    net.conv(1280, 1)
    net.pool(net.shapes[net.last][0], 1)
    net.dense(classes)
    return net


def resnet8():
    """The image classifier of MLPerf Tiny."""
    net = Network(32, 32, 3)
    net.conv(16, 3)
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        source = net.last
        net.conv(channels, 3, stride)
        out = net.conv(channels, 3, clamp=False)
        net.sum(source if stride == 1 else net.conv(channels, 1, stride, clamp=False, source=source), out)
    net.pool(8, 1)
    net.dense(10)
    return net


def dense_only():
    """The autoencoder of MLPerf Tiny: nothing but fully connected layers, whose weights nothing hides."""
    net = Network(1, 1, 640)
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        net.dense(width, clamp=True)
    net.dense(640)
    return net


def squeezenet(size=224):
    net = Network(size, size, 3)
    net.conv(64, 3, 2)
    net.pool(3, 2, "max")
    fires = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    for index, (squeeze, expand) in enumerate(fires):
        if index in (2, 4):
            net.pool(3, 2, "max")
        source = net.conv(squeeze, 1)
        net.concat(net.conv(expand, 1, source=source), net.conv(expand, 3, source=source))
    net.conv(1000, 1)
    net.pool(net.shapes[net.last][0], 1)
    return net


def inception_v1():
    net = Network(224, 224, 3)
    net.conv(64, 7, 2)
    net.pool(3, 2, "max", same=True)
    net.conv(64, 1)
    net.conv(192, 3)
    cells = [
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
    ]
    cells += [(128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)] * 1
    cells += [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)]
    for index, (one, three_in, three, five_in, five, side) in enumerate(cells):
        if index in (0, 2, 7):
            net.pool(3, 2, "max", same=True)
        source = net.last
        left = net.concat(net.conv(one, 1, source=source), _pair(net, source, three_in, three))
        right = _pair(net, source, five_in, five)
        net.last = source
        net.pool(3, 1, "max", same=True)
        net.concat(left, net.concat(right, net.conv(side, 1)))
    net.pool(7, 1)
    net.dense(1001)
    return net


def _pair(net, source, inner, outer):
    net.conv(inner, 1, source=source)
    return net.conv(outer, 3)


def vgg16_features():
    net = Network(224, 224, 3)
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            net.conv(channels, 3)
        net.pool(2, 2, "max")
    return net


def resnet50():
    net = Network(224, 224, 3)
    net.conv(64, 7, 2)
    net.pool(3, 2, "max", same=True)
    for channels, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            source, stride = net.last, first if index == 0 else 1
            net.conv(channels, 1)
            net.conv(channels, 3, stride)
            out = net.conv(4 * channels, 1, clamp=False)
            side = net.conv(4 * channels, 1, stride, clamp=False, source=source) if index == 0 else source
            net.sum(side, out)
    net.pool(7, 1)
    net.dense(1000)
    return net


def onnx_model(net):
    """``net`` as a float ONNX model; clamps are Clip nodes behind their operator."""
    nodes, constants = [], [numpy_helper.from_array(np.array(v, np.float32), n) for v, n in ((0, "zero"), (6, "six"))]
    names = {0: "t0"}
    for index, (kind, inputs, kernel, stride, clamp, weights, same) in enumerate(net.layers, 1):
        given, out = [names[i] for i in inputs], f"t{index}"
        made = f"{out}_raw" if clamp else out
        pads = _same(net.shapes[inputs[0]], kernel, stride) if same else [0, 0, 0, 0]
        window = {"strides": [stride, stride], "pads": pads}
        if weights is not None:
            form = weights.astype(np.float32) * 0.01
            form = (
                form
                if kind == "dense"
                else form.transpose(3, 0, 1, 2)
                if kind == "depthwise"
                else form.transpose(0, 3, 1, 2)
            )
            constants.append(numpy_helper.from_array(np.ascontiguousarray(form), f"w{index}"))
            constants.append(numpy_helper.from_array(np.zeros(form.shape[0], np.float32), f"b{index}"))
        if kind in ("conv", "depthwise"):
            group = form.shape[0] if kind == "depthwise" else 1
            nodes.append(
                helper.make_node("Conv", [*given, f"w{index}", f"b{index}"], [made], made, group=group, **window)
            )
        elif kind == "dense":
            if index == 1 or net.layers[inputs[0] - 1][0] != "dense":
                nodes.append(helper.make_node("Flatten", given, [f"{out}_flat"], f"{out}_flat"))
                given = [f"{out}_flat"]
            nodes.append(helper.make_node("Gemm", [*given, f"w{index}", f"b{index}"], [made], made, transB=1))
        elif kind in ("average", "max"):
            op = "AveragePool" if kind == "average" else "MaxPool"
            nodes.append(helper.make_node(op, given, [made], made, kernel_shape=[kernel, kernel], **window))
        else:
            extra = {"axis": 1} if kind == "concat" else {}
            nodes.append(helper.make_node("Add" if kind == "add" else "Concat", given, [made], made, **extra))
        if clamp:
            nodes.append(helper.make_node("Clip", [made, "zero", "six"], [out], f"{out}_clip"))
        names[index] = out
    (h, w, c), (height, width, channels) = net.shapes[0], net.shapes[net.last]
    shape = [1, channels] if net.layers[-1][0] == "dense" else [1, channels, height, width]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, [1, c, h, w])],
        [helper.make_tensor_value_info(names[net.last], TensorProto.FLOAT, shape)], constants,
    )  # fmt: skip
    return check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net")


def graph_of(net):
    return view(onnx_model(net))


def _same(shape, kernel, stride):
    pads = []
    for size in shape[:2]:
        pads.append(max((-(-size // stride) - 1) * stride + kernel - size, 0))
    return [pads[0] // 2, pads[1] // 2, pads[0] - pads[0] // 2, pads[1] - pads[1] // 2]


def tflite(net):
    """``net`` as the bytes of an int8 ``.tflite``; tensor ``i`` of the network is called ``t<i>``."""
    flatbuffers = pytest.importorskip("flatbuffers", reason="Vela's models need flatbuffers (extra dev, Linux)")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs ai-edge-litert (extra dev, Linux)")
    return _Flat(schema, net).build(flatbuffers.Builder(1 << 20))


OPERATORS = MappingProxyType({
        "conv": ("CONV_2D", "Conv2DOptions"), "depthwise": ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"),
        "average": ("AVERAGE_POOL_2D", "Pool2DOptions"), "max": ("MAX_POOL_2D", "Pool2DOptions"),
        "add": ("ADD", "AddOptions"), "concat": ("CONCATENATION", "ConcatenationOptions"),
        "dense": ("FULLY_CONNECTED", "FullyConnectedOptions"), "flat": ("RESHAPE", "ReshapeOptions"),
})  # fmt: skip


class _Flat:
    def __init__(self, schema, net):
        self.schema, self.net = schema, net
        self.buffers, self.tensors, self.operators, self.codes = [schema.BufferT()], [], [], []
        self.index = {}

    def build(self, builder):
        flat = self.net.layers[0][0] == "dense"
        for i, shape in enumerate(self.net.shapes):
            dense = (flat and i == 0) or (i > 0 and self.net.layers[i - 1][0] == "dense")
            self.index[i] = self.tensor(f"t{i}", (1, shape[2]) if dense else (1, *shape))
        for i, layer in enumerate(self.net.layers, 1):
            self.layer(i, *layer)
        graph, root = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [self.index[0]], [self.index[self.net.last]]
        root.version, root.operatorCodes, root.subgraphs, root.buffers = 3, self.codes, [graph], self.buffers
        builder.Finish(root.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def tensor(self, name, shape, data=None, scales=(0.05,), axis=0):
        entry = self.schema.TensorT()
        entry.name, entry.shape, entry.buffer = name, list(shape), 0
        wide = data is not None and data.dtype == np.int32
        entry.type = self.schema.TensorType.INT32 if wide else self.schema.TensorType.INT8
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            entry.buffer = len(self.buffers) - 1
        if scales:
            entry.quantization = self.schema.QuantizationParametersT()
            entry.quantization.scale, entry.quantization.zeroPoint = [float(s) for s in scales], [0] * len(scales)
            entry.quantization.quantizedDimension = axis
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def layer(self, i, kind, inputs, kernel, stride, clamp, weights, same):
        given = [self.index[t] for t in inputs]
        if kind == "dense" and len(self.tensors[given[0]].shape) > 2:
            size = int(np.prod(self.tensors[given[0]].shape))
            shape = self.tensor(f"t{i}_shape", (2,), np.array([1, size], np.int32), ())
            flat = self.tensor(f"t{i}_flat", (1, size))
            self.operator("flat", [given[0], shape], flat, newShape=[1, size])
            given = [flat]
        if weights is not None:
            outputs = weights.shape[3] if kind == "depthwise" else weights.shape[0]
            count, axis = (1, 0) if kind == "dense" else (outputs, 3 if kind == "depthwise" else 0)
            given.append(self.tensor(f"t{i}_w", weights.shape, weights, [0.01] * count, axis))
            given.append(self.tensor(f"t{i}_b", (outputs,), np.zeros(outputs, np.int32), [0.0005] * count))
        settings = {}
        if kind in ("conv", "depthwise", "average", "max"):
            settings = {"padding": 0 if same else 1, "strideH": stride, "strideW": stride}
        if kind in ("conv", "depthwise"):
            settings |= {"dilationHFactor": 1, "dilationWFactor": 1}
        if kind in ("average", "max"):
            settings |= {"filterHeight": kernel, "filterWidth": kernel}
        if kind == "depthwise":
            settings["depthMultiplier"] = 1
        if kind == "concat":
            settings["axis"] = 3
        self.operator(kind, given, self.index[i], fusedActivationFunction=3 if clamp else 0, **settings)

    def operator(self, kind, inputs, output, **settings):
        name, options = OPERATORS[kind]
        number = getattr(self.schema.BuiltinOperator, name)
        known = [c.builtinCode for c in self.codes]
        if number not in known:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = (
                number,
                min(number, 127),
                1 if kind == "flat" else 3,
            )
            self.codes.append(code)
            known.append(number)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(number), inputs, [output]
        operator.builtinOptions = getattr(self.schema, options + "T")()
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        for key, value in settings.items():
            if hasattr(operator.builtinOptions, key):
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)


@functools.cache
def works_of(make):
    """The works of the network that ``make`` builds."""
    from pipeline.cost.work import works  # noqa: PLC0415  the tests of tflite alone need no cost model

    return works(graph_of(make()))
