"""What the simulated NPU has no kernel for, each with the reason."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.operators import LOWERINGS, wide
from pipeline.compile.operators.movement import pad_widths, slice_places
from pipeline.compile.operators.tables import FUNCTIONS
from pipeline.compile.windows import COORDINATES, natural_scale
from pipeline.graph.view import Node, Tensor
from pipeline.graph.weighted import channel_axis
from runtime.npu.contracts import CONTRACTS, Contract, find_contract

CONSTANT_OPERANDS = frozenset({"Add", "Concat", "MatMul", "Max", "Min", "Mul", "PRelu", "Sub"})
"""Operators that take a constant in place of any computed input but not of all."""

SEVERAL_OUTPUTS = frozenset({"Split"})

LINEAR_COORDINATES = frozenset({"align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel"})

MAX_RANK = 8
DEFAULT = CONTRACTS["tflite-r1"]


def kernels(contract: str) -> Callable[[Node], str | None]:
    """``no_kernel`` under the contract of that name; raises ``ProgramError`` when there is none."""
    return partial(no_kernel, contract=find_contract(contract))


def no_kernel(node: Node, contract: Contract = DEFAULT) -> str | None:
    """Why the simulated NPU cannot run ``node`` under ``contract``, or ``None`` when it can.

    Judges float and quantized graphs.
    """
    if not node.standard or node.op not in LOWERINGS:
        return f"the simulated NPU has no kernel for {node.domain}{'.' if node.domain else ''}{node.op}"
    reason = _operands(node) or _tensors(node, contract)
    reason = reason or FORMS.get(node.op, _any_form)(node, _typed(node, contract))
    return None if reason is None else f"the simulated NPU's {node.op} {reason}"


def _typed(node: Node, contract: Contract) -> Contract:
    """The contract of the type that ``node`` computes in; in a float graph the first one."""
    quantization = node.outputs[0].quantization
    return contract if quantization is None else contract.by_type(quantization.dtype) or contract


def _operands(node: Node) -> str | None:
    """What is wrong with the number and kind of inputs and outputs."""
    if len(node.outputs) != 1 and node.op not in SEVERAL_OUTPUTS:
        return f"gives one output, this one gives {len(node.outputs)}"
    if node.op in CONSTANT_OPERANDS:
        if not node.activations:
            return f"takes a computed input, {node.required(0).name} is a constant"
        odd = [t for t in node.inputs if t is not None and t.constant is not None and _no_operand(t)]
        return f"takes constants of real numbers or with one scale, {odd[0].name} is neither" if odd else None
    computed = [t.name for t in node.inputs[1:] if t is not None and t.constant is None]
    if computed:
        return f"takes constants beside its first input, {computed[0]} is computed"
    first = node.required(0)
    return None if first.constant is None else f"takes a computed first input, {first.name} is a constant"


def _no_operand(tensor: Tensor) -> bool:
    if tensor.quantization is None:
        return not np.issubdtype(tensor.dtype, np.floating)
    return tensor.quantization.per_channel and len(tensor.dims) != 2


def _tensors(node: Node, contract: Contract) -> str | None:
    """What is wrong with the shapes and types of the activations."""
    for tensor in (*node.activations, *node.outputs):
        shape = tensor.shape
        if shape is None or not 1 <= len(shape) <= MAX_RANK or not all(shape):
            return f"takes static shapes of 1 to {MAX_RANK} dimensions, {tensor.name} has {_plain(shape)}"
        quantization = tensor.quantization
        if quantization is not None and (quantization.per_channel or contract.by_type(quantization.dtype) is None):
            kind = f"{quantization.dtype} per channel" if quantization.per_channel else quantization.dtype
            return f"takes {' or '.join(contract.types)} with one scale, {tensor.name} is {kind}"
    return None if node.op == "QuantizeLinear" else _one_type(node)


def _one_type(node: Node) -> str | None:
    """Whether the activations have several types; a constant matrix is a weight, any other operand is one of them."""
    constants = [t for t in node.inputs if t is not None and t.constant is not None]
    operands = constants if node.op in CONSTANT_OPERANDS - {"MatMul"} else []
    tensors = (*node.activations, *operands, *node.outputs)
    kinds = {t.quantization.dtype: t.name for t in tensors if t.quantization is not None}
    if len(kinds) < 2:
        return None
    (first, a), (second, b), *_ = kinds.items()
    return f"computes in one type, {a} is {first} and {b} is {second}"


def _plain(shape: tuple[int | None, ...] | None) -> str:
    return "none" if shape is None else str([d if d is not None else "?" for d in shape])


def _any_form(node: Node, contract: Contract) -> str | None:
    return None


def _conv_form(node: Node, contract: Contract) -> str | None:
    kernel = node.required(1).dims[2:]
    if len(kernel) not in (1, 2):
        return f"has one or two spatial dimensions, this one has kernel {list(kernel)}"
    if node.op == "ConvTranspose" and contract.accumulator_bits == 16:
        return "has no form with a 16-bit saturating accumulator"
    return _weight_form(node, contract)


def _gemm_form(node: Node, contract: Contract) -> str | None:
    if node.int("transA", 0):
        return "takes its first input as it is, this one has transA"
    for name in ("alpha", "beta"):
        value = node.attributes.get(name, 1.0)
        if value != 1.0:
            return f"scales nothing, this one has {name} {value}"
    rank = len(node.required(1).dims)
    return f"takes a matrix as weight, this one has {rank} dimensions" if rank != 2 else _weight_form(node, contract)


def _matmul_form(node: Node, contract: Contract) -> str | None:
    first, second = node.required(0), node.required(1)
    if first.constant is None and second.constant is not None and len(second.dims) == 2:
        return _weight_form(node, contract)
    constant = next((t for t in (first, second) if t.constant is not None and t.quantization is not None), None)
    kind = contract.activations if constant is None or constant.quantization is None else constant.quantization.dtype
    if constant is not None and kind != contract.activations:
        return f"takes {contract.activations} operands, {constant.name} is {kind}"
    if contract.accumulator_bits == 16:
        return "of two tensors has no form with a 16-bit saturating accumulator"
    a, b = first.dims, second.dims
    if len(a) < 2 or len(b) < 2 or not (a[:-2] == b[:-2] or len(a) == 2 or len(b) == 2):
        return f"takes matrices in equal batches, this one has {list(a)} and {list(b)}"
    return None


def _weight_form(node: Node, contract: Contract) -> str | None:
    """What is wrong with the integers of weight and bias; nothing in a float graph, which has none."""
    source, weight, bias = node.required(0), node.required(1), node.input(2)
    if source.quantization is None:
        return None
    quantization, axis = weight.quantization, channel_axis(node)
    if quantization is None or weight.constant is None or weight.constant.dtype != np.int8:
        return f"takes an int8 weight, {weight.name} is {weight.dtype if quantization is None else quantization.dtype}"
    if np.any(quantization.zero_point != 0):
        return f"takes a symmetric weight, {weight.name} has a zero point other than 0"
    if quantization.axis not in (None, axis):
        return f"takes one scale per output channel (axis {axis}), {weight.name} has them along {quantization.axis}"
    rows = _rows(node, weight.constant)
    if bias is not None:
        problem = _bias_form(bias, len(rows))
        if problem is not None:
            return problem
    return _accumulator_form(source, rows, bias, contract)


def _rows(node: Node, weight: NDArray[np.generic]) -> NDArray[np.int64]:
    """The weight, output channels first: [outputs, everything else]."""
    values, axis, group = weight.astype(np.int64), channel_axis(node), node.int("group", 1)
    if node.op == "ConvTranspose":
        grouped = values.reshape(group, values.shape[0] // group, values.shape[1], -1)
        return np.swapaxes(grouped, 1, 2).reshape(group * values.shape[1], -1)
    moved = np.moveaxis(values, axis or 0, 0)
    return moved.reshape(len(moved), -1)


def _bias_form(bias: Tensor, channels: int) -> str | None:
    quantization = bias.quantization
    if bias.constant is None or quantization is None or bias.constant.dtype != np.int32:
        return f"takes an int32 bias, {bias.name} is {bias.dtype if quantization is None else quantization.dtype}"
    if np.any(quantization.zero_point != 0):
        return f"takes a symmetric bias, {bias.name} has a zero point other than 0"
    if bias.constant.size not in (1, channels) or (bias.constant.size > 1 and bias.dims[-1] != channels):
        return f"takes one bias per output channel, {bias.name} has shape {list(bias.dims)}"
    return None


def _accumulator_form(source: Tensor, rows: NDArray[np.int64], bias: Tensor | None, contract: Contract) -> str | None:
    """Whether some input could make the accumulator overflow: from the actual weights, output channels first."""
    if source.quantization is None or contract.accumulator_bits == 16:  # that one saturates instead
        return None
    zero, (least, most) = int(source.quantization.zero_point), contract.limits
    up, down = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    constant: NDArray[Any] = np.zeros(1, np.int64)
    if bias is not None and bias.constant is not None:
        constant = bias.constant.astype(np.int64).reshape(-1)
    low, high = least - zero, most - zero
    sums = np.array([up * high + down * low, up * low + down * high])
    largest, bits = int(np.max(np.abs([sums, sums + constant]))), contract.accumulator_bits
    if largest < 1 << (bits - 1):
        return None
    return f"has an int{bits} accumulator, this one may reach {largest}; sum fewer products, or add parts of them"


def _pool_form(node: Node, contract: Contract) -> str | None:
    kernel = node.ints("kernel_shape", ())
    if len(kernel) not in (1, 2):
        return f"has one or two spatial dimensions, this one has kernel {list(kernel)}"
    dilations = node.ints("dilations", (1,) * len(kernel))
    if any(d != 1 for d in dilations):
        return f"has no dilation, this one has {list(dilations)}"
    if node.op == "AveragePool" and contract.multiplier_bits == 1:
        return f"needs a factor 1/n, which the contract {contract.name} has not"
    if node.int("count_include_pad", 0) and node.int("ceil_mode", 0):
        return "counts padding or rounds sizes up, this one does both"
    return None


def _reduce_form(node: Node, contract: Contract) -> str | None:
    given = node.input(1)
    axes = node.ints("axes", ()) if given is None else tuple(np.ravel(given.real))
    empty = not axes and node.int("noop_with_empty_axes", 0)
    return "takes axes, this one has noop_with_empty_axes and none" if empty else None


def _resize_form(node: Node, contract: Contract) -> str | None:
    source, result, mode = node.required(0).dims, node.outputs[0].dims, node.text("mode", "nearest")
    if mode not in ("nearest", "linear"):
        return f"takes the nearest value or mixes linearly, this one's mode is {mode}"
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    if coordinates not in (COORDINATES if mode == "nearest" else LINEAR_COORDINATES):
        return f"does not know the coordinates {coordinates} with mode {mode}"
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return f"stretches, this one's policy is {node.text('keep_aspect_ratio_policy', '')}"
    if node.input(2) is None and node.input(3) is None:
        return "takes scales as third or sizes as fourth input (opset 11 and newer), this one has neither"
    if len(source) != 4 or source[:2] != result[:2]:
        return f"resizes the last two of four dimensions, this one resizes {list(source)} to {list(result)}"
    return _linear_form(node) if mode == "linear" else None


def _linear_form(node: Node) -> str | None:
    if not all(natural_scale(node, axis) for axis in (2, 3)):
        return "mixes linearly where the scale is the ratio of the sizes, this one's is another"
    return "has no antialias" if node.int("antialias", 0) else None


def _pad_form(node: Node, contract: Contract) -> str | None:
    if node.text("mode", "constant") != "constant":
        return f"pads with a constant, this one's mode is {node.text('mode', '')}"
    widths = pad_widths(node)
    return f"adds values, this one has pads {list(widths)}" if min(widths) < 0 else None


def _slice_form(node: Node, contract: Contract) -> str | None:
    empty = [axis for axis, place in enumerate(slice_places(node)) if len(place) == 0]
    return f"leaves something, this one takes nothing along axis {empty[0]}" if empty else None


def _table_form(node: Node, contract: Contract) -> str | None:
    if contract.activations != "int16":
        return None
    if contract.tables != "tflite" or node.op not in (*wide.FUNCTIONS, "Softmax"):
        return "is a table of 256 entries, int16 has more values"
    if node.op == "LeakyRelu" and wide.leak(node) <= 0:
        return f"has a slope above 0 with int16, this one has {wide.leak(node):g}"
    return None


def _softmax_form(node: Node, contract: Contract) -> str | None:
    if contract.symmetric and contract.activations != "int16":
        return f"has an output that begins at the smallest integer, the contract {contract.name} is symmetric"
    return _table_form(node, contract)


def _requantize_form(node: Node, contract: Contract) -> str | None:
    given = [t.name for t in (node.required(0), node.outputs[0]) if t.quantization is None]
    return f"rescales quantized tensors, {given[0]} is not quantized" if given else None


FORMS: Mapping[str, Callable[[Node, Contract], str | None]] = {
    "AveragePool": _pool_form,
    "Conv": _conv_form,
    "ConvTranspose": _conv_form,
    "Gemm": _gemm_form,
    "MatMul": _matmul_form,
    "MaxPool": _pool_form,
    "Pad": _pad_form,
    "QuantizeLinear": _requantize_form,
    "ReduceMax": _reduce_form,
    "ReduceMean": _reduce_form,
    "ReduceMin": _reduce_form,
    "ReduceSum": _reduce_form,
    "Resize": _resize_form,
    "Slice": _slice_form,
    "Softmax": _softmax_form,
    **dict.fromkeys(FUNCTIONS, _table_form),
}
"""What an operator of this kind may have that its kernel lacks."""
