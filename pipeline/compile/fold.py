"""Folding scales into integers: multipliers, biases and clamps of one operator under the target's contract."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.graph.fusion import clip_range
from pipeline.graph.view import Node, Tensor
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
        "multiplier": np.array([m for m, _ in pairs], np.int64 if contract.multiplier_bits > 31 else np.int32),
        "shift": np.array([e for _, e in pairs], np.int32),
    }


def of_type(name: str, dtype: str, contract: Contract) -> Contract:
    """The contract by which the tensor ``name`` of type ``dtype`` is computed.

    Raises:
        ModelError: ``contract`` has no such type.
    """
    found = contract.by_type(dtype)
    if found is None:
        what = f"is {dtype}, an NPU tensor must be {' or '.join(contract.types)} with one scale"
        raise ModelError(what, where=name, fix="quantize the model to a type of the target")
    return found


def spec(tensor: Tensor, contract: Contract) -> TensorSpec:
    """The tensor as a program declares it.

    Raises:
        ModelError: it is not quantized per tensor to a type of the contract, has no static shape, or has a zero point
            that a symmetric contract does not take.
    """
    quantization = tensor.quantization
    if quantization is None or quantization.per_channel:
        what = f"an NPU tensor must be {' or '.join(contract.types)} with one scale"
        raise ModelError(what, where=tensor.name, fix="quantize the model")
    found = of_type(tensor.name, quantization.dtype, contract)
    zero = int(quantization.zero_point)
    if found.symmetric and zero != 0:
        raise ModelError(
            f"has zero point {zero}, the contract {found.name} is symmetric", where=tensor.name, fix="requantize it"
        )
    return TensorSpec(tensor.wire, tensor.dims, found.activations, float(quantization.scale), zero)


def scale(tensor: Tensor) -> float:
    """The one scale of a quantized tensor; raises ``ModelError`` when it is not quantized."""
    if tensor.quantization is None:
        raise ModelError("is not quantized", where=tensor.name, fix="quantize the model")
    return float(tensor.quantization.scale)


def add_parameters(
    node: Node, inputs: tuple[TensorSpec, TensorSpec], output: TensorSpec, contract: Contract
) -> tuple[Mapping[str, Attribute], Constants]:
    """Attributes and constants of ADD and SUB.

    Shifted with the contract's left shift (20 bits in TFLite's int8 kernel): ``s_i / M`` and ``M / (2**shift * s_y)``
    with ``M`` twice the larger scale; in float32: ``s_i / s_y``.

    Raises:
        ModelError: the output's scale is so much finer than the inputs' that the last factor reaches 1.
    """
    first, second, result = (tensor.scale or 0.0 for tensor in (*inputs, output))
    if contract.add == "float32":
        factors = contract.ratio((first,), result), contract.ratio((second,), result)
        return {"left_shift": 0}, fold(node, factors, contract)
    widest = 2 * max(first, second)
    shifted = (first / widest, second / widest, widest / (2**contract.add_shift * result))
    if shifted[2] >= 1:
        raise ModelError(
            f"adds scales {first:g} and {second:g} into {result:g}, which is too fine",
            where=node.name,
            fix="its result is almost constant: check the model",
        )
    return {"left_shift": contract.add_shift}, fold(node, shifted, contract)


def conv_parameters(
    node: Node,
    weight: NDArray[np.generic] | None,
    output: Tensor,
    contract: Contract,
) -> Constants:
    """Weight, bias, multiplier and shift of a convolution or fully connected layer.

    Args:
        node: the operator; its first input is the quantized activation, its third the int32 bias, if any.
        weight: int8, output channels first; its quantization, that of the node's second input, is symmetric.
        output: the tensor it writes.
        contract: that of sums of products.

    The factor of channel c is ``s_x * s_w[c] / s_y``, in float64 or float32 as the contract's rule has it: TFLite's for
    convolutions, and what TFLite Micro's fully connected kernel computes, also per tensor (the float32 product of
    older sources moves outputs against its interpreter, see the tests of the runtime).

    Raises:
        ModelError: the weight is not symmetric int8, or the bias does not stand on ``s_x * s_w``.
    """
    quantization = node.required(1).quantization
    if weight is None or quantization is None or weight.dtype != np.int8 or np.any(quantization.zero_point != 0):
        raise ModelError("needs a constant, symmetric int8 weight", where=node.name, fix="quantize the model")
    channels = weight.shape[0]
    scales = np.broadcast_to(quantization.scale, (channels,)).astype(np.float64)
    source, result = scale(node.required(0)), scale(output)
    return {
        "weight": weight,
        "bias": _bias(node, channels, source * scales),
        **fold(node, [contract.ratio((source, float(s)), result) for s in scales], contract),
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


def clamp_bounds(node: Node, output: Tensor, limits: tuple[int, int]) -> tuple[int, int]:
    """``act_min`` and ``act_max`` that a Relu or Clip puts on ``output``, within the activations' ``limits``.

    Formula: TFLite, ``max(-128, z_y + rha(f32(low / s_y)))`` and ``min(127, z_y + rha(f32(high / s_y)))``.
    Raises ``ModelError`` when the limits are computed or the output is not quantized.
    """
    low, high = clip_range(node)
    step = np.float32(scale(output))
    zero = 0 if output.quantization is None else int(output.quantization.zero_point)
    with np.errstate(over="ignore"):
        bottom = limits[0] if low is None else zero + _half_away(np.float32(low) / step)
        top = limits[1] if high is None else zero + _half_away(np.float32(high) / step)
    top = min(limits[1], max(limits[0], top))
    return min(limits[1], max(limits[0], bottom), top), top  # a lower limit above the upper one loses, as in ONNX


def _half_away(value: np.floating) -> int:
    near = np.clip(float(value), -(2**17), 2**17)  # far beyond the activations all is the same
    return int(np.copysign(np.floor(np.abs(near) + 0.5), near))
