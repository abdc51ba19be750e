"""From an operator of a graph to the work that it asks of a device."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pipeline.cost.density import encoded_density
from pipeline.cost.nouns import Activation, Kind, Work
from pipeline.graph.fusion import fused_activation
from pipeline.graph.macs import macs
from pipeline.graph.view import Graph, Node, Tensor

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), Kind.POOL),
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), Kind.POOL),
        **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean", "Where"), Kind.ELEMENTWISE),
        **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "PRelu", "Abs", "Neg", "Cast"), Kind.ELEMENTWISE),
        **dict.fromkeys(("BatchNormalization", "QuantizeLinear", "DequantizeLinear"), Kind.ELEMENTWISE),
        **dict.fromkeys(("Equal", "Less", "Greater", "Not", "And", "Or", "Floor", "Ceil", "Round"), Kind.ELEMENTWISE),
        **dict.fromkeys(("Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Gelu", "Elu", "Selu", "Swish"), Kind.LUT),
        **dict.fromkeys(("Exp", "Log", "Sqrt", "Erf", "Reciprocal", "Softplus", "Softsign", "Mish", "Celu"), Kind.LUT),
        **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization"), Kind.LUT),
        **dict.fromkeys(("GroupNormalization", "RMSNormalization", "LpNormalization", "LRN"), Kind.LUT),
        **dict.fromkeys(("Concat", "Slice", "Split", "Pad", "Transpose", "Resize", "Upsample", "Tile"), Kind.COPY),
        **dict.fromkeys(("DepthToSpace", "SpaceToDepth", "Gather", "GatherElements", "GatherND", "Expand"), Kind.COPY),
        **dict.fromkeys(("ScatterND", "ScatterElements"), Kind.COPY),
        **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape"), Kind.VIEW),
    }
)
"""How operators without weights keep a device busy; anything else is ``OTHER``."""

PASSES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("Softmax", "LogSoftmax"), 5),
        **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), 6),
        **dict.fromkeys(("RMSNormalization", "LpNormalization", "LRN"), 4),
    }
)
"""Walks over the data: Softmax finds the maximum, subtracts, exponentiates, sums, scales; a layer norm likewise."""


WIDE: Mapping[str, int] = MappingProxyType({"int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8})
"""Bytes of the types that stay as they are; a real number becomes int8."""


def works(graph: Graph) -> tuple[Work, ...]:
    """The work of every operator of ``graph`` in its order; a clamp that is fused into another is no work of its own.

    Raises ``ModelError`` when a shape is not static.
    """
    fused = {node.name: fused_activation(graph, node) for node in graph.nodes}
    inside = {clamp.name for clamp in fused.values() if clamp is not None}
    return tuple(describe(node, fused[node.name]) for node in graph.nodes if node.name not in inside)


def describe(node: Node, clamp: Node | None = None) -> Work:
    """The work of ``node``, the fused ``clamp`` included. A float model counts as its int8 form, int16 as it is.

    Raises ``ModelError`` when a shape is not static.
    """
    if node.standard and node.op in ("Conv", "ConvTranspose"):
        return _convolution(node, clamp)
    if node.standard and node.op in ("Gemm", "MatMul"):
        return _product(node, clamp)
    return _plain(node, clamp)


def _plain(node: Node, clamp: Node | None) -> Work:
    kind = KINDS.get(node.op, Kind.OTHER) if node.standard else Kind.OTHER
    pooled = kind is Kind.POOL and "Pool" in node.op
    places = _maps if pooled else _places
    after = places(node.outputs[0])
    before = places(node.activations[0]) if node.activations else after
    kernel, stride = (1, 1), (1, 1)
    if "kernel_shape" in node.attributes:
        kernel, stride = _pair(node.ints("kernel_shape", ())), _pair(node.ints("strides", ()))
    elif kind is Kind.POOL:
        ratio = max(1, math.prod(before) // max(1, math.prod(after)))
        kernel = before[:2] if ratio == before[0] * before[1] else (1, ratio)
    work = Work(node.name, node.op, kind, *after, *before, kernel, stride, passes=PASSES.get(node.op, 1))
    return _with_traffic(work, node, clamp)


def _convolution(node: Node, clamp: Node | None) -> Work:
    after, before, weight = _maps(node.outputs[0]), _maps(node.required(0)), node.required(1)
    kernel, groups = _pair(weight.dims[2:]), node.int("group", 1)
    transposed = node.op == "ConvTranspose"
    kind = Kind.DEPTHWISE if groups > 1 and groups == before[2] else Kind.CONV
    work = Work(
        node.name, node.op, kind, *after, *before, kernel,
        (1, 1) if transposed else _pair(node.ints("strides", ())), _pair(node.ints("dilations", ())), groups,
        macs=macs(node), density=encoded_density(weight, channels_first=not transposed),
    )  # fmt: skip
    return _with_traffic(work, node, clamp)


def _product(node: Node, clamp: Node | None) -> Work:
    out = node.outputs[0].dims
    columns = out[-1] if out else 1
    rows = max(1, math.prod(out) // max(1, columns))
    total = macs(node)
    inner = max(1, total // max(1, rows * columns))
    weight = node.input(1)
    density = 1.0 if weight is None else encoded_density(weight, channels_first=False)
    kind = Kind.FC if rows == 1 else Kind.CONV
    work = Work(node.name, node.op, kind, 1, rows, columns, 1, rows, inner, macs=total, density=density)
    return _with_traffic(work, node, clamp)


def _with_traffic(work: Work, node: Node, clamp: Node | None) -> Work:
    """``work`` with the bytes and names of what ``node`` reads and ``clamp`` or it writes."""
    last = node if clamp is None else clamp
    constants = [t for t in node.inputs if t is not None and t.constant is not None and t.dtype == "float32"]
    return replace(
        work,
        element_bytes=max((element_bytes(t) for t in last.outputs if t.quantization is not None), default=1),
        in_bytes=tuple(tensor_bytes(t) for t in node.activations),
        out_bytes=sum(tensor_bytes(t) for t in last.outputs),
        weight_bytes=sum(math.prod(t.dims) * (4 if _is_bias(node, t) else 1) for t in constants),
        activation=Activation.NONE if clamp is None else Activation.CLAMP,
        inputs=tuple(t.wire for t in node.activations),
        outputs=tuple(t.wire for t in last.outputs),
    )


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of ``tensor`` on the device. Raises ``ModelError`` without a static shape."""
    return math.prod(tensor.dims) * element_bytes(tensor)


def element_bytes(tensor: Tensor) -> int:
    """Bytes of one value on the device: a quantized tensor's type; a real number counts as int8."""
    return WIDE.get(tensor.dtype if tensor.quantization is None else tensor.quantization.dtype, 1)


def _is_bias(node: Node, tensor: Tensor) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].name == tensor.name


def _places(tensor: Tensor) -> tuple[int, int, int]:
    """Height, width and channels; further leading dimensions multiply the height, a matrix has rows as its width."""
    dims = tensor.dims
    if len(dims) <= 1:
        return 1, 1, math.prod(dims)
    if len(dims) == 2:
        return 1, dims[0], dims[1]
    if len(dims) == 3:
        return 1, dims[0] * dims[1], dims[2]
    return _maps(tensor)


def _maps(tensor: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of a feature map [N, C, ..., W]."""
    dims = tensor.dims
    return dims[0] * math.prod(dims[2:-1]), dims[-1] if len(dims) > 2 else 1, dims[1]


def _pair(values: Sequence[int]) -> tuple[int, int]:
    """The last as width, the product of those before as height; 1 where there is none."""
    return (math.prod(values[:-1]), values[-1]) if values else (1, 1)
