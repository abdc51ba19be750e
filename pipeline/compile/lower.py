"""Lowering: from the quantized operators of an NPU partition to a program with folded integer parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.fold import clamp_bounds, conv_parameters, fold
from pipeline.errors import ModelError
from pipeline.graph.fusion import fused_activation
from pipeline.graph.view import Graph, Node, Tensor
from pipeline.targets.profile import Target
from runtime.npu.program import Attribute, Instruction, Program
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Lowering:
    """What a lowering function may use.

    Attributes:
        graph: the whole quantized graph.
        node: the operator.
        output: the tensor it writes: that of its fused clamp when it has one.
        bounds: ``act_min`` and ``act_max`` of that clamp, or the whole int8 range.
    """

    graph: Graph
    node: Node
    output: Tensor
    bounds: tuple[int, int]

    def instruction(
        self,
        opcode: str,
        attributes: Mapping[str, Attribute] | None = None,
        constants: Mapping[str, NDArray[np.generic]] | None = None,
        clamp: bool = True,
    ) -> Instruction:
        """An instruction from the node's activations to its output; clamped unless the opcode has no clamp."""
        bounds = {"act_min": self.bounds[0], "act_max": self.bounds[1]} if clamp else {}
        inputs = tuple(t.wire for t in self.node.activations)
        return Instruction(
            opcode, self.node.name, inputs, self.output.wire, {**(attributes or {}), **bounds}, constants or {}
        )


@dataclass
class _Assembly:
    """Instructions and tensors collected so far."""

    instructions: list[Instruction] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)


def lower(
    graph: Graph, nodes: Sequence[Node], inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target
) -> Program:
    """The program of one NPU partition.

    Args:
        graph: the whole quantized graph.
        nodes: the partition's operators in topological order.
        inputs: the tensors it takes, quantized.
        outputs: the tensors it gives, quantized.
        target: whose contract the parameters are folded for.

    Raises:
        ModelError: an operator or a tensor has no form in the program; placement should have prevented it.
    """
    assembly = _Assembly()
    for tensor in inputs:
        assembly.tensors[tensor.wire] = spec(tensor)
    followers = {f.name for f in (fused_activation(graph, n) for n in nodes) if f is not None}
    for node in nodes:
        if node.name in followers:
            continue
        clamp = fused_activation(graph, node)
        output = node.outputs[0] if clamp is None else clamp.outputs[0]
        reason = no_kernel(node)
        if reason is not None:
            raise ModelError(f"cannot be compiled: {reason}", where=node.name)
        bounds = (-128, 127) if clamp is None else clamp_bounds(clamp, output)
        assembly.tensors[output.wire] = spec(output)
        assembly.instructions.append(LOWERINGS[node.op](Lowering(graph, node, output, bounds)))
    return Program(
        target=target.name,
        contract=target.contract,
        device=target.device_figures(),
        tensors=tuple(assembly.tensors.values()),
        inputs=tuple(t.wire for t in inputs),
        outputs=tuple(t.wire for t in outputs),
        instructions=tuple(assembly.instructions),
    )


def spec(tensor: Tensor) -> TensorSpec:
    """The tensor as a program declares it; raises ``ModelError`` unless it is int8 per tensor with a static shape."""
    quantization = tensor.quantization
    if quantization is None or quantization.per_channel or quantization.dtype != "int8":
        raise ModelError("an NPU tensor must be int8 with one scale", where=tensor.name, fix="quantize the model")
    return TensorSpec(tensor.wire, tensor.dims, "int8", float(quantization.scale), int(quantization.zero_point))


def no_kernel(node: Node) -> str | None:
    """Why the simulated NPU cannot run ``node``, or ``None`` when it can."""
    if node.domain not in ("", "ai.onnx") or node.op not in LOWERINGS:
        return f"the simulated NPU has no kernel for {node.domain}{'.' if node.domain else ''}{node.op}"
    if len(node.outputs) != 1:
        return f"the simulated NPU's {node.op} gives one output, this one gives {len(node.outputs)}"
    computed = [t for t in node.inputs[1:] if t is not None and t.constant is None]
    if node.op not in TWO_ACTIVATIONS and computed:
        return f"the simulated NPU's {node.op} takes constants beside its first input, {computed[0].name} is computed"
    if node.op in TWO_ACTIVATIONS and len(node.activations) != len(node.inputs):
        return f"the simulated NPU's {node.op} takes computed tensors only, one input is a constant"
    return _unsupported_form(node)


def _unsupported_form(node: Node) -> str | None:
    """What this very operator has that the kernel of its kind lacks, or ``None``."""
    form = FORMS.get(node.op, _any_form)(node)
    return None if form is None else f"the simulated NPU's {node.op} has {form}"


def _any_form(node: Node) -> str | None:
    return None


def _conv_form(node: Node) -> str | None:
    return None if len(node.required(1).dims) == 4 else "two spatial dimensions only"


def _resize_form(node: Node) -> str | None:
    return None if node.text("mode", "nearest") == "nearest" else "nearest only"


def _pool_form(node: Node) -> str | None:
    if node.int("ceil_mode", 0) or any(d != 1 for d in node.ints("dilations", (1, 1))):
        return "neither ceil_mode nor dilation"
    if node.int("count_include_pad", 0) and any(node.ints("pads", (0, 0, 0, 0))):
        return "no count_include_pad"
    return None


def _gemm_form(node: Node) -> str | None:
    scaled = {node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)} != {1.0}
    return "neither transA, alpha nor beta" if scaled or node.int("transA", 0) else None


FORMS: Mapping[str, Callable[[Node], str | None]] = {
    "AveragePool": _pool_form,
    "Conv": _conv_form,
    "Gemm": _gemm_form,
    "MaxPool": _pool_form,
    "Resize": _resize_form,
}
"""What an operator of this kind may have that its kernel lacks."""


def _conv(op: Lowering) -> Instruction:
    attributes: dict[str, Attribute] = {
        "strides": op.node.ints("strides", (1, 1)),
        "pads": pads(op.node, op.node.ints("kernel_shape", op.node.required(1).dims[2:])),
        "dilations": op.node.ints("dilations", (1, 1)),
        "group": op.node.int("group", 1),
    }
    weight = op.node.required(1)
    return op.instruction(
        "conv2d", attributes, conv_parameters(op.node, weight.constant, op.output, weight.quantization)
    )


def _gemm(op: Lowering) -> Instruction:
    weight = op.node.required(1)
    values = weight.constant
    transposed = op.node.op == "Gemm" and op.node.int("transB", 0) == 1
    if values is None:
        raise ModelError("has a computed weight", where=op.node.name)
    matrix = values if transposed else np.ascontiguousarray(values.T)
    return op.instruction("fully_connected", {}, conv_parameters(op.node, matrix, op.output, weight.quantization))


def _add(op: Lowering) -> Instruction:
    """ADD and SUB with the 20-bit left shift of TFLite's reference kernel (numerics, section 6.3)."""
    first, second = (spec(t).scale or 0.0 for t in op.node.activations[:2])
    out = spec(op.output).scale or 0.0
    widest = 2 * max(first, second)
    factors = (first / widest, second / widest, widest / (2**20 * out))
    return op.instruction(op.node.op.lower(), {"left_shift": 20}, fold(op.node, factors))


def _mul(op: Lowering) -> Instruction:
    first, second = (spec(t).scale or 0.0 for t in op.node.activations)
    return op.instruction("mul", {}, fold(op.node, (first * second / (spec(op.output).scale or 1.0),)))


def _clamp(op: Lowering) -> Instruction:
    source, out = spec(op.node.required(0)).scale or 0.0, spec(op.output).scale or 1.0
    constants = fold(op.node, (float(np.float32(np.float32(source) / np.float32(out))),))
    low, high = clamp_bounds(op.node, op.output)
    return Instruction(
        "requantize",
        op.node.name,
        (op.node.required(0).wire,),
        op.output.wire,
        {"act_min": low, "act_max": high},
        constants,
    )


def _max_pool(op: Lowering) -> Instruction:
    return op.instruction("max_pool", _window(op.node), clamp=False)


def _average_pool(op: Lowering) -> Instruction:
    return op.instruction("average_pool", _window(op.node), clamp=False)


def _window(node: Node) -> Mapping[str, Attribute]:
    kernel = node.ints("kernel_shape", ())
    return {"kernel": kernel, "strides": node.ints("strides", (1, 1)), "pads": pads(node, kernel)}


def _mean(op: Lowering) -> Instruction:
    factor = (spec(op.node.required(0)).scale or 0.0) / (spec(op.output).scale or 1.0)
    rank = len(op.node.required(0).dims)
    axes = tuple(range(2, rank))
    if op.node.op == "ReduceMean":
        given = op.node.input(1)
        axes = op.node.ints("axes", ()) if given is None else tuple(int(a) for a in np.ravel(given.real))
        axes = tuple(a % rank for a in axes) or tuple(range(rank))
    return op.instruction("mean", {"axes": axes}, fold(op.node, (factor,)), clamp=False)


def _lookup(op: Lowering) -> Instruction:
    source = spec(op.node.required(0))
    real = source.dequantize(np.arange(-128, 128)).astype(np.float64)
    quantized = np.rint(TABLES[op.node.op](real) / (spec(op.output).scale or 1.0)) + (spec(op.output).zero_point or 0)
    return op.instruction("lookup", {}, {"table": np.clip(quantized, -128, 127).astype(np.int8)}, clamp=False)


def _resize(op: Lowering) -> Instruction:
    source, result = op.node.required(0).dims, op.output.dims
    rows, columns = (nearest_indices(op.node, source[i], result[i]) for i in (2, 3))
    return op.instruction("resize_nearest", {}, {"rows": rows, "columns": columns}, clamp=False)


def nearest_indices(node: Node, source: int, result: int) -> NDArray[np.int32]:
    """The source index of every output index of a nearest Resize along one axis, as ONNX defines it."""
    index, scale = np.arange(result, dtype=np.float64), result / source
    transform = node.text("coordinate_transformation_mode", "half_pixel")
    positions: Mapping[str, NDArray[np.float64]] = {
        "asymmetric": index / scale,
        "half_pixel": (index + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (index + 0.5) / scale - 0.5 if result > 1 else index * 0,
        "align_corners": index * ((source - 1) / max(result - 1, 1)),
    }
    if transform not in positions:
        raise ModelError(f"resizes with {transform}, which the simulated NPU lacks", where=node.name)
    position = positions[transform]
    rounded = {
        "floor": np.floor(position),
        "ceil": np.ceil(position),
        "round_prefer_floor": np.ceil(position - 0.5),
        "round_prefer_ceil": np.floor(position + 0.5),
    }[node.text("nearest_mode", "round_prefer_floor")]
    return np.clip(rounded, 0, source - 1).astype(np.int32)


def _concat(op: Lowering) -> Instruction:
    return op.instruction("concat", {"axis": op.node.int("axis", 0) % len(op.output.dims)}, clamp=False)


def _reshape(op: Lowering) -> Instruction:
    return op.instruction("reshape", clamp=False)


def _transpose(op: Lowering) -> Instruction:
    rank = len(op.output.dims)
    return op.instruction("transpose", {"permutation": op.node.ints("perm", tuple(reversed(range(rank))))}, clamp=False)


def pads(node: Node, kernel: Sequence[int]) -> tuple[int, ...]:
    """Padding as (top, left, bottom, right), ``auto_pad`` resolved for the node's static input shape."""
    mode = node.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return node.ints("pads", (0, 0, 0, 0))
    if mode == "VALID":
        return (0, 0, 0, 0)
    strides, dilations = node.ints("strides", (1, 1)), node.ints("dilations", (1, 1))
    before, after = [], []
    for size, k, s, d in zip(node.required(0).dims[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small = total // 2
        before.append(small if mode == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return (*before, *after)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def _hard_swish(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.clip(x / 6 + 0.5, 0, 1)


TABLES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "HardSwish": _hard_swish,
}
"""Unary functions that run as a 256-entry table, generated in float64 and rounded to the nearest, ties to even."""

LOWERINGS: Mapping[str, Callable[[Lowering], Instruction]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Clip": _clamp,
    "Concat": _concat,
    "Conv": _conv,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSwish": _lookup,
    "MatMul": _gemm,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "ReduceMean": _mean,
    "Relu": _clamp,
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _lookup,
    "Squeeze": _reshape,
    "Sub": _add,
    "Tanh": _lookup,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""ONNX operator to the function that lowers it."""

TWO_ACTIVATIONS = frozenset({"Add", "Sub", "Mul", "Concat"})
"""Operators whose inputs are all computed at run time."""
