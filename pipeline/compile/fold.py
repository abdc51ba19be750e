"""Folding scales into integers: multipliers, biases and clamps of one operator under the target's contract."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Node, Quantization, Tensor
from runtime.errors import ProgramError
from runtime.npu.contracts import Contract
from runtime.npu.program import Attribute
from runtime.tensors import TensorSpec

Constants = Mapping[str, NDArray[np.generic]]


def fold(node: Node, factors: Sequence[float], contract: Contract) -> Constants:
    """``multiplier`` and ``shift`` of each real factor under ``contract``; raises ``ModelError`` if one has none."""
    pairs = []
    for factor in factors:
        if not np.isfinite(factor) or factor <= 0:
            raise ModelError(f"has the requantization factor {factor}", where=node.name, fix="check the scales")
        try:
            pairs.append(contract.quantize_multiplier(factor))
        except ProgramError as error:
            raise ModelError(error.what, where=node.name, fix="check the scales") from error
    return {
        "multiplier": np.array([m for m, _ in pairs], np.int32),
        "shift": np.array([e for _, e in pairs], np.int32),
    }


def spec(tensor: Tensor) -> TensorSpec:
    """The tensor as a program declares it; raises ``ModelError`` unless it is int8 per tensor with a static shape."""
    quantization = tensor.quantization
    if quantization is None or quantization.per_channel or quantization.dtype != "int8":
        raise ModelError("an NPU tensor must be int8 with one scale", where=tensor.name, fix="quantize the model")
    return TensorSpec(tensor.wire, tensor.dims, "int8", float(quantization.scale), int(quantization.zero_point))


def scale(tensor: Tensor) -> float:
    """The one scale of a quantized tensor; raises ``ModelError`` when it is not quantized."""
    if tensor.quantization is None:
        raise ModelError("is not quantized", where=tensor.name, fix="quantize the model")
    return float(tensor.quantization.scale)


def add_parameters(
    node: Node, first: Tensor, second: Tensor, output: Tensor, contract: Contract
) -> tuple[Mapping[str, Attribute], Constants]:
    """Attributes and constants of ADD and SUB with the contract's left shift (20 bits in TFLite's int8 kernel).

    Raises:
        ModelError: the output's scale is so much finer than the inputs' that the last factor reaches 1.
    """
    widest = 2 * max(scale(first), scale(second))
    factors = (scale(first) / widest, scale(second) / widest, widest / (2**contract.add_shift * scale(output)))
    if factors[2] >= 1:
        raise ModelError(
            f"adds scales {scale(first):g} and {scale(second):g} into {scale(output):g}, which is too fine",
            where=node.name,
            fix="its result is almost constant: check the model",
        )
    return {"left_shift": contract.add_shift}, fold(node, factors, contract)


def conv_parameters(
    node: Node,
    weight: NDArray[np.generic] | None,
    output: Tensor,
    quantization: Quantization | None,
    contract: Contract,
) -> Constants:
    """Weight, bias, multiplier and shift of a convolution or fully connected layer.

    Args:
        node: the operator; its first input is the quantized activation, its third the int32 bias, if any.
        weight: int8, output channels first.
        output: the tensor it writes.
        quantization: of the weight: symmetric, per tensor or per channel.
        contract: the target's.

    The factor of channel c is ``f64(s_x) * f64(s_w[c]) / f64(s_y)``: TFLite's for convolutions, and what TFLite
    Micro's fully connected kernel computes, also per tensor (the float32 product of older sources moves outputs
    against its interpreter, see the tests of the runtime).

    Raises:
        ModelError: the weight is not symmetric int8, or the bias does not stand on ``s_x * s_w``.
    """
    if weight is None or quantization is None or weight.dtype != np.int8 or np.any(quantization.zero_point != 0):
        raise ModelError("needs a constant, symmetric int8 weight", where=node.name, fix="quantize the model")
    channels = weight.shape[0]
    scales = np.broadcast_to(quantization.scale, (channels,)).astype(np.float64)
    products = scale(node.required(0)) * scales
    return {
        "weight": weight,
        "bias": _bias(node, channels, products),
        **fold(node, [float(f) for f in products / scale(output)], contract),
    }


def _bias(node: Node, channels: int, scales: NDArray[np.float64]) -> NDArray[np.int32]:
    bias = node.input(2)
    if bias is None:
        return np.zeros(channels, np.int32)
    if bias.constant is None:
        raise ModelError("has a computed bias", where=node.name)
    if bias.constant.dtype == np.int32 and bias.quantization is not None:
        same = np.allclose(np.broadcast_to(bias.quantization.scale, (channels,)), scales, rtol=1e-5, atol=0)
        if not same:
            raise ModelError("its bias does not have the scale input x weight", where=node.name, fix="requantize it")
        return np.broadcast_to(bias.constant.reshape(-1), (channels,)).astype(np.int32)
    raise ModelError("its bias is not int32", where=node.name, fix="quantize the model")


def clamp_bounds(node: Node, output: Tensor) -> tuple[int, int]:
    """``act_min`` and ``act_max`` that a Relu or Clip puts on ``output``.

    Formula: TFLite, ``max(-128, z_y + rha(f32(low / s_y)))`` and ``min(127, z_y + rha(f32(high / s_y)))``.
    Raises ``ModelError`` when the limits are computed or the output is not quantized.
    """
    low, high = clip_range(node)
    step = np.float32(scale(output))
    zero = 0 if output.quantization is None else int(output.quantization.zero_point)
    with np.errstate(over="ignore"):
        bottom = -128 if low is None else zero + _half_away(np.float32(low) / step)
        top = 127 if high is None else zero + _half_away(np.float32(high) / step)
    top = min(127, max(-128, top))
    return min(127, max(-128, bottom), top), top  # a lower limit above the upper one loses, as in ONNX


def _half_away(value: np.floating) -> int:
    near = np.clip(float(value), -1000, 1000)  # far beyond int8 all is the same
    return int(np.copysign(np.floor(np.abs(near) + 0.5), near))
