"""What the simulated NPU has no kernel for, each with the reason."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compile.operators import LOWERINGS
from pipeline.compile.windows import COORDINATES, pads
from pipeline.graph.view import Node, Tensor
from pipeline.quantize.weights import channel_axis

TWO_ACTIVATIONS = frozenset({"Add", "Sub", "Mul", "Concat"})
"""Operators whose inputs are all computed at run time."""

MAX_RANK = 8
INT32_MAX = 2**31 - 1


def no_kernel(node: Node) -> str | None:
    """Why the simulated NPU cannot run ``node``, or ``None`` when it can; judges float and quantized graphs."""
    if not node.standard or node.op not in LOWERINGS:
        return f"the simulated NPU has no kernel for {node.domain}{'.' if node.domain else ''}{node.op}"
    reason = _operands(node) or _tensors(node) or FORMS.get(node.op, _any_form)(node)
    return None if reason is None else f"the simulated NPU's {node.op} {reason}"


def _operands(node: Node) -> str | None:
    """What is wrong with the number and kind of inputs and outputs."""
    if len(node.outputs) != 1:
        return f"gives one output, this one gives {len(node.outputs)}"
    if node.op in TWO_ACTIVATIONS:
        constant = [t.name for t in node.inputs if t is not None and t.constant is not None]
        return f"takes computed tensors only, {constant[0]} is a constant" if constant else None
    computed = [t.name for t in node.inputs[1:] if t is not None and t.constant is None]
    if computed:
        return f"takes constants beside its first input, {computed[0]} is computed"
    first = node.required(0)
    return None if first.constant is None else f"takes a computed first input, {first.name} is a constant"


def _tensors(node: Node) -> str | None:
    """What is wrong with the shapes and types of the activations."""
    for tensor in (*node.activations, *node.outputs):
        shape = tensor.shape
        if shape is None or not 1 <= len(shape) <= MAX_RANK or not all(shape):
            return f"takes static shapes of 1 to {MAX_RANK} dimensions, {tensor.name} has {_plain(shape)}"
        quantization = tensor.quantization
        if quantization is not None and (quantization.per_channel or quantization.dtype != "int8"):
            kind = f"{quantization.dtype} per channel" if quantization.per_channel else quantization.dtype
            return f"takes int8 with one scale, {tensor.name} is {kind}"
    return None


def _plain(shape: tuple[int | None, ...] | None) -> str:
    return "none" if shape is None else str([d if d is not None else "?" for d in shape])


def _any_form(node: Node) -> str | None:
    return None


def _conv_form(node: Node) -> str | None:
    kernel = node.required(1).dims[2:]
    if len(kernel) != 2:
        return f"has two spatial dimensions, this one has kernel {list(kernel)}"
    return _weight_form(node)


def _gemm_form(node: Node) -> str | None:
    if node.int("transA", 0):
        return "takes its first input as it is, this one has transA"
    for name in ("alpha", "beta"):
        value = node.attributes.get(name, 1.0)
        if value != 1.0:
            return f"scales nothing, this one has {name} {value}"
    return _matmul_form(node)


def _matmul_form(node: Node) -> str | None:
    rank = len(node.required(1).dims)
    return f"takes a matrix as weight, this one has {rank} dimensions" if rank != 2 else _weight_form(node)


def _weight_form(node: Node) -> str | None:
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
    channels = weight.dims[0 if axis is None else axis]
    if bias is not None:
        problem = _bias_form(bias, channels)
        if problem is not None:
            return problem
    return _accumulator_form(source, np.moveaxis(weight.constant, axis or 0, 0), bias)


def _bias_form(bias: Tensor, channels: int) -> str | None:
    quantization = bias.quantization
    if bias.constant is None or quantization is None or bias.constant.dtype != np.int32:
        return f"takes an int32 bias, {bias.name} is {bias.dtype if quantization is None else quantization.dtype}"
    if np.any(quantization.zero_point != 0):
        return f"takes a symmetric bias, {bias.name} has a zero point other than 0"
    if bias.constant.size not in (1, channels) or (bias.constant.size > 1 and bias.dims[-1] != channels):
        return f"takes one bias per output channel, {bias.name} has shape {list(bias.dims)}"
    return None


def _accumulator_form(source: Tensor, weight: NDArray[np.generic], bias: Tensor | None) -> str | None:
    """Whether some input could make the int32 accumulator overflow: from the actual weights, output channels first."""
    if source.quantization is None:
        return None
    zero = int(source.quantization.zero_point)
    rows = weight.astype(np.int64).reshape(weight.shape[0], -1)
    up, down = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    constant: NDArray[Any] = np.zeros(1, np.int64)
    if bias is not None and bias.constant is not None:
        constant = bias.constant.astype(np.int64).reshape(-1)
    low, high = -128 - zero, 127 - zero
    sums = np.array([up * high + down * low, up * low + down * high])
    largest = int(np.max(np.abs([sums, sums + constant])))
    return None if largest <= INT32_MAX else f"has an int32 accumulator, this one may reach {largest}"


def _pool_form(node: Node) -> str | None:
    kernel = node.ints("kernel_shape", ())
    if len(kernel) != 2:
        return f"has two spatial dimensions, this one has kernel {list(kernel)}"
    if any(d != 1 for d in node.ints("dilations", (1, 1))):
        return f"has no dilation, this one has {list(node.ints('dilations', (1, 1)))}"
    if node.int("ceil_mode", 0):
        return "rounds sizes down, this one has ceil_mode"
    if node.int("count_include_pad", 0) and any(pads(node, kernel)):
        return "does not count padding, this one has count_include_pad"
    return None


def _mean_form(node: Node) -> str | None:
    given = node.input(1)
    axes = node.ints("axes", ()) if given is None else tuple(np.ravel(given.real))
    empty = not axes and node.int("noop_with_empty_axes", 0)
    return "takes axes, this one has noop_with_empty_axes and none" if empty else None


def _resize_form(node: Node) -> str | None:
    source, result = node.required(0).dims, node.outputs[0].dims
    if node.text("mode", "nearest") != "nearest":
        return f"takes the nearest value, this one's mode is {node.text('mode', 'nearest')}"
    if node.text("coordinate_transformation_mode", "half_pixel") not in COORDINATES:
        return f"does not know the coordinates {node.text('coordinate_transformation_mode', '')}"
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return f"stretches, this one's policy is {node.text('keep_aspect_ratio_policy', '')}"
    if node.input(2) is None and node.input(3) is None:
        return "takes scales as third or sizes as fourth input (opset 11 and newer), this one has neither"
    if len(source) != 4 or source[:2] != result[:2]:
        return f"resizes the last two of four dimensions, this one resizes {list(source)} to {list(result)}"
    return None


FORMS: Mapping[str, Callable[[Node], str | None]] = {
    "AveragePool": _pool_form,
    "Conv": _conv_form,
    "Gemm": _gemm_form,
    "MatMul": _matmul_form,
    "MaxPool": _pool_form,
    "ReduceMean": _mean_form,
    "Resize": _resize_form,
}
"""What an operator of this kind may have that its kernel lacks."""
